import assert from 'node:assert/strict';
import type { Bench, Section, Stand } from '../bench.ts';
import type { RuncContainer } from '../harness/container.ts';
import type { DriverTool } from '../harness/driver-tool.ts';
import { type Finished, requireSuccess } from '../harness/operations.ts';
import { ended, requireIntact, requireNoArtifact, settled } from './aftermath.ts';
import { moveWorker, reportOperation } from './restored.ts';

const MEBIBYTES = 1024;

interface Pair {
  readonly bench: Bench;
  readonly stand: Stand;
  readonly driver: DriverTool;
}

export const twoGpus: Section = {
  name: 'two-gpus',
  what: 'several GPUs and several processes, swapped GPUs, NCCL, peer access',
  deadlineMs: 540_000,
  gpus: 2,
  run: async (bench) => {
    const pair: Pair = { bench, stand: await bench.startStand(), driver: await bench.openDriver() };
    await swappedContainers(pair);
    await throughHostMemory(pair);
    await quietRanks(pair);
    await defaultTransports(pair);
    await oneProcess(pair);
    await twoProcesses(pair);
    await swappedInPlace(pair);
    await peerAccess(bench);
  },
};

async function oneProcess({ bench, stand }: Pair): Promise<void> {
  const { report } = bench;
  await report.check('one process with memory on both GPUs moves', async () => {
    const request = { name: 'both', script: 'cuda_memory', args: [MEBIBYTES, '0,1'] };
    const worker = await bench.runWorker(stand, request);
    const moved = await moveWorker(bench, stand, worker, { name: 'both-target' });
    await requireIntact(moved.target);
    reportOperation(report, 'two GPUs checkpoint', moved.checkpoint);
    reportOperation(report, 'two GPUs restore', moved.restore);
    await moved.target.remove();
  });
}

async function twoProcesses({ bench, stand, driver }: Pair): Promise<void> {
  await bench.report.check('two processes with a GPU each move together', async () => {
    const worker = await bench.runWorker(stand, { name: 'each', script: 'two_processes', args: [MEBIBYTES] });
    assert.equal((await driver.states(worker)).length, 2);
    const moved = await moveWorker(bench, stand, worker, { name: 'each-target' });
    await requireIntact(moved.target);
    await moved.target.remove();
  });
}

const gpusOf = async (driver: DriverTool, container: RuncContainer) => [...(await driver.usage(container)).keys()];

/** Each container sees one GPU; its place sees the other one. */
async function swappedContainers({ bench, stand, driver }: Pair): Promise<void> {
  await bench.report.check('two containers with a GPU each come back on each other’s GPU', async () => {
    const both = [0, 1] as const;
    const workers = await Promise.all(
      both.map((minor) => {
        const request = { name: `swap-${minor}`, script: 'cuda_memory', args: [MEBIBYTES], gpuMinors: [minor] };
        return bench.runWorker(stand, request);
      }),
    );
    const before = await Promise.all(workers.map((worker) => gpusOf(driver, worker)));
    assert.notDeepEqual(before[0], before[1]);
    for (const worker of workers) {
      requireSuccess(await stand.operations.checkpoint(worker, { id: worker.pod.name, after: 'stop' }), stand.agent);
      await worker.remove();
    }
    for (const minor of both) {
      const request = { name: `swap-${minor}-target`, gpuMinors: [1 - minor] };
      const target = await bench.runPlaceholder(stand, request);
      requireSuccess(await stand.operations.restore(target, { id: `swap-${minor}` }), stand.agent);
      await requireIntact(target);
      assert.deepEqual(await gpusOf(driver, target), before[1 - minor]);
    }
  });
}

/** The driver alone: a worker that sees both GPUs gets the memory of each on the other. */
async function swappedInPlace({ bench, stand, driver }: Pair): Promise<void> {
  await bench.report.check('the driver swaps the GPUs of a process that has memory on both', async () => {
    const request = { name: 'in-place', script: 'cuda_memory', args: [MEBIBYTES, '0,1'] };
    const worker = await bench.runWorker(stand, request);
    const { uuids } = await worker.waitForOutput('its GPUs', (line) => 'uuids' in line);
    const [one, other] = uuids as [string, string];
    const [{ pid } = { pid: 0 }] = await driver.states(worker);
    for (const request of [`lock ${pid} 10000`, `checkpoint ${pid}`]) await driver.insist(request);
    await driver.insist(`restore-unlock ${pid} ${one}=${other},${other}=${one}`);
    await requireIntact(worker);
    await worker.remove();
  });
}

