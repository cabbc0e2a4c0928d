import assert from 'node:assert/strict';
import type { Bench, Section } from '../bench.ts';
import { moveWorker, reportOperation, requireCgroup } from './restored.ts';

const MEBIBYTES = 4096;
/** Beside the device memory there is what the driver holds in a process. */
const LIMIT = 12 * 2 ** 30;

/** Known device memory, every byte hashed; the smallest CUDA process there is. */
export const container: Section = {
  name: 'container',
  what: 'a CUDA process with known device memory, moved into another container',
  deadlineMs: 240_000,
  gpus: 1,
  run: async (bench: Bench) => {
    const { report } = bench;
    const stand = await bench.startStand();
    for (const [kind, args] of [
      ['snapshot-standby', undefined],
      ['sleep', ['sleep', 'infinity']],
    ] as const) {
      const name = `cuda-${kind}`;
      const request = { script: 'cuda_memory', args: [MEBIBYTES], memoryLimitBytes: LIMIT };
      const worker = await bench.runWorker(stand, { name, ...request });
      const { counts: before } = await worker.waitForOutput('a tick', (line) => 'tick' in line);
      const place = { name: `${name}-target`, memoryLimitBytes: LIMIT, ...(args === undefined ? {} : { args }) };
      const moved = await report.check(`${MEBIBYTES} MiB of device memory move into ${kind}`, () =>
        moveWorker(bench, stand, worker, place),
      );
      if (moved === undefined) continue;
      reportOperation(report, `${name} checkpoint`, moved.checkpoint);
      reportOperation(report, `${name} restore`, moved.restore);
      await report.check(`every byte of it is the same in ${kind}`, async () => {
        const verdict = await moved.target.check();
        assert.equal(verdict['check'], 'ok');
        assert.equal(verdict['host'], place.name);
      });
      await report.check(`its counter in device memory goes on in ${kind}`, async () => {
        const from = moved.target.output().length;
        const { counts } = await moved.target.waitForOutput('a tick', (line) => 'tick' in line, { from });
        assert.ok(Number((counts as number[])[0]) > Number((before as number[])[0]), `${before} then ${counts}`);
      });
      await report.check(`it is in the cgroup of ${kind}, memory limit in force`, () =>
        requireCgroup(moved.target, LIMIT),
      );
      await moved.target.remove();
    }
  },
};
