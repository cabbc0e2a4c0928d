import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { z } from 'zod';
import { SnapshotError } from '../errors.ts';

const CALL_DEADLINE_MS = 10_000;

const labels = z.record(z.string(), z.string());
const sandbox = z.object({
  id: z.string(),
  metadata: z.object({ name: z.string(), uid: z.string(), namespace: z.string() }),
  state: z.string(),
  created_at: z.string(),
  labels,
  annotations: labels,
});
const container = z.object({
  id: z.string(),
  pod_sandbox_id: z.string(),
  metadata: z.object({ name: z.string(), attempt: z.number() }),
  image: z.object({ image: z.string() }).nullable(),
  image_ref: z.string(),
  state: z.string(),
  created_at: z.string(),
  labels,
});
const sandboxStatus = z.object({
  status: z.object({
    network: z.object({ ip: z.string(), additional_ips: z.array(z.object({ ip: z.string() })) }).nullable(),
  }),
});
const containerStatus = z.object({
  status: z.object({
    id: z.string(),
    state: z.string(),
    started_at: z.string(),
    image: z.object({ image: z.string() }).nullable(),
    image_ref: z.string(),
  }),
  info: labels,
});

/** The part of the OCI runtime specification that the agent reads; both runtimes hand it out in the verbose status. */
const runtimeSpec = z.object({
  process: z.object({ terminal: z.boolean().default(false), env: z.array(z.string()).default([]) }),
  mounts: z.array(z.object({ destination: z.string(), source: z.string().default('') })).default([]),
  linux: z
    .object({
      resources: z.object({ memory: z.object({ limit: z.number().optional() }).optional() }).optional(),
      namespaces: z.array(z.object({ type: z.string(), path: z.string().default('') })).default([]),
    })
    .optional(),
});
const verboseInfo = z.object({ pid: z.number().int(), runtimeSpec });

type Labels = Readonly<Record<string, string>>;
export type Sandbox = z.infer<typeof sandbox>;
export type RuntimeContainer = z.infer<typeof container>;

/** What the runtime says of one running container. */
export interface RunningContainer {
  readonly id: string;
  /** PID of the container's main process in the host's PID namespace. */
  readonly hostPid: number;
  readonly startedAtMs: number;
  readonly image: string;
  readonly imageId: string;
  readonly tty: boolean;
  /** NAME=value strings the container was started with. */
  readonly env: readonly string[];
  readonly mounts: readonly { readonly destination: string; readonly source: string }[];
  /** Memory limit in bytes, or undefined without one. */
  readonly memoryLimitBytes: number | undefined;
}

type UnaryCall = 'Version' | 'ListPodSandbox' | 'PodSandboxStatus' | 'ListContainers' | 'ContainerStatus';
type Unary = (request: object, options: grpc.CallOptions, done: (error: unknown, answer: unknown) => void) => void;
type RuntimeClient = grpc.Client &
  Readonly<Record<UnaryCall, Unary>> & {
    readonly GetContainerEvents: (request: object) => grpc.ClientReadableStream<unknown>;
  };

/** The container runtime's socket: the only client of CRI in the agent. */
export interface Runtime {
  version(): Promise<string>;
  /** All, or those with these labels. */
  sandboxes(withLabels?: Labels): Promise<Sandbox[]>;
  containers(withLabels?: Labels): Promise<RuntimeContainer[]>;
  /** Addresses of a sandbox, empty for a pod on the host's network. */
  podIps(sandboxId: string): Promise<string[]>;
  /** Throws CONTAINER_NOT_FOUND where the container is unknown, not running, or its PID is 0 (it ended meanwhile). */
  running(containerId: string): Promise<RunningContainer>;
  /**
   * Calls `changed` whenever the runtime reports a container event, with the pod's uid or '' where it is not said, until the signal.
   * Returns why it ended: `unsupported` where the runtime has no events (containerd before 1.7), `broken` where the stream failed.
   */
  events(changed: (podUid: string) => void, signal: AbortSignal): Promise<'unsupported' | 'broken' | 'stopped'>;
  close(): void;
}

