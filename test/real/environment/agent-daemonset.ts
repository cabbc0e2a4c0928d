import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { KUBELET_LABELS } from '../../../contract/keys.ts';
import { lacksSysResource } from './agent.ts';
import {
  bytesOf,
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
const LOG_NAME = 'agent.log';

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

/** The pods of the DaemonSet on a cluster's only node, run from the shipped manifest as kubelet runs them: by the container runtime. */
export class AgentDaemonSet {
  readonly manifest: Manifest = readManifest();
  readonly #cluster: Cluster;
  readonly #key = randomBytes(32);

  /** The cluster's runtime must have the agent's image. */
  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** Starts another pod of the DaemonSet, with the state that the pods before it left on the node. */
  async startPod(): Promise<AgentPod> {
    const { pod, namespace, labels } = this.manifest;
    const [spec] = pod.containers;
    const sandbox = this.#sandbox();
    const directory = sandbox.log_directory;
    await mkdir(directory, { recursive: true });
    const sources = new Map<string, string>();
    for (const volume of pod.volumes) sources.set(volume.name, await this.#source(volume, directory));
    const mounts = [
      ...mountsOf(spec, sources, (path) => this.#runtimePath(path) ?? path),
      await serviceAccount(directory, namespace),
      ...(lacksSysResource() ? [await this.#preload()] : []),
    ];
    const { cri } = this.#cluster;
    const sandboxId = await cri.runPodSandbox(sandbox);
    const fields = { 'spec.nodeName': NODE_NAME };
    const config = containerConfig(pod, {
      fields,
      mounts,
      labels: { ...labels, ...sandbox.labels },
      logPath: LOG_NAME,
    });
    const id = await cri.createContainer(sandboxId, config, sandbox);
    const container = new Container(cri, {
      id,
      name: spec.name,
      logFile: join(directory, LOG_NAME),
      controlDirectory: undefined,
    });
    await container.start();
    return new AgentPod(this.#cluster, {
      manifest: this.manifest,
      sandboxId,
      container,
      ip: await cri.podIp(sandboxId),
    });
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
    if (volume.configMap) await project(path, { 'config.yaml': stringify(this.#config()) });
    if (volume.secret) await project(path, { 'record.key': this.#key }, volume.secret.defaultMode);
    if (volume.emptyDir) {
      await host(['mount', '-t', 'tmpfs', '-o', `size=${bytesOf(volume.emptyDir.sizeLimit)}`, 'tmpfs', path]);
      await chmod(path, 0o777);
    }
    return path;
  }

  /** A directory of the node. The agent's own state is the cluster's, not this machine's. */
  #hostPath(path: string): string {
    const own = { '/var/lib/snapshot-agent': 'agents/state', '/run/snapshot-agent-api': 'agents/api' }[path];
    if (own !== undefined) return join(this.#cluster.directory, own);
    return this.#runtimePath(path) ?? path;
  }

  /** The shipped configuration, and what this machine and the tests need besides. */
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
    const [spec] = this.#manifest.pod.containers;
    const { path, port } = spec[name].httpGet;
    const number = spec.ports.find((one) => one.name === port)?.containerPort;
    const answer = await fetch(`http://${this.#ip}:${number}${path}`).catch(() => undefined);
    return answer?.status;
  }

  /** Asks the agent to end as kubelet does when its pod is deleted, and removes the pod: how its container ended. */
  async delete(): Promise<ContainerStatus> {
    await this.container.stop(this.#manifest.pod.terminationGracePeriodSeconds);
    const status = await this.container.ended();
    await this.#cluster.cri.removePodSandbox(this.#sandboxId);
    return status;
  }
}
