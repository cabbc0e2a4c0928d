import type {
  V1Container,
  V1DaemonSet,
  V1EnvVar,
  V1Job,
  V1ObjectMeta,
  V1Pod,
  V1PodSpec,
  V1Probe,
  V1VolumeMount,
} from '@kubernetes/client-node';

/** The library's classes as the JSON that the API sends: plain objects all the way down, times as text. Nothing of the library comes along. */
type Plain<T> = T extends Date ? string : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

export type Container = Plain<V1Container>;
export type DaemonSet = Plain<V1DaemonSet>;
export type EnvVar = Plain<V1EnvVar>;
export type Job = Plain<V1Job>;
export type ObjectMeta = Plain<V1ObjectMeta>;
export type Pod = Plain<V1Pod>;
export type PodSpec = Plain<V1PodSpec>;
export type Probe = Plain<V1Probe>;
export type VolumeMount = Plain<V1VolumeMount>;
