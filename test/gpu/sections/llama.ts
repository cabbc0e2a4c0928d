import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { host, REPOSITORY } from '../../real/environment/host.ts';
import type { Bench, Section, Stand } from '../bench.ts';
import type { JsonLine, RuncContainer } from '../harness/container.ts';
import { type Finished, requireSuccess } from '../harness/operations.ts';
import { machineLimits } from '../limits.ts';
import { reportOperation } from './restored.ts';

const MODEL_GIB = 15;
/** So many tokens after the restore are compared. */
const COMPARED = 50;
/** So many tokens the source goes on with after its checkpoint. */
const GONE_ON = 200;
const START_MS = 240_000;

export const llama: Section = {
  name: 'llama',
  what: 'an inference worker of 8 B parameters with compiled graphs: cold start against restore',
  deadlineMs: 560_000,
  gpus: 1,
  run: async (bench) => {
    const { report, options } = bench;
    const model = join(tmpdir(), 'gpu-test-model');
    try {
      await report.check('the model is made', () => makeModel(model));
      report.note('memory made available beforehand', await growMemory());
      const limits = await machineLimits(tmpdir());
      // Twice the workload and more: the agent refuses a volume with less. In memory, and so in the page cache by its nature.
      const volumeGib = 2 * (MODEL_GIB + options.kvGib + 6);
      const stand = await bench.startStand({ volumeGib });
      report.note('volume', `tmpfs with room for ${volumeGib} GiB: page cache warm`);
      await measure(bench, stand, { model, limits });
    } finally {
      await rm(model, { recursive: true, force: true });
    }
  },
};

async function makeModel(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await host(['python3', join(REPOSITORY, 'test/gpu/workers/llama_make.py'), directory], { timeoutMs: 240_000 });
  await host(['sync']);
  await host(['sh', '-c', 'echo 3 > /proc/sys/vm/drop_caches']);
}

/** Some virtual machines are given their memory only as they use it, and show less until then; the agent goes by what is shown. */
async function growMemory(): Promise<string> {
  const shown = async () => Number((await host(['sh', '-c', 'grep MemTotal /proc/meminfo'])).replace(/\D/g, '')) >> 20;
  const before = await shown();
  const fill = 'import mmap; m = mmap.mmap(-1, 96 << 30); [m.__setitem__(a, 1) for a in range(0, 96 << 30, 4096)]';
  if (before < 100) await host(['python3', '-c', fill], { timeoutMs: 180_000 }).catch(() => undefined);
  return `${before} GiB shown before, ${await shown()} GiB after`;
}

interface Started {
  readonly worker: RuncContainer;
  readonly coldSeconds: number;
}

async function start(bench: Bench, stand: Stand, request: { name: string; model: string }): Promise<Started> {
  const { report, options } = bench;
  const requestedAt = Date.now() / 1000;
  const worker = await bench.runWorker(stand, {
    name: request.name,
    script: 'llama_serve',
    args: ['/models/llama', options.kvGib],
    binds: [{ source: request.model, destination: '/models/llama', readonly: true }],
    env: { HF_HUB_OFFLINE: '1' },
    shmBytes: 1 << 30,
    timeoutMs: START_MS,
  });
  const phases = worker.output().find((line) => 'ready' in line) ?? {};
  const coldSeconds = Number(phases['firstTokenAt']) - requestedAt;
  const seconds = (name: string) => Number(phases[name]);
  report.table(`${request.name}: cold start by phase`, [
    { phase: 'container and interpreter', seconds: seconds('started') - requestedAt },
    ...['imports', 'load', 'compile', 'first'].map((phase) => ({ phase, seconds: seconds(phase) })),
    { phase: 'all, to the first token', seconds: coldSeconds },
  ]);
  return { worker, coldSeconds };
}

const tokensOf = (container: RuncContainer) => container.output().filter((line) => 'token' in line);

