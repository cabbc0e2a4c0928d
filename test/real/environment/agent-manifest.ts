import { parse } from 'yaml';
import { only, render } from '../../chart/render.ts';

export interface Volume {
  readonly name: string;
  readonly hostPath?: { readonly path: string };
  readonly configMap?: { readonly name: string };
  readonly secret?: { readonly secretName: string; readonly defaultMode: number };
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

/** What containers that initialise the pod have, and its other ones too. */
export interface ContainerSpec {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly Variable[];
  readonly securityContext: {
    readonly privileged?: boolean;
    readonly allowPrivilegeEscalation?: boolean;
    readonly readOnlyRootFilesystem: boolean;
    readonly runAsUser: number;
    readonly capabilities?: { readonly drop: readonly string[] };
  };
  readonly resources: { readonly limits: { readonly memory: string } };
  readonly volumeMounts: readonly VolumeMount[];
}

interface Variable {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: { readonly fieldRef: { readonly fieldPath: string } };
}

interface AgentSpec extends ContainerSpec, Readonly<Record<ProbeName, Probe>> {
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
}

/** What of the DaemonSet decides how its pod runs. */
export interface PodSpec {
  readonly hostPID?: boolean;
  readonly hostNetwork?: boolean;
  readonly hostIPC?: boolean;
  readonly terminationGracePeriodSeconds: number;
  readonly initContainers?: readonly ContainerSpec[];
  readonly containers: readonly [AgentSpec];
  readonly volumes: readonly Volume[];
}

export interface Manifest {
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly pod: PodSpec;
  /** The agent's configuration. */
  readonly config: Readonly<Record<string, unknown>>;
  /** What is in a ConfigMap of the chart. */
  configMap(name: string): Readonly<Record<string, string>>;
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

/** The agent's DaemonSet, as the chart makes it with these values. */
export function readManifest(values: object = {}): Manifest {
  const objects = render(values);
  const { metadata, spec } = only(objects, 'DaemonSet') as unknown as {
    metadata: { namespace: string };
    spec: { template: { metadata: { labels: Record<string, string> }; spec: PodSpec } };
  };
  const configMap = (name: string) => (only(objects, 'ConfigMap', name) as unknown as ConfigMap).data;
  return {
    namespace: metadata.namespace,
    labels: spec.template.metadata.labels,
    pod: spec.template.spec,
    config: parse(configMap('snapshot-config')['config.yaml'] ?? '') as Record<string, unknown>,
    configMap,
  };
}

interface ConfigMap {
  readonly data: Readonly<Record<string, string>>;
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

/** A container of the pod as kubelet asks for it. Without a command it has the image's own. */
export function containerConfig(
  pod: PodSpec,
  spec: ContainerSpec,
  given: {
    readonly fields: Readonly<Record<string, string>>;
    readonly mounts: readonly RuntimeMount[];
    readonly labels: Readonly<Record<string, string>>;
    readonly logPath: string;
  },
): object {
  const {
    privileged = false,
    allowPrivilegeEscalation = true,
    readOnlyRootFilesystem,
    runAsUser,
  } = spec.securityContext;
  return {
    metadata: { name: spec.name, attempt: 0 },
    image: { image: spec.image },
    command: spec.command ?? [],
    args: spec.args ?? [],
    envs: (spec.env ?? []).map(({ name, value, valueFrom }) => {
      const path = valueFrom?.fieldRef.fieldPath ?? '';
      const content = value ?? given.fields[path];
      if (content === undefined) throw new Error(`the test environment has no field ${path}`);
      return { key: name, value: Buffer.from(content) };
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
        capabilities: { drop_capabilities: spec.securityContext.capabilities?.drop ?? [] },
        no_new_privs: !allowPrivilegeEscalation,
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
