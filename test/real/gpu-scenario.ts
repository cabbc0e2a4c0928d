import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Answer, connectTo } from '../flow/grpc/client.ts';
import { standinPath } from '../native/programs.ts';
import { Standin, type StandinGpu, standinGpu } from '../native/standin/standin.ts';
import type { Agent } from './environment/agent.ts';
import type { Cluster } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import type { ContainerRequest } from './environment/pod.ts';
import { processes } from './environment/processes.ts';
import { freshName, type Source, type SourceRequest, snapshotPod } from './scenario.ts';

/** The node's GPUs, all of them a stand-in, and what containers need to see them. */
export interface GpuNode {
  readonly standin: Standin;
  readonly gpus: readonly StandinGpu[];
  /** What a container gets that is to see these GPUs: device nodes by their numbers, and the stand-in's directories. */
  visible(...minors: readonly number[]): Pick<ContainerRequest, 'devices' | 'mounts' | 'env'>;
  /** Takes memory of a GPU, until the function that it returns is called. */
  fill(minor: number, bytes: number): Promise<() => void>;
  /** The same with device nodes that are mounted one by one, as the older NVIDIA runtimes do. */
  mounted(...minors: readonly number[]): Pick<ContainerRequest, 'devices' | 'mounts' | 'env'>;
}

/** Below /dev, so that what workers map of it counts as a device of the GPU. */
const NODES = '/dev/nvidia-standin';
export const WORKER = '/standin/bin/standin-worker';
const GPU_MAJOR = '195';

/** Agents that are to know the GPUs are started with `gpuConfig(gpuDirectory(cluster))`. */
export function gpuDirectory(cluster: Cluster): string {
  return join(cluster.directory, 'shared', 'standin');
}

/** The part of an agent's configuration by which it finds the stand-in. */
export function gpuConfig(directory: string, over: Readonly<Record<string, unknown>> = {}) {
  const libraries = '/opt/snapshot-agent/native/build/standin';
  return {
    cuda: {
      libcuda: [`${libraries}/libcuda.so.1`],
      libnvml: [`${libraries}/libnvidia-ml.so.1`],
      environment: { SNAPSHOT_STANDIN_DIR: directory },
      callSeconds: 10,
      lockTimeoutSeconds: 3,
      ...over,
    },
  };
}

export function makeGpuNode(directory: string, count = 4): GpuNode {
  const gpus = Array.from({ length: count }, (_, index) => standinGpu(index, { bytes: 2 ** 30 }));
  const standin = new Standin(directory, gpus);
  for (const name of ['bin', 'reports', 'nodes', 'device-files']) mkdirSync(join(directory, name), { recursive: true });
  copyFileSync(standinPath('standin-worker'), join(directory, 'bin/standin-worker'));
  const node = (name: string, minor: number) => {
    const path = join(directory, 'nodes', name);
    execFileSync('mknod', [path, 'c', GPU_MAJOR, `${minor}`]);
    return path;
  };
  node('nvidiactl', 255);
  for (const { minor } of gpus) node(`nvidia${minor}`, minor);
  const nodesOf = (minors: readonly number[]) =>
    ['nvidiactl', ...minors.map((minor) => `nvidia${minor}`)].map((name) => ({
      container_path: `/dev/${name}`,
      host_path: join(directory, 'nodes', name),
    }));
  const seen = (minors: readonly number[]) => {
    const files = join(directory, 'device-files', freshName('seen'));
    mkdirSync(files);
    for (const minor of minors) writeFileSync(join(files, `nvidia${minor}`), `${gpus[minor]?.uuid}\n`);
    return {
      mounts: [
        { container_path: '/standin', host_path: directory },
        { container_path: NODES, host_path: files },
      ],
      env: { SNAPSHOT_STANDIN_DIR: '/standin', SNAPSHOT_STANDIN_DEV: NODES },
    };
  };
  return {
    standin,
    gpus,
    visible: (...minors) => ({ ...seen(minors), devices: nodesOf(minors) }),
    fill: async (minor, bytes) => {
      const memory = join(directory, 'memory', `${gpus[minor]?.uuid}`);
      mkdirSync(memory, { recursive: true });
      const file = join(memory, 'filler');
      writeFileSync(file, '');
      truncateSync(file, bytes);
      // Memory is in use as long as somebody holds the lock on it.
      const holder = spawn('flock', ['-x', file, 'sh', '-c', 'echo held; exec cat'], {
        stdio: ['pipe', 'pipe', 'ignore'],
      });
      await once(holder.stdout, 'data');
      return () => holder.stdin.end();
    },
    // Those runtimes let the device cgroup allow them as well; runc makes no node where one is mounted.
    mounted: (...minors) => {
      const { mounts, env } = seen(minors);
      return { env, devices: nodesOf(minors), mounts: [...mounts, ...nodesOf(minors)] };
    },
  };
}

