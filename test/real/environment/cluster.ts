import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { KUBELET_LABELS } from '../../../contract/keys.ts';
import { Agent, type AgentPlace, type AgentRequest, enter, sharedDirectory } from './agent.ts';
import type { CgroupMode } from './cgroups.ts';
import { type Containerd, startContainerd } from './containerd.ts';
import type { Cri, SandboxConfig } from './cri.ts';
import { host } from './host.ts';
import { imageArchive } from './images.ts';
import { CLUSTER_PREFIX, leftovers, noteOwner, removeAbandoned, removeLeftovers } from './leftovers.ts';
import { makePodNetwork, type PodNetwork } from './network.ts';
import { Pod, type PodRequest } from './pod.ts';
import { PodDirectory } from './pod-directory.ts';

/** A directory of this machine that pods and the agent mount as they would a persistent volume. */
export interface Volume {
  readonly hostPath: string;
  readonly mountPath: string;
}

/**
 * One node without Kubernetes: a private containerd with its own network, the pods on it, and agents beside it. Any number of
 * clusters run at the same time.
 */
export class Cluster {
  readonly directory: string;
  /** The volume that agents get by default in agentMount mode, and that containers get with `volume: cluster.volume`. */
  readonly volume: Volume;
  readonly #containerd: Containerd;
  readonly #network: PodNetwork;
  readonly #place: AgentPlace;
  readonly #agents: Agent[] = [];

  private constructor(directory: string, containerd: Containerd, network: PodNetwork, cgroups: CgroupMode) {
    this.directory = directory;
    this.volume = { hostPath: join(directory, 'volume'), mountPath: '/checkpoints' };
    this.#containerd = containerd;
    this.#network = network;
    const podsDirectory = join(directory, 'pods');
    this.#place = { directory, runtime: containerd, podsDirectory, cgroup: `${basename(directory)}-agent`, cgroups };
  }

  static async start({ cgroups = 'machine' }: { cgroups?: CgroupMode } = {}): Promise<Cluster> {
    if (process.getuid?.() !== 0) throw new Error('a test cluster needs root: it runs containers');
    if (!existsSync('/usr/bin/containerd')) throw new Error("containerd is not installed: run 'make setup'");
    for (const removed of await removeAbandoned())
      process.stderr.write(`removed what an earlier run left: ${removed}\n`);
    const archive = await imageArchive();
    const directory = await mkdtemp(join(tmpdir(), CLUSTER_PREFIX));
    // Users of containers that are not root must reach their pods' files.
    await chmod(directory, 0o755);
    for (const name of ['pods', 'logs', 'agents', 'volume']) await mkdir(join(directory, name));
    const network = await makePodNetwork(directory);
    try {
      await noteOwner(directory, network.bridge);
      const containerd = await startContainerd(directory, archive, cgroups);
      return new Cluster(directory, containerd, network, cgroups);
    } catch (error) {
      await removeLeftovers(directory, network.bridge);
      throw error;
    }
  }

  get cri(): Cri {
    return this.#containerd.cri;
  }

  get socketPath(): string {
    return this.#containerd.socketPath;
  }

  /** This machine's address in the pods' network: what a pod connects to when it connects to the outside. */
  get gateway(): string {
    return this.#network.gateway;
  }

  get bridge(): string {
    return this.#network.bridge;
  }

  /** A directory that has the same path on this machine and in every agent environment. */
  get sharedDirectory(): string {
    return sharedDirectory(this.#place);
  }

  async runPod(request: PodRequest): Promise<Pod> {
    const namespace = request.namespace ?? 'default';
    const uid = request.uid ?? randomUUID();
    const logDirectory = join(this.directory, 'logs', `${namespace}_${request.name}_${uid}`);
    await mkdir(logDirectory, { recursive: true });
    const directory = await PodDirectory.make(this.#place.podsDirectory, { uid, name: request.name, namespace });
    const hostNetwork = request.hostNetwork ?? false;
    const config: SandboxConfig = {
      metadata: { name: request.name, uid, namespace, attempt: 0 },
      hostname: hostNetwork ? '' : request.name,
      log_directory: logDirectory,
      labels: {
        ...request.labels,
        [KUBELET_LABELS.podName]: request.name,
        [KUBELET_LABELS.podNamespace]: namespace,
        [KUBELET_LABELS.podUid]: uid,
      },
      annotations: { 'kubernetes.io/config.source': 'api', ...request.annotations },
      linux: {
        cgroup_parent: `/${basename(this.directory)}/pod${uid}`,
        security_context: {
          privileged: request.privileged ?? false,
          namespace_options: {
            network: hostNetwork ? 'NODE' : 'POD',
            pid: request.sharePid ? 'POD' : 'CONTAINER',
            ipc: 'POD',
          },
        },
      },
    };
    const sandboxId = await this.cri.runPodSandbox(config);
    await limitProcesses(config.linux.cgroup_parent);
    const ip = hostNetwork ? '' : await this.cri.podIp(sandboxId);
    await directory.writeHosts(ip, request.name);
    return new Pod(this.cri, { sandboxId, config, ip, directory });
  }

  /** A further volume: a small file system of its own, that can be filled up. */
  async makeVolume(
    name: string,
    { sizeMiB, mountPath = '/checkpoints' }: { sizeMiB: number; mountPath?: string },
  ): Promise<Volume> {
    const hostPath = join(this.directory, `volume-${name}`);
    await mkdir(hostPath);
    await host(['mount', '-t', 'tmpfs', '-o', `size=${sizeMiB}m,mode=755`, 'tmpfs', hostPath]);
    return { hostPath, mountPath };
  }

  /** Starts the built agent with the cluster's volume at its base path (agentMount), or without one (podMount). */
  async startAgent(
    request: Omit<AgentRequest, 'volume'> & {
      readonly accessMode?: 'agentMount' | 'podMount';
      readonly volume?: Volume;
    } = {},
  ): Promise<Agent> {
    const { accessMode = 'agentMount', volume = this.volume, ...rest } = request;
    const agent = new Agent(this.#place, { ...rest, volume: accessMode === 'agentMount' ? volume : undefined });
    this.#agents.push(agent);
    return agent.start();
  }

  /** Runs a program in the agent's environment, with the cluster's volume mounted. */
  async enter(
    ...[program, request]: Parameters<typeof enter> extends [AgentPlace, ...infer Rest] ? Rest : never
  ): ReturnType<typeof enter> {
    return enter(this.#place, program, { volume: this.volume, ...request });
  }

  /** Ends agents, pods and containerd, and removes everything they made on this machine. */
  async stop(): Promise<void> {
    for (const agent of this.#agents) await agent.end('SIGKILL');
    // What does not end in the ordinary way is killed below.
    const sandboxes = await this.cri.sandboxIds().catch(() => []);
    await Promise.all(sandboxes.map((id) => this.cri.removePodSandbox(id).catch(() => undefined)));
    await this.#containerd.stop();
    await removeLeftovers(this.directory, this.bridge);
  }

  /** What is still there of this cluster, in words; empty after a clean stop. */
  leftovers(): string[] {
    return leftovers(this.directory, this.bridge);
  }
}

/** As kubelet does with its podPidsLimit: what a pod forks without end must not take this machine's processes. */
async function limitProcesses(podCgroup: string): Promise<void> {
  const file = join('/sys/fs/cgroup/pids', podCgroup, 'pids.max');
  if (existsSync(file)) await writeFile(file, '8192');
}
