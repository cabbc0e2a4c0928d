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
    reportOperation(report, 'torch checkpoint', moved.checkpoint);
    reportOperation(report, 'torch restore', moved.restore);
    await report.check('its tensor is the same and its kernels compute what they did', async () => {
      assert.equal((await moved.target.check())['check'], 'ok');
    });
    await report.check('its counter on the device goes on without a gap', async () => {
      const next = await moved.target.waitForOutput('a tick', (line) => 'tick' in line);
      const last = worker.output().findLast((line) => 'tick' in line);
      const passed = (name: string) => Number(next[name]) - Number(last?.[name]);
      assert.ok(passed('tick') >= 1 && passed('tick') <= 2, `from tick ${last?.['tick']} to ${next['tick']}`);
      assert.ok(passed('count') >= passed('tick'), `from count ${last?.['count']} to ${next['count']}`);
    });
  },
};