/** One line of a worker of the stand-in. */
export interface Beat extends JsonLine {
  readonly beat: number;
  readonly hash: string;
  readonly reported: readonly string[];
  readonly on: readonly string[];
}

const isBeat = (line: JsonLine): boolean => typeof line['beat'] === 'number';

/** What a container's workers said last. */
export function lastBeat(container: Container): Beat {
  const last = container.output().findLast(isBeat);
  if (last === undefined) throw new Error(`container ${container.name} has not said anything yet`);
  return last as Beat;
}

/** Waits until a container's workers count on. */
export async function beatsOn(container: Container, timeoutMs = 20_000): Promise<Beat> {
  const from = container.output().length;
  return (await container.waitForOutput('a further beat', isBeat, { from, timeoutMs })) as Beat;
}

/** Starts a source whose workload is one of the stand-in's workers, or `command`, and waits until it works. */
export async function runGpuSource(
  cluster: Cluster,
  seen: ReturnType<GpuNode['visible']>,
  { args = [], ...request }: Partial<SourceRequest> & { readonly args?: readonly string[] } = {},
): Promise<Source> {
  const id = request.id ?? freshName('checkpoint');
  const version = request.version ?? '1';
  const full: SourceRequest = {
    image: IMAGES.placeholder,
    ...request,
    command: request.command ?? [WORKER, ...args],
    ...seen,
    mounts: [...(seen.mounts ?? []), ...(request.mounts ?? [])],
  };
  const { labels, annotations } = snapshotPod({ id, version: request.version ?? '' }, full);
  const pod = await cluster.runPod({ name: freshName('gpu-source'), ...request.pod, labels, annotations });
  const container = await pod.run(full);
  await beatsOn(container);
  return { id, version, pod, container, request: full };
}

type CudaState = 'running' | 'locked' | 'saved' | 'failed';

/** The states of all CUDA processes in the cluster's containers, or in one of them, as their restore threads say. */
export function cudaStates(cluster: Cluster, container?: Container): CudaState[] {
  const place = container?.id ?? basename(cluster.directory);
  const ours = processes().filter(({ cgroups }) => cgroups.includes(place));
  return ours.flatMap(({ pid }) => stateOf(pid) ?? []);
}

function stateOf(pid: number): CudaState | undefined {
  try {
    const names = readdirSync(`/proc/${pid}/task`).map((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8'));
    return names.map((name) => /^standin:(\w+)/.exec(name)?.[1] as CudaState | undefined).find((state) => state);
  } catch {
    return undefined; // It ended meanwhile.
  }
}

/** Waits until a CUDA process of the container is in this state. */
export async function cudaStateSeen(cluster: Cluster, container: Container, state: CudaState): Promise<void> {
  const look = () => (cudaStates(cluster, container).includes(state) ? true : undefined);
  await eventually(`a CUDA process that is ${state}`, look, { timeoutMs: 60_000 });
}

/** Has a container checkpointed by a call of the agent's service, as a restored one can only be. */
export async function checkpointByCall(agent: Agent, container: Container, id: string): Promise<Answer> {
  const client = connectTo(`unix:${agent.apiSocket}`);
  try {
    const request = { request_id: id, target: { container_id: container.id }, checkpoint_id: id };
    const { name } = await client.ask('Checkpoint', { ...request, after: 'AFTER_CHECKPOINT_RESUME' });
    return await eventually(
      `the end of operation ${name}`,
      async () => {
        const operation = await client.ask('GetOperation', { name });
        return operation.done ? operation : undefined;
      },
      { timeoutMs: 60_000 },
    );
  } finally {
    client.close();
  }
}
