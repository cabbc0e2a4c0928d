import type { Container, PodSpec } from '../kube/objects.ts';
import { mapTargets, samePath } from './container-parts.ts';
import { LABELS } from './keys.ts';
import { ShapingError } from './shaping-error.ts';

const SHARED_MEMORY_VOLUME = 'shared-memory';
const SHARED_MEMORY_PATH = '/dev/shm';
const POD_INFO_VOLUME = 'podinfo';
const POD_INFO_PATH = '/etc/podinfo';

/**
 * What keeps a worker from holding state that no checkpoint can take along: connections to other GPUs and nodes, and watchers of them. The
 * workers of the original set the same themselves, before their engine starts. HF_HUB_OFFLINE is left to them: a first start downloads.
 */
const WORKER_ENV: Readonly<Record<string, string>> = {
  NCCL_CUMEM_ENABLE: '0',
  NCCL_P2P_DISABLE: '1',
  NCCL_NVLS_ENABLE: '0',
  NCCL_IB_DISABLE: '1',
  NCCL_RAS_ENABLE: '0',
  TORCH_NCCL_ENABLE_MONITORING: '0',
  TORCH_NCCL_DUMP_ON_TIMEOUT: '0',
};

/** The files of the pod's own facts, as the original's workers read them. A label that the pod does not have makes an empty file. */
const POD_INFO: Readonly<Record<string, string>> = {
  pod_name: 'metadata.name',
  pod_uid: 'metadata.uid',
  pod_namespace: 'metadata.namespace',
  dyn_namespace: "metadata.labels['nvidia.com/dynamo-namespace']",
  dyn_namespace_worker_suffix: `metadata.labels['${LABELS.workerHash}']`,
  dyn_component: "metadata.labels['nvidia.com/dynamo-component']",
  dyn_parent_dgd_k8s_name: "metadata.labels['nvidia.com/dynamo-graph-deployment-name']",
  dyn_parent_dgd_k8s_namespace: 'metadata.namespace',
};

/** The tmpfs at /dev/shm. `size` is a quantity of Kubernetes; undefined: what the node gives. */
export interface SharedMemory {
  readonly disabled?: boolean | undefined;
  readonly size?: number | string | undefined;
}

/**
 * Gives the target containers what the workers of the original expect, where the pod does not say otherwise: variables, a tmpfs at /dev/shm
 * and the files of `podinfo`. A source and the pods that are restored from it must have the same. Throws ShapingError.
 */
export function withWorkerDefaults(spec: PodSpec, targets: readonly string[], sharedMemory: SharedMemory): PodSpec {
  const withMemory = sharedMemory.disabled === true ? spec : withSharedMemory(spec, targets, sharedMemory);
  return mapTargets(withPodInfo(withMemory, targets), targets, withWorkerEnv);
}

/** Variables that come from elsewhere (`envFrom`) are not known here, and come second. */
function withWorkerEnv(container: Container): Container {
  const { env = [] } = container;
  const names = new Set(env.map(({ name }) => name));
  const added = Object.entries(WORKER_ENV).filter(([name]) => !names.has(name));
  return { ...container, env: [...env, ...added.map(([name, value]) => ({ name, value }))] };
}

function withSharedMemory(spec: PodSpec, targets: readonly string[], { size }: SharedMemory): PodSpec {
  const limit = size === undefined ? {} : { sizeLimit: String(size) };
  const wanted = { name: SHARED_MEMORY_VOLUME, emptyDir: { medium: 'Memory', ...limit } };
  return withMounted(spec, targets, { volume: wanted, kind: 'emptyDir', mountPath: SHARED_MEMORY_PATH });
}

function withPodInfo(spec: PodSpec, targets: readonly string[]): PodSpec {
  const items = Object.entries(POD_INFO).map(([path, fieldPath]) => ({ path, fieldRef: { fieldPath } }));
  const wanted = { name: POD_INFO_VOLUME, downwardAPI: { items } };
  return withMounted(spec, targets, { volume: wanted, kind: 'downwardAPI', mountPath: POD_INFO_PATH });
}

interface Mounting {
  readonly volume: NonNullable<PodSpec['volumes']>[number];
  readonly kind: 'emptyDir' | 'downwardAPI';
  readonly mountPath: string;
}

/** What a container mounts at the path already stays. */
function withMounted(spec: PodSpec, targets: readonly string[], { volume, kind, mountPath }: Mounting): PodSpec {
  const lacks = ({ name, volumeMounts = [] }: Container) =>
    targets.includes(name) && !volumeMounts.some((mount) => samePath(mount.mountPath, mountPath));
  const lacking = spec.containers.filter(lacks).map(({ name }) => name);
  if (lacking.length === 0) return spec;
  const { volumes = [] } = spec;
  const present = volumes.find(({ name }) => name === volume.name);
  if (present !== undefined && present[kind] === undefined)
    throw new ShapingError(
      `volume ${volume.name} is no ${kind}; the name is kept for what is mounted at ${mountPath}: call yours otherwise, or mount it there`,
    );
  return mapTargets(
    { ...spec, volumes: present === undefined ? [...volumes, volume] : volumes },
    lacking,
    ({ volumeMounts = [], ...container }) => ({
      ...container,
      volumeMounts: [
        ...volumeMounts,
        { name: volume.name, mountPath, ...(kind === 'downwardAPI' ? { readOnly: true } : {}) },
      ],
    }),
  );
}
