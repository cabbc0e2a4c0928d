import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { KUBELET_LABELS } from '../../../contract/keys.ts';
import { lacksSysResource } from './agent.ts';
import {
  bytesOf,
  type ContainerSpec,
  containerConfig,
  type Manifest,
  mountsOf,
  namespacesOf,
  type ProbeName,
  type RuntimeMount,
  readManifest,
  type Volume,
} from './agent-manifest.ts';
import type { Cluster } from './cluster.ts';
import { Container, type JsonLine } from './container.ts';
import type { ContainerStatus, SandboxConfig } from './cri.ts';
import { eventually, host, REPOSITORY } from './host.ts';

const PRELOAD_SOURCE = resolve(REPOSITORY, 'test/preload/without-sys-resource.c');
const PRELOAD_PATH = '/opt/snapshot-test/without-sys-resource.so';
const NODE_NAME = 'test-node';

type Files = Readonly<Record<string, string | Buffer>>;

/** Files as kubelet projects them: a dated directory, the link `..data` to it, and a link for each file. */
async function project(directory: string, files: Files, mode = 0o644): Promise<void> {
  const dated = `..2026_01_01_00_00_00.${randomBytes(4).readUInt32LE()}`;
  await mkdir(join(directory, dated), { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(directory, dated, name), content, { mode });
    await symlink(join('..data', name), join(directory, name));
  }
  await symlink(dated, join(directory, '..data.new'));
  await rename(join(directory, '..data.new'), join(directory, '..data'));
}

/** Directories of the node that are this machine's own. */
const OF_THIS_MACHINE = ['/proc', '/sys/fs/cgroup'];

/** And where those are that a node has once and this machine many times: below the cluster's directory. */
const OF_THE_CLUSTER = {
  '/var/lib/snapshot-agent': 'agents/state',
  '/run/snapshot-agent-api': 'agents/api',
  '/var/lib/kubelet': 'agents/kubelet',
} as const;

/** The pods of the DaemonSet on a cluster's only node, as the chart renders them, run as kubelet runs them: by the container runtime. */
export class AgentDaemonSet {
  readonly manifest: Manifest;
  readonly #cluster: Cluster;
  readonly #secrets: Readonly<Record<string, Files>>;
  readonly #key = randomBytes(32);

  /** The cluster's runtime must have the agent's image. `values` are the chart's; `secrets` are there besides the record key, by name. */
  constructor(cluster: Cluster, values: object = {}, secrets: Readonly<Record<string, Files>> = {}) {
    this.#cluster = cluster;
    this.#secrets = secrets;
    this.manifest = readManifest(values);
  }

