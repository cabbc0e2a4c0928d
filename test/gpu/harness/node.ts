import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { CONTROL_DIR_ENV, DEFAULT_CONTROL_DIR } from '../../../contract/keys.ts';
import { Agent, type AgentPlace, type AgentRequest, merged } from '../../real/environment/agent.ts';
import type { CgroupMode } from '../../real/environment/cgroups.ts';
import { host, REPOSITORY } from '../../real/environment/host.ts';
import { CLUSTER_PREFIX, leftovers, noteOwner, removeLeftovers } from '../../real/environment/leftovers.ts';
import { RuncContainer } from './container.ts';
import { type CriServer, serveCri } from './cri-server.ts';
import type { GpuMachine } from './gpus.ts';
import { RuncProcess } from './runc.ts';
import { type BindMount, ociSpec } from './spec.ts';

/** No bridge: containers have a network namespace of their own with a loopback device in it. */
const NO_BRIDGE = 'none';
const BASE_ENV = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/root',
  LANG: 'C.UTF-8',
};
export const STANDBY = '/usr/local/bin/snapshot-standby';
/** Where the test programs lie in every container. */
export const WORKERS = '/opt/workers';

export interface NodeRequest {
  readonly cgroups?: CgroupMode;
  /** The GPUs that its containers get; without them a node without. */
  readonly gpus?: GpuMachine | undefined;
  /** The directory that lies at WORKERS in containers. */
  readonly workers: string;
  /** Variables that containers have besides their own. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface ContainerRequest {
  readonly name: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly memoryLimitBytes?: number;
  readonly binds?: readonly BindMount[];
  readonly shmBytes?: number;
  /** Which GPUs it gets, by the minor numbers of their device nodes; all without it. */
  readonly gpuMinors?: readonly number[];
}

/** A device node of one GPU, as against those that all GPUs share. */
const GPU_NODE = /^\/dev\/nvidia\d+$/;

/**
 * A node without Kubernetes and without containerd: containers made by runc, whose root is an overlay over the machine's own root, a
 * small server that tells the agent of them as CRI would, and agents beside it. It needs nothing but runc, mount and unshare, so that it
 * runs on a machine where nothing can be installed.
 */
export class RuncNode {
  readonly directory: string;
  readonly volume: { readonly hostPath: string; readonly mountPath: string };
  readonly #request: NodeRequest;
  readonly #place: AgentPlace;
  readonly #containers: RuncContainer[] = [];
  readonly #agents: Agent[] = [];
  readonly #cri: CriServer;

