import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { keyFromBytes } from '../../../agent/store/key.ts';
import { decodeRecord, encodeRecord } from '../../../agent/store/record.ts';
import type { Bench, Section, Stand } from '../bench.ts';
import type { RuncContainer } from '../harness/container.ts';
import type { DriverTool } from '../harness/driver-tool.ts';
import { requireSuccess } from '../harness/operations.ts';
import type { Row } from '../report.ts';
import { requireIntact, settled } from './aftermath.ts';
import { strikeEverywhere } from './strikes.ts';

const MEBIBYTES = 256;

/** What the cases work with. */
export interface Arena {
  readonly bench: Bench;
  readonly stand: Stand;
  readonly driver: DriverTool;
  /** An artifact that is good, of a worker like those below. */
  readonly goodId: string;
  readonly newWorker: (name: string) => Promise<RuncContainer>;
}

export const faults: Section = {
  name: 'faults',
  what: 'kills in every step, a full GPU, a record of another driver, CUDA processes born meanwhile: nothing is left locked',
  deadlineMs: 540_000,
  gpus: 1,
  run: async (bench) => {
    const stand = await bench.startStand();
    const driver = await bench.openDriver();
    const newWorker = (name: string) => bench.runWorker(stand, { name, script: 'cuda_memory', args: [MEBIBYTES] });
    const goodId = 'faults-good';
    const worker = await newWorker('faults-source');
    requireSuccess(await stand.operations.checkpoint(worker, { id: goodId, after: 'resume' }), stand.agent);
    await worker.remove();
    const arena: Arena = { bench, stand, driver, goodId, newWorker };
    const outcomes: Row[] = [];
    await fullGpu(arena, outcomes);
    await otherDriver(arena, outcomes);
    await births(arena, outcomes);
    await strikeEverywhere(arena, outcomes);
    bench.report.table('what became of each fault', outcomes);
  },
};

/** Another process holds the memory: refused while nothing is touched, and good once the memory is free. */
async function fullGpu({ bench, stand, driver, goodId }: Arena, outcomes: Row[]): Promise<void> {
  const { report } = bench;
  await report.check('too little device memory at the target is refused, nothing touched', async () => {
    const filler = await bench.runWorker(stand, { name: 'filler', script: 'cuda_fill', args: [MEBIBYTES / 2] });
    const target = await bench.runPlaceholder(stand, { name: 'full-gpu' });
    const refused = await stand.operations.restore(target, { id: goodId });
    const { container, states } = await settled(target, driver);
    outcomes.push({ fault: 'full GPU', operation: refused.state, code: refused.code, container, states });
    assert.equal(refused.state, 'OPERATION_STATE_REFUSED', refused.problem);
    assert.match(refused.problem, /GPU_MEMORY_FREE/);
    assert.equal(container, 'waits');
    await filler.remove();
    await target.remove();
    const next = await bench.runPlaceholder(stand, { name: 'free-gpu' });
    requireSuccess(await stand.operations.restore(next, { id: goodId }), stand.agent);
    await requireIntact(next);
    await next.remove();
  });
}

/** A record that is signed as it should be, and says that another driver wrote it. */
async function otherDriver({ bench, stand, driver, goodId }: Arena, outcomes: Row[]): Promise<void> {
  const path = join(stand.volume.hostPath, goodId, 'versions/1/manifest.yaml');
  const original = await readFile(path, 'utf8');
  const key = keyFromBytes(await readFile(stand.node.recordKeyFile));
  const { record } = decodeRecord(original, { current: key, accepted: [key] });
  for (const version of ['570.124.06', '590.44.01'])
    await bench.report.check(`a record of driver ${version} is refused, nothing touched`, async () => {
      assert.ok(record.cuda !== undefined, 'the record has no CUDA part');
      await writeFile(path, encodeRecord({ ...record, cuda: { ...record.cuda, driver: version } }, key));
      const target = await bench.runPlaceholder(stand, { name: `driver-${version}` });
      const refused = await stand.operations.restore(target, { id: goodId });
      const { container, states } = await settled(target, driver);
      const fault = `record of driver ${version}`;
      outcomes.push({ fault, operation: refused.state, code: refused.code, container, states });
      assert.equal(refused.state, 'OPERATION_STATE_REFUSED', refused.problem);
      assert.match(refused.problem, /GPU_DRIVER/);
      assert.equal(container, 'waits');
      await target.remove();
    });
  await writeFile(path, original);
}

/** Whether the checkpoint succeeds or gives up: every process goes on, those that were born meanwhile too. */
async function births({ bench, stand, driver }: Arena, outcomes: Row[]): Promise<void> {
  await bench.report.check('CUDA processes born during a checkpoint: all go on', async () => {
    const worker = await bench.runWorker(stand, { name: 'births', script: 'cuda_births', args: [5] });
    const taken = await stand.operations.checkpoint(worker, { id: 'births', after: 'resume' });
    const { container, states } = await settled(worker, driver);
    outcomes.push({ fault: 'born meanwhile', operation: taken.state, code: taken.code, container, states });
    assert.equal(container, 'runs');
    await requireIntact(worker);
    await worker.remove();
    if (!taken.succeeded) return;
    const target = await bench.runPlaceholder(stand, { name: 'births-target' });
    requireSuccess(await stand.operations.restore(target, { id: 'births' }), stand.agent);
    await requireIntact(target);
    await target.remove();
  });
}