  /** Starts another pod of the DaemonSet, with the state that the pods before it left on the node. */
  async startPod(): Promise<AgentPod> {
    const { pod, namespace } = this.manifest;
    const [spec] = pod.containers;
    const sandbox = this.#sandbox();
    const directory = sandbox.log_directory;
    await mkdir(directory, { recursive: true });
    const sources = new Map<string, string>();
    for (const volume of pod.volumes) sources.set(volume.name, await this.#source(volume, directory));
    const { cri } = this.#cluster;
    const made = { sandbox, sandboxId: await cri.runPodSandbox(sandbox), sources };
    for (const init of pod.initContainers ?? []) await this.#initialise(made, init);
    const container = await this.#container(made, spec, [
      await serviceAccount(directory, namespace),
      ...(lacksSysResource() ? [await this.#preload()] : []),
    ]);
    await container.start();
    const { manifest } = this;
    const ip = await cri.podIp(made.sandboxId);
    return new AgentPod(this.#cluster, { manifest, sandboxId: made.sandboxId, container, ip });
  }

  /** Runs a container that must have ended well before the next one begins. */
  async #initialise(made: Made, spec: ContainerSpec): Promise<void> {
    const container = await this.#container(made, spec, []);
    await container.start();
    const { exit_code } = await container.ended();
    const said = container.logs().map(({ text }) => text);
    if (exit_code !== 0) throw new Error(`${spec.name} ended with ${exit_code}: ${said.join('\n')}`);
  }

  async #container(
    { sandbox, sandboxId, sources }: Made,
    spec: ContainerSpec,
    besides: readonly RuntimeMount[],
  ): Promise<Container> {
    const { pod, namespace, labels } = this.manifest;
    const logPath = `${spec.name}.log`;
    const config = containerConfig(pod, spec, {
      fields: { 'spec.nodeName': NODE_NAME, 'metadata.namespace': namespace },
      mounts: [...mountsOf(spec, sources, (path) => this.#runtimePath(path) ?? path), ...besides],
      labels: { ...labels, ...sandbox.labels },
      logPath,
    });
    const { cri } = this.#cluster;
    const id = await cri.createContainer(sandboxId, config, sandbox);
    const logFile = join(sandbox.log_directory, logPath);
    return new Container(cri, { id, name: spec.name, logFile, controlDirectory: undefined });
  }

  /** Where this cluster's runtime has what others have at the usual places. Elsewhere: undefined. */
  #runtimePath(path: string): string | undefined {
    const { directory } = this.#cluster;
    return { '/run/containerd': directory, '/var/lib/containerd': join(directory, 'root') }[path];
  }

  /** Makes a volume of the pod whose directory this is, and says where it is on this machine. */
  async #source(volume: Volume, podDirectory: string): Promise<string> {
    if (volume.persistentVolumeClaim) return this.#cluster.volume.hostPath;
    const path = volume.hostPath ? this.#hostPath(volume.hostPath.path) : join(podDirectory, 'volumes', volume.name);
    await mkdir(path, { recursive: true });
    if (volume.configMap) await project(path, this.#files(volume.configMap.name));
    if (volume.secret) await project(path, this.#secret(volume.secret.secretName), volume.secret.defaultMode);
    if (volume.emptyDir) {
      await host(['mount', '-t', 'tmpfs', '-o', `size=${bytesOf(volume.emptyDir.sizeLimit)}`, 'tmpfs', path]);
      await chmod(path, 0o777);
    }
    return path;
  }

  /** A directory of the node, on this machine. */
  #hostPath(path: string): string {
    const own = Object.entries(OF_THE_CLUSTER).find(([top]) => path.startsWith(top));
    if (own !== undefined) return join(this.#cluster.directory, `${own[1]}${path.slice(own[0].length)}`);
    const known = OF_THIS_MACHINE.includes(path) ? path : this.#runtimePath(path);
    if (known === undefined) throw new Error(`the test environment has no directory for ${path} of the node`);
    return known;
  }

  #secret(name: string): Files {
    const files = { 'snapshot-record-key': { 'record.key': this.#key }, ...this.#secrets }[name];
    if (files === undefined) throw new Error(`the test environment has no Secret ${name}`);
    return files;
  }

  #files(configMap: string): Files {
    const files = this.manifest.configMap(configMap);
    return 'config.yaml' in files ? { ...files, 'config.yaml': stringify(this.#config()) } : files;
  }

  /** The chart's configuration, and what this machine and the tests need besides. */
  #config(): object {
    return {
      ...this.manifest.config,
      logLevel: 'debug',
      runtime: { type: 'containerd', socketPath: this.#cluster.socketPath },
      checkpoint: { quiesceDelaySeconds: 1 },
      criu: { environment: lacksSysResource() ? { LD_PRELOAD: PRELOAD_PATH } : {} },
    };
  }

  async #preload(): Promise<RuntimeMount> {
    const library = join(this.#cluster.directory, 'without-sys-resource.so');
    await host(['gcc', '-shared', '-fPIC', '-O2', '-o', library, PRELOAD_SOURCE]);
    return { container_path: PRELOAD_PATH, host_path: library, readonly: true, propagation: 0 };
  }

  #sandbox(): SandboxConfig {
    const { pod, namespace } = this.manifest;
    const uid = randomUUID();
    const name = `snapshot-agent-${uid.slice(0, 5)}`;
    return {
      metadata: { name, uid, namespace, attempt: 0 },
      hostname: name,
      log_directory: join(this.#cluster.directory, 'agents', name),
      labels: {
        [KUBELET_LABELS.podName]: name,
        [KUBELET_LABELS.podNamespace]: namespace,
        [KUBELET_LABELS.podUid]: uid,
      },
      annotations: {},
      linux: {
        cgroup_parent: `/${basename(this.#cluster.directory)}/pod${uid}`,
        security_context: {
          privileged: pod.containers.some(({ securityContext }) => securityContext.privileged),
          namespace_options: namespacesOf(pod),
        },
      },
    };
  }
}

/** A pod whose containers are being made. `sources`: where each of its volumes is on this machine. */
interface Made {
  readonly sandbox: SandboxConfig;
  readonly sandboxId: string;
  readonly sources: ReadonlyMap<string, string>;
}

/** What kubelet mounts without being asked, at a path below a volume of the manifest. */
async function serviceAccount(podDirectory: string, namespace: string): Promise<RuntimeMount> {
  const path = join(podDirectory, 'volumes/kube-api-access');
  await project(path, { token: 'a token', 'ca.crt': 'a certificate', namespace });
  const container_path = '/var/run/secrets/kubernetes.io/serviceaccount';
  return { container_path, host_path: path, readonly: true, propagation: 0 };
}

/** One pod of the DaemonSet. */
export class AgentPod {
  readonly container: Container;
  readonly #manifest: Manifest;
  readonly #sandboxId: string;
  readonly #ip: string;
  readonly #cluster: Cluster;

  constructor(cluster: Cluster, made: { manifest: Manifest; sandboxId: string; container: Container; ip: string }) {
    this.#cluster = cluster;
    this.#manifest = made.manifest;
    this.#sandboxId = made.sandboxId;
    this.#ip = made.ip;
    this.container = made.container;
  }

  /** JSON lines that the agent logged. */
  logs(): JsonLine[] {
    return this.container.output();
  }

  explain(): string {
    return `the agent's last lines:\n${this.container
      .logs()
      .slice(-20)
      .map(({ text }) => text)
      .join('\n')}`;
  }

  /** The first log line for which `wanted` holds. Fails at once where the agent ended. */
  async waitForLog(what: string, wanted: (line: JsonLine) => boolean, timeoutMs = 60_000): Promise<JsonLine> {
    const ask = async () => {
      const { state } = await this.container.status();
      const found = this.logs().find(wanted);
      if (!found && state === 'CONTAINER_EXITED') throw new Error(`the agent ended before ${what}\n${this.explain()}`);
      return found;
    };
    return eventually(`${what} in the agent's log`, ask, { timeoutMs, explain: () => this.explain() });
  }

  /** Asks as kubelet does for a probe: the status of the answer, or undefined where nobody listens. */
  async probe(name: ProbeName): Promise<number | undefined> {
    const { path, port } = this.#manifest.pod.containers[0][name].httpGet;
    const answer = await fetch(`http://${this.address(port)}${path}`).catch(() => undefined);
    return answer?.status;
  }

  /** Where others reach a port of the agent, by its name in the pod. */
  address(port: string): string {
    const [{ ports }] = this.#manifest.pod.containers;
    return `${this.#ip}:${ports.find(({ name }) => name === port)?.containerPort}`;
  }

  /** Asks the agent to end as kubelet does when its pod is deleted, and removes the pod: how its container ended. */
  async delete(): Promise<ContainerStatus> {
    await this.container.stop(this.#manifest.pod.terminationGracePeriodSeconds);
    const status = await this.container.ended();
    await this.#cluster.cri.removePodSandbox(this.#sandboxId);
    return status;
  }
}
