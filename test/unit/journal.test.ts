import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Journal, openJournal, type Transition } from '../../agent/operations/journal.ts';

let top: string;
let path: string;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'journal-'));
  path = join(top, 'agent/journal.jsonl');
});
afterEach(async () => {
  for (const journal of opened.splice(0)) await journal.close();
  await rm(top, { recursive: true, force: true });
});

const opened: Journal[] = [];
const open = async (bootId = 'boot-1') => {
  const journal = await openJournal({ path, bootId });
  opened.push(journal);
  return journal;
};
const say = (operationId: string, state: Transition['state'], more: Partial<Transition> = {}): Transition => ({
  operationId,
  kind: 'restore',
  containerKey: { containerId: `c-${operationId}`, pid: 10, startTime: 20 },
  pod: { namespace: 'team', name: 'worker', uid: 'u' },
  container: 'main',
  checkpointId: 'ckpt',
  version: '1',
  state,
  ...more,
});
const lines = async () => (await readFile(path, 'utf8')).trimEnd().split('\n');

describe('the journal', () => {
  it('keeps its file to itself, and one line per transition in the order of the calls', async () => {
    const journal = await open();
    await Promise.all(Array.from({ length: 50 }, (_, n) => journal.append(say('a', 'step', { step: `s${n}` }))));
    const read = (await lines()).map((line) => JSON.parse(line));
    expect(read.map((entry) => [entry.seq, entry.step])).toEqual(
      Array.from({ length: 50 }, (_, n) => [n + 1, `s${n}`]),
    );
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(top, 'agent'))).mode & 0o777).toBe(0o700);
    await journal.close();
  });

  it('knows after a crash which operations are open and how far they came', async () => {
    const before = await open();
    for (const state of ['started', 'step', 'point-of-no-return'] as const) await before.append(say('a', state));
    for (const state of ['started', 'failed'] as const)
      await before.append(say('b', state, { details: { code: 'DUMP_FAILED' } }));
    for (const state of ['started', 'succeeded', 'armed'] as const) await before.append(say('c', state));
    const after = await open();
    for (const journal of [before, after]) {
      expect(journal.openOperations()).toMatchObject([{ operationId: 'a', state: 'point-of-no-return' }]);
      expect(journal.outcomeOf('c-b')).toMatchObject({ state: 'failed', details: { code: 'DUMP_FAILED' } });
      expect(journal.outcomeOf('c-a')).toBeUndefined();
      expect(journal.restoredContainers()).toMatchObject([{ operationId: 'c' }]);
    }
    // Compacted: the open operation whole, outcomes, the guarded.
    expect((await lines()).map((line) => JSON.parse(line).state)).toEqual([
      'started',
      'step',
      'point-of-no-return',
      'failed',
      'succeeded',
      'armed',
    ]);
    expect((await after.append(say('c', 'ended'))).seq).toBe(9);
    expect(after.restoredContainers()).toEqual([]);
    expect((await open()).restoredContainers()).toEqual([]);
  });

  it('keeps of an earlier boot only outcomes', async () => {
    const before = await open('boot-0');
    await before.append(say('a', 'started'));
    await before.append(say('b', 'unknown'));
    await before.append(say('c', 'succeeded'));
    await before.append(say('c', 'armed'));
    const after = await open();
    expect(after.openOperations()).toEqual([]);
    expect(after.restoredContainers()).toEqual([]);
    expect(after.outcomeOf('c-b')).toMatchObject({ state: 'unknown', bootId: 'boot-0' });
    expect((await after.append(say('d', 'started'))).seq).toBe(5);
  });

  it('knows what a container of a pod was refused for, and what turned out to be damaged when it was too late for that', async () => {
    const journal = await open();
    const refusal = () => journal.refusalOf('u', 'main')?.operationId;
    await journal.append(say('passes', 'failed', { details: { code: 'STORAGE_FAILED' } }));
    expect(refusal()).toBeUndefined();
    await journal.append(say('refused', 'refused', { details: { code: 'RESTORE_REFUSED' } }));
    expect(refusal()).toBe('refused');
    await journal.append(say('damaged', 'failed', { details: { code: 'ARTIFACT_CORRUPT' } }));
    await journal.append(say('elsewhere', 'refused', { container: 'side' }));
    expect(refusal()).toBe('damaged');
  });

  it('bears a torn last line at every length, without a warning', async () => {
    const journal = await open();
    await journal.append(say('a', 'started'));
    const whole = await readFile(path, 'utf8');
    const next = JSON.stringify({ ...JSON.parse(whole), seq: 2, state: 'failed' });
    for (let length = 0; length <= next.length; length += 1) {
      await writeFile(path, whole + next.slice(0, length));
      const after = await open();
      expect(after.warnings).toEqual([]);
      expect(after.openOperations()).toHaveLength(length === next.length ? 0 : 1);
      await after.append(say('b', 'started'));
      expect((await open()).openOperations().map((entry) => entry.operationId)).toContain('b');
    }
  });

  it('moves a line that cannot be read aside, and says so', async () => {
    const journal = await open();
    await journal.append(say('a', 'started'));
    await appendFile(path, '{"half\n{"seq":1}\n');
    await journal.append(say('b', 'started'));
    const after = await open();
    expect(after.warnings).toEqual([expect.stringContaining('2 lines')]);
    expect(await readFile(`${path}.corrupt`, 'utf8')).toBe('{"half\n{"seq":1}\n');
    expect(after.openOperations().map((entry) => entry.operationId)).toEqual(['a', 'b']);
    expect((await open()).warnings).toEqual([]);
  });

  it('forgets in memory the steps of what has ended, and nothing that anybody may still ask for', async () => {
    const journal = await open();
    await journal.append(say('before', 'failed'));
    await journal.append(say('before', 'succeeded'));
    await journal.append(say('open', 'started', { details: { operation: { requestId: 'of-open' } } }));
    await journal.append(say('long', 'started', { details: { operation: { requestId: 'of-long' } } }));
    await journal.append(say('long', 'succeeded'));
    await Promise.all(Array.from({ length: 10_000 }, () => journal.append(say('long', 'step', { step: 'again' }))));
    await journal.append(say('after', 'refused'));
    expect(journal.noteOf('long')).toBeUndefined();
    expect(journal.noteOf('open')).toEqual({ requestId: 'of-open' });
    expect(journal.openOperations()).toMatchObject([{ operationId: 'open' }]);
    const outcomes = ['before', 'long', 'after', 'open'].map((id) => journal.outcomeOf(`c-${id}`)?.state);
    expect(outcomes).toEqual(['succeeded', 'succeeded', 'refused', undefined]);
  });

  it('refuses what is no transition and goes on', async () => {
    const journal = await open();
    await expect(journal.append(say('a', 'nonsense' as 'step'))).rejects.toThrow();
    expect(await journal.append(say('a', 'started'))).toMatchObject({ seq: 1 });
  });

  it('writes nothing more after a write has failed', async () => {
    const journal = await open();
    await journal.close();
    await expect(journal.append(say('a', 'started'))).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining('cannot be written'),
    });
    await expect(journal.append(say('a', 'started'))).rejects.toMatchObject({ code: 'INTERNAL' });
    expect(journal.openOperations()).toEqual([]);
  });
});
