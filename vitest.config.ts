import { defineConfig } from 'vitest/config';

/** What real processes do on a busy machine is not always in time. A failure counts when it comes twice; the report marks what was tried again. */
const retry = 1;

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 10_000 } },
      { test: { name: 'chart', include: ['test/chart/**/*.test.ts'], testTimeout: 20_000 } },
      {
        test: {
          name: 'native',
          retry,
          include: ['test/native/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      { test: { name: 'flow', retry, include: ['test/flow/**/*.test.ts'], testTimeout: 30_000, hookTimeout: 30_000 } },
      {
        test: {
          name: 'real',
          retry,
          include: ['test/real/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 180_000,
          // One file after the other, after all other projects: they measure time and fill the machine.
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
