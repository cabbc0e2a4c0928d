import assert from 'node:assert/strict';
import type { Bench, Section } from '../bench.ts';
import { moveWorker, reportOperation, requireCgroup } from './restored.ts';

const MEBIBYTES = 256;
const LIMIT = 1 << 30;

/** No GPU: what fails here is the machine's or the harness's. */
export const cpu: Section = {
  name: 'cpu',
  what: 'a process without a GPU, to see that everything else works on this machine',
  deadlineMs: 120_000,
  gpus: 0,
  run: async (bench: Bench) => {
    const { report } = bench;
    const stand = await bench.startStand();
    for (const [kind, args] of [
      ['snapshot-standby', undefined],
      ['sleep', ['sleep', 'infinity']],
    ] as const) {
      const name = `cpu-${kind}`;
      const request = { script: 'host_memory', args: [MEBIBYTES], memoryLimitBytes: LIMIT };
      const worker = await bench.runWorker(stand, { name, ...request });
      const place = { name: `${name}-target`, memoryLimitBytes: LIMIT, ...(args === undefined ? {} : { args }) };
      const moved = await report.check(`host memory moves into ${kind}`, () => moveWorker(bench, stand, worker, place));
      if (moved === undefined) continue;
      reportOperation(report, `${name} checkpoint`, moved.checkpoint);
      reportOperation(report, `${name} restore`, moved.restore);
      await report.check(`its memory is the same in ${kind}`, async () => {
        assert.equal((await moved.target.check())['check'], 'ok');
      });
      await report.check(`it is in the cgroup of ${kind}, memory limit in force`, () =>
        requireCgroup(moved.target, LIMIT),
      );
      await moved.target.remove();
    }
  },
};