/** Opens a client on the runtime's unix socket. Connecting happens at the first call. */
export function openRuntime(socketPath: string): Runtime {
  const definition = loadSync(fileURLToPath(new URL('../../proto/cri.proto', import.meta.url)), {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  });
  const root = grpc.loadPackageDefinition(definition) as unknown as {
    runtime: { v1: { RuntimeService: grpc.ServiceClientConstructor } };
  };
  const client = new root.runtime.v1.RuntimeService(`unix://${socketPath}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': 64 << 20,
    // By itself gRPC tries again after up to two minutes: too long for a runtime that was restarted.
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': 2_000,
  }) as unknown as RuntimeClient;

  const ask = async <T>(name: UnaryCall, request: object, shape: z.ZodType<T>): Promise<T> => {
    const answer = await new Promise<unknown>((resolve, reject) => {
      client[name](request, { deadline: Date.now() + CALL_DEADLINE_MS }, (error, value) =>
        error ? reject(error) : resolve(value),
      );
    }).catch((cause: unknown) => {
      throw runtimeFailure(name, socketPath, cause);
    });
    const understood = shape.safeParse(answer);
    if (understood.success) return understood.data;
    throw new SnapshotError(
      'RUNTIME_UNAVAILABLE',
      `${name} on ${socketPath} is not understood: ${z.prettifyError(understood.error)}`,
    );
  };

  return {
    version: async () => {
      const answer = await ask('Version', {}, z.object({ runtime_name: z.string(), runtime_version: z.string() }));
      return `${answer.runtime_name} ${answer.runtime_version}`;
    },
    sandboxes: async (withLabels) =>
      (await ask('ListPodSandbox', filterOf(withLabels), z.object({ items: z.array(sandbox) }))).items,
    containers: async (withLabels) =>
      (await ask('ListContainers', filterOf(withLabels), z.object({ containers: z.array(container) }))).containers,
    podIps: async (sandboxId) => {
      const { network } = (await ask('PodSandboxStatus', { pod_sandbox_id: sandboxId }, sandboxStatus)).status;
      return [network?.ip ?? '', ...(network?.additional_ips ?? []).map((entry) => entry.ip)].filter((ip) => ip !== '');
    },
    running: async (containerId) =>
      runningContainer(await ask('ContainerStatus', { container_id: containerId, verbose: true }, containerStatus)),
    events: (changed, signal) => followEvents(client, changed, signal),
    close: () => client.close(),
  };
}

const filterOf = (withLabels?: Labels) => (withLabels === undefined ? {} : { filter: { label_selector: withLabels } });

function runtimeFailure(call: string, socketPath: string, cause: unknown): SnapshotError {
  const { code, details } = cause as { code?: number; details?: string };
  if (code === grpc.status.NOT_FOUND) return new SnapshotError('CONTAINER_NOT_FOUND', `${call}: ${details}`, { cause });
  return new SnapshotError('RUNTIME_UNAVAILABLE', `${call} on ${socketPath}: ${details ?? String(cause)}`, { cause });
}

function runningContainer(answer: z.infer<typeof containerStatus>): RunningContainer {
  const { status, info } = answer;
  if (status.state !== 'CONTAINER_RUNNING')
    throw new SnapshotError('CONTAINER_NOT_FOUND', `container ${status.id} is ${status.state}, not running`);
  const verbose = verboseInfo.safeParse(parseJson(info['info'] ?? ''));
  if (!verbose.success)
    throw new SnapshotError(
      'RUNTIME_UNAVAILABLE',
      `verbose status of container ${status.id} is not understood: ${z.prettifyError(verbose.error)}`,
    );
  const { pid, runtimeSpec: spec } = verbose.data;
  if (pid <= 0) throw new SnapshotError('CONTAINER_NOT_FOUND', `container ${status.id} has no process any more`);
  const limit = spec.linux?.resources?.memory?.limit;
  return {
    id: status.id,
    hostPid: pid,
    startedAtMs: Number(BigInt(status.started_at) / 1_000_000n),
    image: status.image?.image ?? '',
    imageId: status.image_ref,
    tty: spec.process.terminal,
    env: spec.process.env,
    mounts: spec.mounts,
    memoryLimitBytes: limit !== undefined && limit > 0 ? limit : undefined,
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function followEvents(
  client: RuntimeClient,
  changed: (podUid: string) => void,
  signal: AbortSignal,
): Promise<'unsupported' | 'broken' | 'stopped'> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve('stopped');
      return;
    }
    const stream = client.GetContainerEvents({});
    const stop = () => stream.cancel();
    const end = (why: 'unsupported' | 'broken' | 'stopped') => {
      signal.removeEventListener('abort', stop);
      resolve(signal.aborted ? 'stopped' : why);
    };
    signal.addEventListener('abort', stop, { once: true });
    stream.on('data', (event: { pod_sandbox_status?: { metadata?: { uid?: string } | null } | null }) =>
      changed(event.pod_sandbox_status?.metadata?.uid ?? ''),
    );
    stream.on('error', (error: { code?: number }) =>
      end(error.code === grpc.status.UNIMPLEMENTED ? 'unsupported' : 'broken'),
    );
    stream.on('end', () => end('broken'));
  });
}
