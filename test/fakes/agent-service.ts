import { type Reason, SnapshotError } from '../../agent/errors.ts';
import type { OperationTarget, OperationView } from '../../agent/operations/operation.ts';
import { newRegistry, type OperationHandle, type Registry } from '../../agent/operations/registry.ts';
import type {
  AgentService,
  ArtifactContents,
  ArtifactView,
  Caller,
  ContainerReference,
  StartCheckpoint,
  StartRequest,
} from '../../agent/operations/service.ts';

type Method = keyof AgentService;

/** A service of real operations that nobody performs: a test drives each through its handle. */
export interface FakeService extends AgentService {
  readonly operations: Registry;
  readonly containers: Map<string, OperationTarget>;
  readonly artifacts: Map<string, ArtifactView>;
  /** What the checks answer. */
  reasons: readonly Reason[];
  /** What an inspection answers, of whatever artifact. */
  contents: Omit<ArtifactContents, 'artifact'>;
  /** How the node reaches volumes. */
  accessMode: 'agentMount' | 'podMount';
  /** What the next call of a method throws. */
  readonly failures: Map<Method, unknown>;
  /** What a call of a method waits for, besides its signal. */
  readonly holds: Map<Method, Promise<void>>;
  readonly calls: { readonly method: Method; readonly request: unknown; readonly caller: Caller }[];
  /** Through which an operation is moved on. */
  handle(operationId: string): OperationHandle;
  /** Begins an operation without a call, as an annotation would. */
  begin(target: OperationTarget, requestId: string): OperationHandle;
  /** Ends one well, or with the error. */
  end(operationId: string, failure?: SnapshotError): void;
}

export const WORKER: OperationTarget = {
  namespace: 'team-a',
  pod: 'worker-0',
  podUid: 'uid-a',
  container: 'main',
  containerId: 'aaaa',
};
export const FOREIGN: OperationTarget = { ...WORKER, namespace: 'team-b', podUid: 'uid-b', containerId: 'bbbb' };

