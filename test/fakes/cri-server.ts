import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { KUBELET_LABELS, LABELS } from '../../contract/keys.ts';

type Unary = grpc.handleUnaryCall<Record<string, unknown>, object>;
type Stream = grpc.ServerWritableStream<object, { container_id: string }>;

export interface FakeSandbox {
  readonly id: string;
  readonly metadata: { readonly name: string; readonly uid: string; readonly namespace: string };
  readonly state: 'SANDBOX_READY' | 'SANDBOX_NOTREADY';
  readonly created_at: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly ips: readonly string[];
}
export interface FakeContainer {
  readonly id: string;
  readonly pod_sandbox_id: string;
  readonly metadata: { readonly name: string; readonly attempt: number };
  readonly state: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Text under `info` of the verbose status. */
  readonly info?: string;
  readonly startedAtNs?: string;
}

/** A sandbox of a pod that asks for something, and its one container. */
export function fakePod(
  uid: string,
  changes: { sandbox?: Partial<FakeSandbox>; container?: Partial<FakeContainer> } = {},
) {
  const sandbox: FakeSandbox = {
    id: `sandbox-${uid}`,
    metadata: { name: `pod-${uid}`, uid, namespace: 'team' },
    state: 'SANDBOX_READY',
    created_at: 1,
    labels: { [LABELS.checkpointId]: 'ckpt' },
    annotations: {},
    ips: ['10.0.0.5'],
    ...changes.sandbox,
  };
  const container: FakeContainer = {
    id: `container-${uid}`,
    pod_sandbox_id: sandbox.id,
    metadata: { name: 'main', attempt: 0 },
    state: 'CONTAINER_RUNNING',
    labels: { [KUBELET_LABELS.containerName]: 'main' },
    info: JSON.stringify({ pid: 4242, runtimeSpec: { process: {} } }),
    ...changes.container,
  };
  return { sandbox, container };
}

/** A container runtime on a real unix socket, with faults on demand. */
export interface FakeCri {
  readonly socketPath: string;
  readonly sandboxes: Map<string, FakeSandbox>;
  readonly containers: Map<string, FakeContainer>;
  /** How often each call came. */
  readonly calls: Record<string, number>;
  /** What the next calls of a name are answered with instead, one after the other. */
  readonly faults: Map<string, grpc.status[]>;
  /** How event streams are answered; a stream that is open stays as it is. */
  events: 'told' | 'unsupported' | 'broken';
  readonly openStreams: number;
  put(...pods: ReturnType<typeof fakePod>[]): void;
  drop(uid: string): void;
  /** Told of each question about one container as it comes. */
  onStatus: (containerId: string) => void;
  /** Tells every open stream of an event, of this pod where the runtime says which. */
  emit(podUid?: string): void;
  breakStreams(): void;
  start(): Promise<void>;
  /** Goes away; the socket stays behind, as with a runtime that crashed. */
  stop(): Promise<void>;
  remove(): Promise<void>;
}

