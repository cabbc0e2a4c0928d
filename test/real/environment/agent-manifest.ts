import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';
import { REPOSITORY } from './host.ts';

export interface Volume {
  readonly name: string;
  readonly hostPath?: { readonly path: string };
  readonly configMap?: { readonly name: string };
  readonly secret?: { readonly defaultMode: number };
  readonly emptyDir?: { readonly medium: string; readonly sizeLimit: string };
  readonly persistentVolumeClaim?: { readonly claimName: string };
}

interface VolumeMount {
  readonly name: string;
  readonly mountPath: string;
  readonly readOnly?: boolean;
  readonly mountPropagation?: keyof typeof PROPAGATION;
}

interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string };
}

export type ProbeName = 'startupProbe' | 'livenessProbe' | 'readinessProbe';

export interface ContainerSpec extends Readonly<Record<ProbeName, Probe>> {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly env: readonly {
    readonly name: string;
    readonly valueFrom: { readonly fieldRef: { readonly fieldPath: string } };
  }[];
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly securityContext: {
    readonly privileged: boolean;
    readonly readOnlyRootFilesystem: boolean;
    readonly runAsUser: number;
  };
  readonly resources: { readonly limits: { readonly memory: string } };
  readonly volumeMounts: readonly VolumeMount[];
}

/** What of the DaemonSet decides how its pod runs. */
export interface PodSpec {
  readonly hostPID?: boolean;
  readonly hostNetwork?: boolean;
  readonly hostIPC?: boolean;
  readonly terminationGracePeriodSeconds: number;
  readonly containers: readonly [ContainerSpec];
  readonly volumes: readonly Volume[];
}

export interface Manifest {
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly pod: PodSpec;
  /** The configuration in the ConfigMap. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** A mount as the container runtime is asked for it. */
export interface RuntimeMount {
  readonly container_path: string;
  readonly host_path: string;
  readonly readonly: boolean;
  readonly propagation: number;
}

/** Numbers of the runtime interface. */
const PROPAGATION = { None: 0, HostToContainer: 1, Bidirectional: 2 } as const;

/** The plain manifest of the agent as it is shipped. */
export function readManifest(): Manifest {
  const text = readFileSync(resolve(REPOSITORY, 'deploy/agent-daemonset.yaml'), 'utf8');
  const documents = parseAllDocuments(text).map((document) => document.toJS() as { kind: string });
  const find = (kind: string): unknown => documents.find((one) => one.kind === kind);
  const { data } = find('ConfigMap') as { data: Record<string, string> };
  const { metadata, spec } = find('DaemonSet') as {
    metadata: { namespace: string };
    spec: { template: { metadata: { labels: Record<string, string> }; spec: PodSpec } };
  };
  return {
    namespace: metadata.namespace,
    labels: spec.template.metadata.labels,
    pod: spec.template.spec,
    config: parse(data['config.yaml'] ?? '') as Record<string, unknown>,
  };
}

/** The container's mounts. `sources`: where on this machine each volume is; `at`: where its mount path lies on this machine, if elsewhere. */
export function mountsOf(
  spec: ContainerSpec,
  sources: ReadonlyMap<string, string>,
  at: (path: string) => string,
): RuntimeMount[] {
  return spec.volumeMounts.map(({ name, mountPath, readOnly = false, mountPropagation = 'None' }) => {
    const source = sources.get(name);
    if (source === undefined) throw new Error(`the manifest mounts a volume that it does not have: ${name}`);
    const propagation = PROPAGATION[mountPropagation];
    return { container_path: at(mountPath), host_path: source, readonly: readOnly, propagation };
  });
}

/** The namespaces that a pod shares with its node, as the runtime is asked for them. */
export function namespacesOf(pod: PodSpec): Readonly<Record<string, string>> {
  return {
    network: pod.hostNetwork ? 'NODE' : 'POD',
    pid: pod.hostPID ? 'NODE' : 'CONTAINER',
    ipc: pod.hostIPC ? 'NODE' : 'POD',
  };
}

/** The container as kubelet asks for it. Its command is the image's own. */
export function containerConfig(
  pod: PodSpec,
  given: {
    readonly fields: Readonly<Record<string, string>>;
    readonly mounts: readonly RuntimeMount[];
    readonly labels: Readonly<Record<string, string>>;
    readonly logPath: string;
  },
): object {
  const [spec] = pod.containers;
  const { privileged, readOnlyRootFilesystem, runAsUser } = spec.securityContext;
  return {
    metadata: { name: spec.name, attempt: 0 },
    image: { image: spec.image },
    args: spec.args,
    envs: spec.env.map(({ name, valueFrom }) => {
      const value = given.fields[valueFrom.fieldRef.fieldPath];
      if (value === undefined) throw new Error(`the test environment has no field ${valueFrom.fieldRef.fieldPath}`);
      return { key: name, value: Buffer.from(value) };
    }),
    mounts: given.mounts,
    labels: given.labels,
    annotations: {},
    log_path: given.logPath,
    linux: {
      resources: { memory_limit_in_bytes: bytesOf(spec.resources.limits.memory) },
      security_context: {
        namespace_options: namespacesOf(pod),
        privileged,
        readonly_rootfs: readOnlyRootFilesystem,
        run_as_user: { value: runAsUser },
        seccomp: { profile_type: 'Unconfined' },
      },
    },
  };
}

/** A quantity of memory in bytes. */
export function bytesOf(quantity: string): number {
  const [, digits, unit] = /^(\d+)(Mi|Gi)$/.exec(quantity) ?? [];
  if (digits === undefined) throw new Error(`the test environment does not know the quantity ${quantity}`);
  return Number(digits) * (unit === 'Gi' ? 2 ** 30 : 2 ** 20);
}
