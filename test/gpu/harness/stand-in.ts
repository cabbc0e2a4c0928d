import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Standin, standinGpu } from '../../native/standin/standin.ts';
import { REPOSITORY } from '../../real/environment/host.ts';
import { type GpuMachine, pythonCommand } from './gpus.ts';

const BUILT = join(REPOSITORY, 'native/build/standin');
/** Where containers see what the stand-in shares, and its device nodes: files, beside device nodes that have the numbers of real ones. */
const SHARED = '/opt/standin';
const NODES = '/dev/nvidia-standin';
const WORKER = '/opt/standin-worker';
const AGENT_LIBRARIES = '/usr/lib/x86_64-linux-gnu';
const GPU_MAJOR = 195;
const CONTROL_MINOR = 255;
/** Workers of the stand-in have a 64th of the memory that they are asked for. */
const GPU_BYTES = 512 << 20;

/** A machine with two GPUs that are none (test/native/standin): everything around them is real. */
export function standInGpus(): GpuMachine {
  const directory = mkdtempSync(join(tmpdir(), 'gpu-stand-in-'));
  const standin = new Standin(
    directory,
    [0, 1].map((index) => standinGpu(index, { bytes: GPU_BYTES })),
  );
  // As a rank of a collective whose peer stands still, and as one that reaches into another GPU (CUDA_ERROR_NOT_SUPPORTED).
  standin.fault('cuCheckpointProcessLock in-a-collective timeout');
  standin.fault('cuCheckpointProcessRestore with-default-transports error 801');
  const env = { SNAPSHOT_STANDIN_DIR: directory };
  const libraries = ['libcuda.so.1', 'libnvidia-ml.so.1'];
  return {
    gpus: standin.gpus.map(({ uuid, name, bytes }) => ({ uuid, model: name, memoryMib: bytes >> 20, driver: 'none' })),
    devices: [
      ...standin.gpus.map(({ minor }) => ({ path: `/dev/nvidia${minor}`, major: GPU_MAJOR, minor })),
      { path: '/dev/nvidiactl', major: GPU_MAJOR, minor: CONTROL_MINOR },
    ],
    bindsFor: (minors = standin.gpus.map(({ minor }) => minor)) => [
      { source: directory, destination: SHARED },
      { source: nodesOf(standin, minors), destination: NODES },
      { source: join(BUILT, 'standin-worker'), destination: WORKER, readonly: true },
    ],
    env: { SNAPSHOT_STANDIN_DIR: SHARED, SNAPSHOT_STANDIN_DEV: NODES },
    agent: {
      binds: [
        `${directory}:${directory}`,
        ...libraries.map((name) => `${join(BUILT, name)}:${AGENT_LIBRARIES}/${name}`),
      ],
      config: { cuda: { environment: env } },
    },
    tool: { args: ['--libcuda', join(BUILT, 'libcuda.so.1'), '--libnvml', join(BUILT, 'libnvidia-ml.so.1')], env },
    close: () => rmSync(directory, { recursive: true, force: true }),
    // A worker without a GPU needs no stand-in.
    command: (workers, script, args) =>
      script === 'host_memory'
        ? pythonCommand(workers, script, args)
        : pythonCommand(workers, 'stand_in', [script, ...args]),
  };
}

/** A directory with the nodes of these GPUs. */
function nodesOf({ directory, gpus }: Standin, minors: readonly number[]): string {
  const nodes = join(directory, `nodes-${minors.join('-')}`);
  mkdirSync(nodes, { recursive: true });
  for (const { uuid, minor } of gpus)
    if (minors.includes(minor)) writeFileSync(join(nodes, `nvidia${minor}`), `${uuid}\n`);
  return nodes;
}
