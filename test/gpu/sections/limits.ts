import { tmpdir } from 'node:os';
import type { Section } from '../bench.ts';
import { machineLimits } from '../limits.ts';

export const limits: Section = {
  name: 'limits',
  what: 'what the machine can do, to compare with',
  deadlineMs: 240_000,
  gpus: 0,
  run: async ({ report }) => {
    const found = await report.check('copies and the disk are measured', () => machineLimits(tmpdir()));
    if (found === undefined) return;
    report.table(
      'what the machine can do',
      Object.entries(found).map(([what, value]) => ({ what, 'GB/s': value })),
    );
  },
};