/**
 * Ranks that are caught in a collective. With the default transports each has memory of the other GPU mapped: where the driver locks and
 * checkpoints them all the same, it cannot restore them.
 */
async function defaultTransports(pair: Pair): Promise<void> {
  const what =
    'NCCL with its default transports: refused, and all go on; or lost, and ended by name; nothing is published';
  await pair.bench.report.check(what, async () => {
    const { worker, taken, container } = await checkpointRanks(pair, 'default');
    await requireNoArtifact(pair.stand, worker.pod.name);
    if (taken.code === 'CUDA_LOST') assert.match(taken.problem, /NCCL_P2P_DISABLE/);
    else {
      assert.equal(taken.code, 'CUDA_BUSY', outcomeOf(taken));
      assert.equal(container, 'runs');
      await requireIntact(worker);
    }
    await worker.remove();
  });
}

/** Where no GPU reaches into another one, nothing but the collective itself can be in the way. */
async function throughHostMemory(pair: Pair): Promise<void> {
  await pair.bench.report.check('NCCL through host memory: refused or checkpointed, and all go on', async () => {
    const { worker, taken, container } = await checkpointRanks(pair, 'host');
    if (!taken.succeeded) {
      assert.equal(taken.code, 'CUDA_BUSY', outcomeOf(taken));
      await requireNoArtifact(pair.stand, worker.pod.name);
    }
    assert.equal(container, 'runs', outcomeOf(taken));
    await requireIntact(worker);
    await worker.remove();
  });
}

/** As an inference worker is when it is ready: the group stands, nothing is under way. The next collective comes after the restore. */
async function quietRanks({ bench, stand, driver }: Pair): Promise<void> {
  await bench.report.check(
    'NCCL through host memory, quiet: moves and reduces again, or is refused by name',
    async () => {
      const shmBytes = 2 ** 30;
      const request = { name: 'nccl-quiet', script: 'nccl_ranks', args: ['host', 'quiet'], shmBytes };
      const worker = await bench.runWorker(stand, request);
      const taken = await stand.operations.checkpoint(worker, { id: 'nccl-quiet', after: 'resume' });
      bench.report.note('NCCL, quiet, checkpoint', outcomeOf(taken));
      if (!taken.succeeded) {
        await requireNoArtifact(stand, 'nccl-quiet');
        const { container } = taken.code === 'CUDA_LOST' ? await ended(worker) : await settled(worker, driver);
        if (container === 'runs') await requireIntact(worker);
        await worker.remove();
        return;
      }
      await requireIntact(worker);
      await worker.remove();
      const target = await bench.runPlaceholder(stand, { name: 'nccl-quiet-target', shmBytes });
      const restored = await stand.operations.restore(target, { id: 'nccl-quiet', waitSeconds: 30 });
      bench.report.note('NCCL, quiet, restore', outcomeOf(restored));
      requireSuccess(restored, stand.agent);
      await requireIntact(target);
      await target.remove();
    },
  );
}

async function checkpointRanks({ bench, stand, driver }: Pair, transports: 'default' | 'host') {
  const name = `nccl-${transports}`;
  const request = { name, script: 'nccl_ranks', args: [transports], shmBytes: 2 ** 30 };
  const worker = await bench.runWorker(stand, request);
  const taken = await stand.operations.checkpoint(worker, { id: name, after: 'resume' });
  bench.report.note(`NCCL in a loop, transports: ${transports}`, outcomeOf(taken));
  const { container } = taken.code === 'CUDA_LOST' ? await ended(worker) : await settled(worker, driver);
  return { worker, taken, container };
}

/** The driver checkpoints it and cannot restore it: no artifact may say that it is good. */
async function peerAccess(bench: Bench): Promise<void> {
  const { report } = bench;
  for (const [after, proveRestore] of [
    ['resume', 'live'],
    ['stop', 'always'],
  ] as const)
    await report.check(`peer access, ${after}, proven ${proveRestore}: nothing is published as good`, async () => {
      const stand = await bench.startStand({ config: { cuda: { proveRestore } } });
      const name = `peers-${after}`;
      const worker = await bench.runWorker(stand, { name, script: 'peer_copy' });
      const taken = await stand.operations.checkpoint(worker, { id: name, after });
      report.note(`peer access, ${after}`, outcomeOf(taken));
      // A driver that can do it is no failure: then the worker must have come back.
      if (!taken.succeeded) await requireNoArtifact(stand, name);
      else if (after === 'resume') await requireIntact(worker);
      await worker.remove();
    });
}

const outcomeOf = ({ state, code, failedStep, problem }: Finished) => `${state} ${code} ${failedStep}: ${problem}`;
