import assert from 'node:assert/strict';
import type { Section } from '../bench.ts';
import { requireIntact } from './aftermath.ts';

/** torch.compile leaves workers behind that hold the GPU without being CUDA processes. */
export const compileWorkers: Section = {
  name: 'compile-workers',
  what: 'a PyTorch worker whose compile workers are still alive is refused by name',
  deadlineMs: 180_000,
  gpus: 1,
  run: async (bench) => {
    const { report } = bench;
    const stand = await bench.startStand();
    const worker = await bench.runWorker(stand, { name: 'compile-pool', script: 'compile_pool', shmBytes: 2 ** 30 });
    report.figure('processes of its tree', worker.processes().length);
    const taken = await stand.operations.checkpoint(worker, { id: 'pool', after: 'resume' });
    report.note('answer', `${taken.state} ${taken.code}: ${taken.problem}`);
    await report.check('it is refused, and told the call that shuts them down', () => {
      assert.equal(taken.succeeded, false);
      assert.match(taken.problem, /GPU_HELD_WITHOUT_CUDA/);
      assert.match(taken.problem, /shutdown_compile_workers/);
    });
    await report.check('it goes on', () => requireIntact(worker));
  },
};