async function measure(
  bench: Bench,
  stand: Stand,
  { model, limits }: { model: string; limits: Readonly<Record<string, number | string>> },
): Promise<void> {
  const { report } = bench;
  const cold = await start(bench, stand, { name: 'llama, caches dropped', model });
  await cold.worker.remove();
  const { worker, coldSeconds } = await start(bench, stand, { name: 'llama, caches warm', model });
  const driver = await bench.openDriver();
  const deviceBytes = [...(await driver.usage(worker)).values()].reduce((sum, bytes) => sum + bytes, 0);
  report.figure('device memory', deviceBytes / 2 ** 30, 'GiB');
  const checkpoint = await report.check('it is checkpointed, and goes on', async () =>
    requireSuccess(await stand.operations.checkpoint(worker, { id: 'llama', after: 'resume' }), stand.agent),
  );
  if (checkpoint === undefined) return;
  reportOperation(report, 'llama checkpoint', checkpoint, limits);
  const expected = await goneOn(worker);
  report.figure('different tokens of the run that went on', new Set(expected.map(({ token }) => token)).size);
  // There is not enough memory for two of them everywhere.
  await worker.remove();
  const target = await bench.runPlaceholder(stand, {
    name: 'llama-target',
    binds: [{ source: model, destination: '/models/llama', readonly: true }],
    shmBytes: 1 << 30,
  });
  const restore = await report.check('it is restored', async () =>
    requireSuccess(await stand.operations.restore(target, { id: 'llama', waitSeconds: 30 }), stand.agent),
  );
  if (restore === undefined) return;
  reportOperation(report, 'llama restore', restore, limits);
  await compare(bench, { target, restore, expected, coldSeconds });
}

/**
 * The tokens of the source, which was not interrupted but for the time it was held, until it is well past the checkpoint. Another start of
 * the same worker is nothing to compare with: its kernels are chosen by measuring, and others round otherwise.
 */
async function goneOn(worker: RuncContainer): Promise<readonly JsonLine[]> {
  const now = tokensOf(worker).length;
  await worker.waitForOutput(`token ${now + GONE_ON}`, () => tokensOf(worker).length >= now + GONE_ON, {
    timeoutMs: START_MS,
    everyMs: 250,
  });
  return tokensOf(worker);
}

async function compare(
  bench: Bench,
  after: { target: RuncContainer; restore: Finished; expected: readonly JsonLine[]; coldSeconds: number },
): Promise<void> {
  const { report } = bench;
  const { target, restore, expected, coldSeconds } = after;
  const requestedAt = restore.requestedAtMs / 1000;
  // What it had said, and not yet written, when it was checkpointed is no token of this life.
  const isNew = (line: JsonLine) => 'token' in line && Number(line['at']) > requestedAt;
  const first = await target.waitForOutput('a token', isNew);
  const last = Number(first['tick']) + COMPARED;
  await target.waitForOutput(`token ${last}`, (line) => Number(line['tick']) >= last);
  await report.check('its tokens are those of the run that was not interrupted', () => {
    const known = new Map(expected.map(({ tick, token }) => [tick, token]));
    const got = tokensOf(target).map(({ tick, token }) => [tick, token]);
    assert.ok(got.length >= COMPARED);
    assert.deepEqual(
      got,
      got.map(([tick]) => [tick, known.get(tick)]),
    );
  });
  await report.check('its KV cache is empty as before', async () => {
    assert.equal((await target.check())['check'], 'ok');
  });
  const seconds = Number(first['at']) - requestedAt;
  report.figure('cold start to the first token, caches warm', coldSeconds, 's');
  report.figure('restore request to the next token', seconds, 's');
  report.figure('cold start / restore', coldSeconds / seconds);
  await report.check('it comes back in a third of its cold start or less', () => {
    assert.ok(seconds * 3 <= coldSeconds, `${seconds.toFixed(1)} s against ${coldSeconds.toFixed(1)} s`);
  });
  await target.remove();
}
