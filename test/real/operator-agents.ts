import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { makeAuthority } from '../flow/grpc/certificates.ts';
import { type KubeNode, NODE } from './environment/kube-node.ts';
import { freePort } from './environment/operator.ts';
import { NAMESPACE } from './kubernetes-scenario.ts';

/** Where the operator and, in podMount mode, the agents are. */
export const SYSTEM = 'snapshot-system';
const AGENT_LABELS = { 'app.kubernetes.io/component': 'snapshot-agent' };

/** Certificates for both sides, and what each is told of them. */
export async function credentials(directory: string) {
  const authority = await makeAuthority(directory, 'agents');
  const server = await authority.issue('snapshot-agent');
  const client = await authority.issue('snapshot-operator');
  const files = join(directory, 'agent-tls');
  await mkdir(files);
  for (const [from, to] of [
    [server.certFile, 'tls.crt'],
    [server.keyFile, 'tls.key'],
    [authority.file, 'ca.crt'],
  ] as const)
    await copyFile(from, join(files, to));
  const at = '/etc/snapshot-tls';
  const tls = { certificateFile: `${at}/tls.crt`, keyFile: `${at}/tls.key`, clientCaFile: `${at}/ca.crt` };
  const clients = [{ name: 'snapshot-operator', namespaces: ['*'] }];
  const port = await freePort();
  return {
    agents: { port, caFile: authority.file, certificateFile: client.certFile, keyFile: client.keyFile },
    agentConfig: { api: { listen: `127.0.0.1:${port}`, tls, clients } },
    binds: [`${files}:${at}`],
  };
}

/** The DaemonSet of the agents, and, where they are called, the pod of the one that runs. */
export function putAgents({ api }: KubeNode, accessMode: 'agentMount' | 'podMount', areAgentsCalled: boolean): void {
  const mounts = accessMode === 'agentMount';
  const namespace = mounts ? NAMESPACE : SYSTEM;
  const container = { name: 'agent', volumeMounts: mounts ? [{ name: 'checkpoints', mountPath: '/checkpoints' }] : [] };
  const volumes = mounts ? [{ name: 'checkpoints', persistentVolumeClaim: { claimName: 'checkpoints' } }] : [];
  api.put({
    kind: 'DaemonSet',
    metadata: { name: 'snapshot-agent', namespace, labels: AGENT_LABELS },
    spec: { template: { spec: { containers: [container], volumes } } },
  });
  if (mounts) api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'checkpoints', namespace }, spec: {} });
  if (!areAgentsCalled) return;
  api.put({
    kind: 'Pod',
    metadata: { name: 'snapshot-agent-1', namespace, labels: AGENT_LABELS },
    spec: { nodeName: NODE, containers: [{ name: 'agent', image: 'registry.example.com/snapshot-agent:1' }] },
    status: { phase: 'Running', podIP: '127.0.0.1', conditions: [{ type: 'Ready', status: 'True' }] },
  });
}