/** In a directory of its own below `parent`. */
export async function makeCri(parent = tmpdir()): Promise<FakeCri> {
  const directory = await mkdtemp(join(parent, 'cri-'));
  const socketPath = join(directory, 'runtime.sock');
  const path = fileURLToPath(new URL('../../proto/cri.proto', import.meta.url));
  const definition = loadSync(path, { keepCase: true, longs: String, enums: String, defaults: true });
  const root = grpc.loadPackageDefinition(definition) as unknown as {
    runtime: { v1: { RuntimeService: { service: grpc.ServiceDefinition } } };
  };
  const streams = new Set<Stream>();
  let server: grpc.Server | undefined;

  const answer =
    (name: string, make: (request: Record<string, unknown>) => object | grpc.status): Unary =>
    (call, done) => {
      cri.calls[name] = (cri.calls[name] ?? 0) + 1;
      const given = cri.faults.get(name)?.shift() ?? make(call.request);
      if (typeof given === 'number') done({ code: given, details: `fake ${grpc.status[given]}` });
      else done(null, given);
    };

  const handlers: grpc.UntypedServiceImplementation = {
    Version: answer('Version', () => ({ version: '0.1.0', runtime_name: 'fake', runtime_version: '1.2.3' })),
    ListPodSandbox: answer('ListPodSandbox', (request) => {
      const isWanted = filterOf(request);
      return { items: [...cri.sandboxes.values()].filter((one) => isWanted(one.labels, () => one.metadata.uid)) };
    }),
    ListContainers: answer('ListContainers', (request) => {
      const isWanted = filterOf(request);
      const uidOf = (sandboxId: string) => cri.sandboxes.get(sandboxId)?.metadata.uid;
      const wanted = [...cri.containers.values()].filter((one) =>
        isWanted(one.labels, () => uidOf(one.pod_sandbox_id)),
      );
      return { containers: wanted.map((container) => ({ ...container, image: { image: 'image' }, created_at: 1 })) };
    }),
    PodSandboxStatus: answer('PodSandboxStatus', (request) => {
      const sandbox = cri.sandboxes.get(String(request['pod_sandbox_id']));
      if (sandbox === undefined) return grpc.status.NOT_FOUND;
      const [ip = '', ...more] = sandbox.ips;
      return { status: { id: sandbox.id, network: { ip, additional_ips: more.map((other) => ({ ip: other })) } } };
    }),
    ContainerStatus: answer('ContainerStatus', (request) => {
      cri.onStatus(String(request['container_id']));
      const container = cri.containers.get(String(request['container_id']));
      if (container === undefined) return grpc.status.NOT_FOUND;
      const { id, state, info, startedAtNs = '1767323045678901234' } = container;
      const status = {
        id,
        state,
        started_at: startedAtNs,
        image: { image: 'registry/worker:1' },
        image_ref: 'sha256:abc',
      };
      return { status, info: request['verbose'] === true && info !== undefined ? { info } : {} };
    }),
    GetContainerEvents: (call: Stream) => {
      cri.calls['GetContainerEvents'] = (cri.calls['GetContainerEvents'] ?? 0) + 1;
      if (cri.events === 'told') {
        streams.add(call);
        call.on('cancelled', () => streams.delete(call));
      } else {
        const code = cri.events === 'unsupported' ? grpc.status.UNIMPLEMENTED : grpc.status.INTERNAL;
        call.emit('error', { code, details: 'fake: no events' });
      }
    },
  };

  const cri: FakeCri = {
    socketPath,
    sandboxes: new Map(),
    containers: new Map(),
    calls: {},
    faults: new Map(),
    events: 'told',
    get openStreams() {
      return streams.size;
    },
    put: (...pods) => {
      for (const { sandbox, container } of pods) {
        cri.sandboxes.set(sandbox.id, sandbox);
        cri.containers.set(container.id, container);
      }
    },
    drop: (uid) => {
      cri.sandboxes.delete(`sandbox-${uid}`);
      cri.containers.delete(`container-${uid}`);
    },
    onStatus: () => undefined,
    emit: (podUid) => {
      const pod = podUid === undefined ? {} : { pod_sandbox_status: { metadata: { uid: podUid } } };
      for (const stream of streams) stream.write({ container_id: 'any', ...pod });
    },
    breakStreams: () => {
      for (const stream of streams) stream.emit('error', { code: grpc.status.UNAVAILABLE, details: 'fake: broken' });
      streams.clear();
    },
    start: async () => {
      await rm(socketPath, { force: true });
      server = new grpc.Server();
      server.addService(root.runtime.v1.RuntimeService.service, handlers);
      await new Promise<void>((resolve, reject) => {
        server?.bindAsync(`unix://${socketPath}`, grpc.ServerCredentials.createInsecure(), (error) =>
          error ? reject(error) : resolve(),
        );
      });
    },
    stop: async () => {
      server?.forceShutdown();
      streams.clear();
      server = undefined;
    },
    remove: async () => {
      await cri.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
  await cri.start();
  return cri;
}

/** What a list is asked for, by labels. kubelet puts a pod's uid on everything of it. */
function filterOf(request: Record<string, unknown>) {
  const { label_selector: wanted = {} } = (request['filter'] ?? {}) as { label_selector?: Record<string, string> };
  return (labels: Readonly<Record<string, string>>, podUid: () => string | undefined) =>
    Object.entries(wanted).every(
      ([key, value]) => (labels[key] ?? (key === KUBELET_LABELS.podUid ? podUid() : undefined)) === value,
    );
}

/** Waits until something holds; fails with what was waited for. */
export async function until(holds: () => boolean, what: string, timeoutMs = 5_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
