import { z } from 'zod';
import { LABELS } from '../../contract/keys.ts';
import type { ClaimMount, FailedContainer, KubernetesFacts } from '../../contract/pods.ts';

const OURS = 'nvidia.com/';

const status = z.object({
  name: z.string(),
  ready: z.boolean().default(false),
  containerID: z.string().default(''),
  state: z
    .object({
      running: z.unknown().optional(),
      terminated: z.object({ exitCode: z.number(), reason: z.string().default('') }).optional(),
    })
    .default({}),
});
const container = z.object({
  name: z.string(),
  volumeMounts: z.array(z.object({ name: z.string(), mountPath: z.string() })).default([]),
});
const phases = ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'] as const;

/** What the agent reads of a pod object; the only place that knows the shape of the Kubernetes API. */
const podObject = z.object({
  metadata: z.object({
    uid: z.string().min(1),
    name: z.string().min(1),
    namespace: z.string().min(1),
    labels: z.record(z.string(), z.string()).default({}),
    annotations: z.record(z.string(), z.string()).default({}),
    deletionTimestamp: z.string().optional(),
    ownerReferences: z
      .array(z.object({ kind: z.string(), name: z.string(), uid: z.string(), controller: z.boolean().default(false) }))
      .default([]),
  }),
  spec: z.object({
    nodeName: z.string().default(''),
    containers: z.array(container).default([]),
    volumes: z
      .array(z.object({ name: z.string(), persistentVolumeClaim: z.object({ claimName: z.string() }).optional() }))
      .default([]),
  }),
  status: z
    .object({
      phase: z.enum(phases).catch('Unknown').default('Pending'),
      containerStatuses: z.array(status).default([]),
      initContainerStatuses: z.array(status).default([]),
    })
    .default({ phase: 'Pending', containerStatuses: [], initContainerStatuses: [] }),
});

/** A pod as the API tells of it, with nothing kept that nobody reads. */
export interface ApiPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly nodeName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly kubernetes: KubernetesFacts;
  /** Of the specification, without init containers. */
  readonly containerNames: readonly string[];
  /** The containers, init containers too, that kubelet has published an id of. */
  readonly published: readonly PublishedContainer[];
}

/** A container as kubelet has published it. While one waits for its restart, the id is that of the one that ended. */
interface PublishedContainer {
  /** The runtime's. */
  readonly id: string;
  readonly isRunning: boolean;
}

/** Reads a pod object; undefined where it is none (nothing that an API server sends). */
export function apiPod(object: unknown): ApiPod | undefined {
  const parsed = podObject.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata, spec, status: state } = parsed.data;
  const statuses = state.containerStatuses;
  const owner = metadata.ownerReferences.find(({ kind, controller }) => controller && kind === 'Job');
  const jobLabel = metadata.labels[LABELS.jobName] ?? '';
  return {
    uid: metadata.uid,
    namespace: metadata.namespace,
    name: metadata.name,
    nodeName: spec.nodeName,
    labels: only(metadata.labels, (key) => key.startsWith(OURS) || key === LABELS.jobName),
    annotations: only(metadata.annotations, (key) => key.startsWith(OURS)),
    kubernetes: {
      phase: state.phase,
      isDeleting: metadata.deletionTimestamp !== undefined,
      ready: statuses.filter(({ ready }) => ready).map(({ name }) => name),
      failed: [...state.initContainerStatuses, ...statuses].flatMap(failedContainer),
      // A Job of the same name that does not own the pod is another Job, made later.
      job: jobLabel === '' ? undefined : { name: jobLabel, uid: owner?.name === jobLabel ? owner.uid : '' },
      claimMounts: claimMounts(spec),
    },
    containerNames: spec.containers.map(({ name }) => name),
    published: [...state.initContainerStatuses, ...statuses]
      .filter(({ containerID }) => containerID !== '')
      .map((one) => ({ id: withoutScheme(one.containerID), isRunning: one.state.running !== undefined })),
  };
}

function only(map: Readonly<Record<string, string>>, wanted: (key: string) => boolean): Record<string, string> {
  return Object.fromEntries(Object.entries(map).filter(([key]) => wanted(key)));
}

function failedContainer({ name, state: { terminated } }: z.infer<typeof status>): FailedContainer[] {
  if (terminated === undefined || terminated.exitCode === 0) return [];
  return [{ name, exitCode: terminated.exitCode, reason: terminated.reason }];
}

function claimMounts(spec: z.infer<typeof podObject>['spec']): ClaimMount[] {
  const claims = new Map(
    spec.volumes.map(({ name, persistentVolumeClaim }) => [name, persistentVolumeClaim?.claimName] as const),
  );
  return spec.containers.flatMap((one) =>
    one.volumeMounts.flatMap(({ name, mountPath }) => {
      const claim = claims.get(name);
      return claim === undefined ? [] : [{ container: one.name, mountPath, claim }];
    }),
  );
}

/** `containerd://ID`, `cri-o://ID`: the runtime itself knows the bare id. */
function withoutScheme(id: string): string {
  return id.replace(/^[^:/]+:\/\//, '');
}
