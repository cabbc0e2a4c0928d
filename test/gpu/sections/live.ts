import assert from 'node:assert/strict';
import type { Section } from '../bench.ts';
import type { RuncContainer } from '../harness/container.ts';
import { requireSuccess } from '../harness/operations.ts';
import { reportOperation } from './restored.ts';

const MEBIBYTES = 4096;
const TICK_SECONDS = 0.005;

export const live: Section = {
  name: 'live',
  what: 'a live checkpoint: the worker goes on serving, and how long it stood still',
  deadlineMs: 240_000,
  gpus: 1,
  run: async (bench) => {
    const { report } = bench;
    const stand = await bench.startStand();
    const request = { name: 'live', script: 'torch_tensor', args: [MEBIBYTES, TICK_SECONDS] };
    const worker = await bench.runWorker(stand, request);
    const from = worker.output().length;
    const taken = await report.check('a serving worker is checkpointed', async () =>
      requireSuccess(await stand.operations.checkpoint(worker, { id: 'live', after: 'resume' }), stand.agent),
    );
    if (taken === undefined) return;
    reportOperation(report, 'live checkpoint', taken);
    await report.check('it goes on serving, and has lost nothing', async () => {
      const ticks = worker.output().length;
      await worker.waitForOutput('a tick', (line) => 'tick' in line, { from: ticks });
      assert.equal((await worker.check())['check'], 'ok');
    });
    report.figure('pause by the record', Number(taken.figures['pauseSeconds']), 's');
    report.figure('longest time between two of its steps', longestGap(worker, from), 's');
    await report.check('its artifact is good: it is restored beside it', async () => {
      const target = await bench.runPlaceholder(stand, { name: 'live-target' });
      const restore = await stand.operations.restore(target, { id: 'live', waitSeconds: 30 });
      requireSuccess(restore, stand.agent);
      assert.equal((await target.check())['check'], 'ok');
      assert.equal((await worker.check())['check'], 'ok');
      reportOperation(report, 'live restore', restore);
    });
  },
};

/** In seconds, between ticks that follow each other, by the worker's own clock. */
function longestGap(worker: RuncContainer, from: number): number {
  const times = worker
    .output()
    .slice(from)
    .filter((line) => 'tick' in line)
    .map((line) => Number(line['at']));
  return Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? time)));
}
