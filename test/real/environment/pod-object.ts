import type { Json, KubeObject } from '../../fakes/kube-api/resources.ts';
import type { ContainerRequest } from './pod.ts';
import type { Mount } from './pod-directory.ts';

/** How kubelet sees how a container is: by a command in it, or by a request to its pod. */
export interface Probe {
  readonly exec?: { readonly command: readonly [string, ...string[]] };
  /** The port by its number, or by its name among those of the container. */
  readonly httpGet?: { readonly path: string; readonly port: number | string };
  readonly timeoutSeconds?: number;
}

/** What the stand-in for kubelet reads of a container in a pod object. */
export interface ContainerSpec {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  /** Those without a value are references to fields: the environment gives each container its POD_NAME by itself, and knows no other. */
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[];
  readonly volumeMounts?: readonly VolumeMount[];
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
}

interface VolumeMount {
  readonly name: string;
  readonly mountPath: string;
  readonly subPath?: string;
}

interface VolumeSpec {
  readonly name: string;
  readonly emptyDir?: Json;
  readonly persistentVolumeClaim?: { readonly claimName: string };
}

export interface PodSpec {
  readonly nodeName?: string;
  readonly restartPolicy?: 'Always' | 'OnFailure' | 'Never';
  readonly terminationGracePeriodSeconds?: number;
  readonly shareProcessNamespace?: boolean;
  readonly securityContext?: {
    readonly seccompProfile?: { readonly type: string; readonly localhostProfile?: string };
  };
  readonly containers: readonly ContainerSpec[];
  readonly volumes?: readonly VolumeSpec[];
}

/** The volume that the protocol keeps control files in. The environment mounts it where its workloads look for it. */
const CONTROL_VOLUME = 'snapshot-control';

export function specOf({ spec }: KubeObject): PodSpec {
  return spec as unknown as PodSpec;
}

/** Where what a pod names is on this machine. */
export interface VolumePlaces {
  claim(name: string): string;
  /** A directory of the pod's own. */
  emptyDir(name: string): string;
  /** The file of a seccomp profile of the node. */
  profile(name: string): string;
}

/** A container of a pod object, as the environment is asked for it. */
export function containerRequest(pod: PodSpec, container: ContainerSpec, places: VolumePlaces): ContainerRequest {
  const { name, image, command = [], args = [], env = [], volumeMounts = [] } = container;
  const others = volumeMounts.filter((mount) => mount.name !== CONTROL_VOLUME);
  return {
    ...{ name, image, command, args },
    env: Object.fromEntries(env.flatMap(({ name: key, value }) => (value === undefined ? [] : [[key, value]]))),
    control: others.length < volumeMounts.length,
    mounts: others.map((mount) => mountOf(pod, mount, places)),
    ...seccompOf(pod, places),
  };
}

function seccompOf({ securityContext }: PodSpec, places: VolumePlaces): Pick<ContainerRequest, 'seccomp'> {
  const { type = 'Unconfined', localhostProfile = '' } = securityContext?.seccompProfile ?? {};
  if (type === 'Unconfined') return {};
  return { seccomp: type === 'Localhost' ? places.profile(localhostProfile) : type };
}

function mountOf({ volumes = [] }: PodSpec, { name, mountPath }: VolumeMount, places: VolumePlaces): Mount {
  const volume = volumes.find((one) => one.name === name);
  if (volume === undefined) throw new Error(`the pod mounts a volume that it does not have: ${name}`);
  const claim = volume.persistentVolumeClaim?.claimName;
  return { container_path: mountPath, host_path: claim === undefined ? places.emptyDir(name) : places.claim(claim) };
}