  private constructor(directory: string, request: NodeRequest, parts: { cri: CriServer; containers: RuncContainer[] }) {
    this.directory = directory;
    this.#request = request;
    this.#containers = parts.containers;
    this.#cri = parts.cri;
    this.volume = { hostPath: join(directory, 'volume'), mountPath: '/checkpoints' };
    this.#place = {
      directory,
      runtime: { socketPath: parts.cri.socketPath, root: join(directory, 'runtime') },
      podsDirectory: join(directory, 'pods'),
      cgroup: `${basename(directory)}-agent`,
      cgroups: request.cgroups ?? 'machine',
    };
  }

  static async start(request: NodeRequest): Promise<RuncNode> {
    const directory = await mkdtemp(join(tmpdir(), CLUSTER_PREFIX));
    try {
      // A file system of its own: an overlay's upper directory must not lie below its lower one, which is the machine's root.
      await host(['mount', '-t', 'tmpfs', '-o', 'mode=755,size=48g', 'tmpfs', directory]);
      await noteOwner(directory, NO_BRIDGE);
      for (const name of ['pods', 'logs', 'agents', 'volume', 'runtime', 'runc']) await mkdir(join(directory, name));
      const containers: RuncContainer[] = [];
      const cri = await serveCri(join(directory, 'cri.sock'), () => containers);
      return new RuncNode(directory, request, { cri, containers });
    } catch (error) {
      await removeLeftovers(directory, NO_BRIDGE);
      throw error;
    }
  }

  /** Runs a pod with one container. */
  async run(request: ContainerRequest): Promise<RuncContainer> {
    const id = randomBytes(32).toString('hex');
    const uid = randomUUID();
    const control = join(this.#place.podsDirectory, uid, 'volumes/kubernetes.io~empty-dir/snapshot-control/main');
    await mkdir(control, { recursive: true });
    await chmod(control, 0o777);
    const rootPath = await this.#mountRoot(id);
    const spec = this.#spec(request, { id, uid, rootPath, control });
    const logStem = join(this.directory, 'logs', request.name);
    const log = { stdout: `${logStem}.stdout`, stderr: `${logStem}.stderr` };
    const place = { stateDirectory: join(this.directory, 'runc'), cgroups: this.#place.cgroups };
    const process = await RuncProcess.start(place, { id, bundle: join(rootPath, '../bundle'), spec, log });
    const { name, labels = {}, annotations = {} } = request;
    const pod = { name, namespace: 'default', uid, labels, annotations };
    const parts = { id, sandboxId: `sandbox-${uid}`, pod, spec, process, rootPath, controlDirectory: control, log };
    const container = new RuncContainer(parts);
    this.#containers.push(container);
    return container;
  }

  /** A container that waits to be restored into. */
  async runPlaceholder(request: Omit<ContainerRequest, 'args'> & { args?: readonly string[] }): Promise<RuncContainer> {
    const env = { DYN_SNAPSHOT_RESTORE_STANDBY: '1', ...request.env };
    return this.run({ args: [STANDBY], ...request, env });
  }

  /** Starts the built agent with a volume at its base path: the node's own unless another one is given. */
  async startAgent(request: AgentRequest = {}): Promise<Agent> {
    const { gpus } = this.#request;
    const binds = [...(gpus?.agent.binds ?? []), ...(request.binds ?? [])];
    const config = merged(gpus?.agent.config ?? {}, request.config ?? {});
    const agent = new Agent(this.#place, { volume: this.volume, ...request, binds, config });
    this.#agents.push(agent);
    return agent.start();
  }

  /** A further volume, in memory: room for so much, of which only what is written is taken. */
  async makeVolume(name: string, gib: number): Promise<{ readonly hostPath: string; readonly mountPath: string }> {
    const hostPath = join(this.directory, `volume-${name}`);
    await mkdir(hostPath);
    await host(['mount', '-t', 'tmpfs', '-o', `size=${gib}g,mode=755`, 'tmpfs', hostPath]);
    return { hostPath, mountPath: this.volume.mountPath };
  }

  /** The key with which the agent signs records. */
  get recordKeyFile(): string {
    return join(this.directory, 'agents/state-default/record.key');
  }

  /** Ends everything that runs on the node and removes what it made on this machine. */
  async stop(): Promise<void> {
    for (const agent of this.#agents) await agent.end('SIGKILL');
    for (const container of this.#containers) await container.remove().catch(() => undefined);
    await this.#cri.stop();
    await removeLeftovers(this.directory, NO_BRIDGE);
  }

  /** What is still there of this node, in words; empty after a clean stop. */
  leftovers(): string[] {
    return leftovers(this.directory, NO_BRIDGE);
  }

  /** The machine's own root with an upper directory over it. Other file systems that are mounted in it are not seen through it. */
  async #mountRoot(id: string): Promise<string> {
    const own = join(this.directory, 'runtime', id);
    const [upper, work, root] = [join(own, 'upper'), join(own, 'work'), join(own, 'rootfs')];
    for (const path of [upper, work, root]) await mkdir(path, { recursive: true });
    const options = `lowerdir=/,upperdir=${upper},workdir=${work}`;
    await host(['mount', '-t', 'overlay', '-o', options, 'overlay', root]);
    return root;
  }

  #spec(request: ContainerRequest, made: { id: string; uid: string; rootPath: string; control: string }) {
    const { gpus, workers, cgroups = 'machine' } = this.#request;
    const env = {
      ...BASE_ENV,
      POD_NAME: request.name,
      [CONTROL_DIR_ENV]: DEFAULT_CONTROL_DIR,
      ...this.#request.env,
      ...gpus?.env,
      ...request.env,
    };
    const binds: BindMount[] = [
      { source: made.control, destination: DEFAULT_CONTROL_DIR },
      { source: workers, destination: WORKERS, readonly: true },
      { source: join(REPOSITORY, 'native/build/snapshot-standby'), destination: STANDBY, readonly: true },
      ...(gpus?.bindsFor(request.gpuMinors) ?? []),
      ...(request.binds ?? []),
    ];
    return ociSpec({
      rootPath: made.rootPath,
      hostname: request.name,
      args: request.args,
      env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      binds,
      devices: (gpus?.devices ?? []).filter(
        ({ path, minor }) => !GPU_NODE.test(path) || (request.gpuMinors?.includes(minor) ?? true),
      ),
      cgroupsPath: `/${basename(this.directory)}/pod${made.uid}/${made.id}`,
      hasCgroupNamespace: cgroups === 'v2' || existsSync('/sys/fs/cgroup/cgroup.controllers'),
      memoryLimitBytes: request.memoryLimitBytes,
      shmBytes: request.shmBytes ?? 64 << 20,
    });
  }
}