export function fakeService(now: () => number = Date.now): FakeService {
  const operations = newRegistry(now);
  const handles = new Map<string, OperationHandle>();
  const containers = new Map([WORKER, FOREIGN].map((target) => [target.containerId, target]));

  const came = async (method: Method, request: unknown, caller: Caller, signal?: AbortSignal) => {
    fake.calls.push({ method, request, caller });
    if (fake.failures.has(method)) {
      const failure = fake.failures.get(method);
      fake.failures.delete(method);
      throw failure;
    }
    const aborted = new Promise<void>((resolve) => signal?.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([fake.holds.get(method), aborted]);
  };
  const visibleTo = ({ namespaces }: Caller, namespace: string | undefined) =>
    namespaces === 'all' || (namespace !== undefined && namespaces.has(namespace));
  const find = (reference: ContainerReference, caller: Caller): OperationTarget => {
    const found = [...containers.values()].find(
      (one) =>
        visibleTo(caller, one.namespace) &&
        (reference.containerId === '' || reference.containerId === one.containerId) &&
        (reference.pod === '' || (reference.pod === one.pod && reference.namespace === one.namespace)),
    );
    if (found === undefined) throw new SnapshotError('CONTAINER_NOT_FOUND', 'no such container runs here');
    return found;
  };
  const open = (
    target: OperationTarget,
    more: Pick<OperationView, 'requestId' | 'kind' | 'origin' | 'traceId' | 'caller'>,
  ) => {
    const id = `op-${handles.size + 1}`;
    const handle = operations.open({ id, fingerprint: id, target, checkpointId: 'ckpt', version: '1', ...more });
    handles.set(id, handle);
    handle.cancelled.addEventListener('abort', () => fake.end(id, new SnapshotError('CANCELLED', 'it was cancelled')));
    return handle;
  };
  const start = async (kind: 'checkpoint' | 'restore', request: StartRequest | StartCheckpoint, caller: Caller) => {
    await came(kind, request, caller);
    const target = find(request.target, caller);
    const { traceId, ...content } = request;
    const fingerprint = JSON.stringify(content);
    const known = requests.get(`${caller.name} ${request.requestId}`);
    if (known !== undefined) {
      if (known.fingerprint === fingerprint) return operations.get(known.id) ?? known.view;
      throw new SnapshotError('REQUEST_CONFLICT', `the request id ${request.requestId} was used otherwise`);
    }
    const { view } = open(target, { requestId: request.requestId, kind, origin: 'grpc', traceId, caller: caller.name });
    requests.set(`${caller.name} ${request.requestId}`, { id: view.id, fingerprint, view });
    return view;
  };
  const requests = new Map<
    string,
    { readonly id: string; readonly fingerprint: string; readonly view: OperationView }
  >();
  const artifact = ({ id, version }: { readonly id: string; readonly version: string }, caller: Caller) => {
    const view = fake.artifacts.get(`${id}/${version}`);
    if (view === undefined || !visibleTo(caller, view.record?.source.namespace))
      throw new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${id}, version ${version}`);
    if (view.problem !== undefined) throw view.problem;
    return view;
  };

  const fake: FakeService = {
    operations,
    containers,
    artifacts: new Map(),
    reasons: [],
    contents: {
      ...{ processes: [], processesLeftOut: 0, files: [], filesLeftOut: 0, fileBytesLeftOut: 0, removedPaths: 0 },
    },
    accessMode: 'agentMount',
    failures: new Map(),
    holds: new Map(),
    calls: [],
    handle: (operationId) => {
      const handle = handles.get(operationId);
      if (handle === undefined) throw new Error(`the test knows no operation ${operationId}`);
      return handle;
    },
    begin: (target, requestId) =>
      open(target, { requestId, caller: '', kind: 'restore', origin: 'annotation', traceId: 'f'.repeat(32) }),
    end: (operationId, failure) => {
      const { view } = fake.handle(operationId);
      if (view.endedAtMs !== undefined) return;
      const timings = [...view.timings, { step: 'unaccounted', seconds: 0.001 }];
      const result = failure === undefined ? 'succeeded' : 'failed';
      fake.handle(operationId).ended({ result, failure, failedStep: view.step, timings, figures: { bytes: 42 } });
    },
    checkpoint: (request, caller) => start('checkpoint', request, caller),
    restore: (request, caller) => start('restore', request, caller),
    checkCheckpoint: async (request, caller, signal) => {
      await came('checkCheckpoint', request, caller, signal);
      find(request.target, caller);
      return fake.reasons;
    },
    checkRestore: async (request, caller, signal) => {
      await came('checkRestore', request, caller, signal);
      find(request.target, caller);
      return fake.reasons;
    },
    checkArtifact: async (request, caller, signal) => {
      await came('checkArtifact', request, caller, signal);
      artifact(request, caller);
      return { reasons: fake.reasons, notChecked: ['image', 'mounts'] };
    },
    listArtifacts: async (request, caller) => {
      await came('listArtifacts', request, caller);
      const visible = [...fake.artifacts]
        .filter(([place, { record }]) => place > request.after && visibleTo(caller, record?.source.namespace))
        .sort(([a], [b]) => (a < b ? -1 : 1));
      const page = visible.slice(0, request.limit);
      const next = visible.length > request.limit ? (page.at(-1)?.[0] ?? '') : '';
      return { artifacts: page.map(([, view]) => view), next };
    },
    getArtifact: async (request, caller) => {
      await came('getArtifact', request, caller);
      const view = fake.artifacts.get(`${request.id}/${request.version}`);
      if (view?.problem !== undefined && visibleTo(caller, undefined)) return view;
      return artifact(request, caller);
    },
    inspectArtifact: async (request, caller, signal) => {
      await came('inspectArtifact', request, caller, signal);
      return { ...fake.contents, artifact: artifact(request, caller) };
    },
    verifyArtifact: async (request, caller, signal) => {
      await came('verifyArtifact', request, caller, signal);
      artifact(request, caller);
      return { files: 7, bytes: 12_345, seconds: 0.5 };
    },
    deleteArtifact: async (request, caller, signal) => {
      await came('deleteArtifact', request, caller, signal);
      artifact(request, caller);
      fake.artifacts.delete(`${request.id}/${request.version}`);
    },
    nodeInfo: () => ({
      node: 'node-a',
      agentVersion: '0.1.0',
      bootId: 'boot',
      arch: 'x86_64',
      kernel: '6.12.0',
      criu: '4.2',
      runtime: 'containerd 2.1',
      accessMode: fake.accessMode,
      basePath: '/checkpoints',
      capabilities: [
        { name: 'criu', available: true, detail: '4.2' },
        { name: 'cuda', available: false, detail: 'no driver is loaded' },
      ],
    }),
  };
  return fake;
}
