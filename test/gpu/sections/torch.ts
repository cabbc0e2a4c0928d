import assert from 'node:assert/strict';
import type { Section } from '../bench.ts';
import { moveWorker, reportOperation } from './restored.ts';

const MEBIBYTES = 4096;

export const torch: Section = {
  name: 'torch',
  what: 'a PyTorch worker moves: its tensor, its counter, its random numbers and its kernels',
  deadlineMs: 240_000,
  gpus: 1,
  run: async (bench) => {
    const { report } = bench;
    const stand = await bench.startStand();
    const worker = await bench.runWorker(stand, { name: 'torch', script: 'torch_tensor', args: [MEBIBYTES] });
    const moved = await report.check('a PyTorch worker moves into another container', () =>
      moveWorker(bench, stand, worker, { name: 'torch-target' }),
    );
    if (moved === undefined) return;
    reportOperation(report, 'torch checkpoint', moved.checkpoint, { deviceBytes: MEBIBYTES * 2 ** 20 });
    reportOperation(report, 'torch restore', moved.restore, { deviceBytes: MEBIBYTES * 2 ** 20 });
    await report.check('its tensor is the same and its kernels compute what they did', async () => {
      assert.equal((await moved.target.check())['check'], 'ok');
    });
    await report.check('its counter on the device goes on without a gap', async () => {
      const next = await moved.target.waitForOutput('a tick', (line) => 'tick' in line);
      const last = worker.output().findLast((line) => 'tick' in line);
      // What it counted between its last line and the checkpoint is one step at most.
      const gap = Number(next['count']) - Number(last?.['count']);
      assert.ok(gap === 1 || gap === 2, `from ${last?.['count']} to ${next['count']}`);
      assert.equal(next['count'], next['tick']);
    });
  },
};
