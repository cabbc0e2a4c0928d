import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GrpcOptions } from '../../../agent/api/grpc.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../fakes/kube-api/server.ts';
import { type Started, startEndpoint } from '../grpc/endpoint.ts';
import type { Program } from './program.ts';

/** A cluster of one node: an API server, an agent's pod, and the agent's real gRPC service, which `exec` reaches. */
export interface Stage {
  readonly program: Program;
  readonly started: Started;
  readonly api: KubeApi;
  readonly directory: string;
  /** Flags that reach the agent through the API server. */
  readonly cluster: readonly string[];
  /** Flags that reach it by its socket. */
  readonly socket: readonly string[];
  stop(): Promise<void>;
}

export const AGENT_POD = { namespace: 'snapshot', name: 'snapshot-agent-x7k2p', node: 'node-a' };

/** Starts the stage; the program is bundled once for all tests of a file. */
export async function startStage(
  program: Program,
  { kube = {}, grpc = {} }: { readonly kube?: KubeApiOptions; readonly grpc?: Partial<GrpcOptions> } = {},
): Promise<Stage> {
  const directory = await mkdtemp(join(tmpdir(), 'ctl-'));
  const started = await startEndpoint(grpc, directory);
  const api = await startKubeApi(kube);
  putAgent(api, AGENT_POD);
  serveRelay(api, program, started.socketPath);
  const kubeconfig = await api.writeKubeconfig(join(directory, 'kube'));
  return {
    program,
    started,
    api,
    directory,
    cluster: ['--kubeconfig', kubeconfig],
    socket: ['--socket', started.socketPath],
    stop: async () => {
      await api.close();
      await started.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** An exec of `snapshotctl relay` starts the real program, on this socket. */
export function serveRelay(api: KubeApi, program: Program, socketPath: string, protocols?: readonly string[]): void {
  api.serveExec(({ command: [, ...args] }) => {
    return { file: process.execPath, args: [program.file, ...args, '--socket', socketPath] };
  }, protocols);
}

/** A pod of the DaemonSet, as the chart labels it. */
export function putAgent(
  api: KubeApi,
  { namespace, name, node }: typeof AGENT_POD,
  { isReady = true }: { readonly isReady?: boolean } = {},
): void {
  api.put({
    kind: 'Pod',
    metadata: { name, namespace, labels: { 'app.kubernetes.io/component': 'snapshot-agent' } },
    spec: { nodeName: node, containers: [{ name: 'agent' }] },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }] },
  });
}
