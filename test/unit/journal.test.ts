import {
  appendFile,
  type FileHandle,
  mkdir,
  mkdtemp,
  open as openFile,
  readFile,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
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
const open = async (bootId = 'boot-1', compactFrom?: number) => {
  const journal = await openJournal({ path, bootId, ...(compactFrom !== undefined && { compactFrom }) });
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

  const called = (operationId: string, namespace = 'team') =>
    say(operationId, 'succeeded', {
      kind: 'checkpoint',
      containerKey: { containerId: 'same', pid: 10, startTime: 20 },
      pod: { namespace, name: 'worker', uid: 'u' },
      details: { operation: { origin: 'grpc', requestId: operationId } },
    });

  it('keeps how what callers asked for ended, each namespace its share, however much another asks for', async () => {
    const journal = await open();
    await journal.append(say('open', 'started'));
    await Promise.all(Array.from({ length: 150 }, (_, n) => journal.append(called(`mine-${n}`, 'quiet'))));
    await Promise.all(Array.from({ length: 2_500 }, (_, n) => journal.append(called(`loud-${n}`, 'loud'))));
    await journal.close();
    const after = await open();
    const known = after.outcomes().map(({ operationId }) => operationId);
    expect(known.filter((id) => id.startsWith('mine-'))).toHaveLength(150);
    expect(known.filter((id) => id.startsWith('loud-'))).toHaveLength(1_850);
    expect(known.at(-1)).toBe('loud-2499');
    expect(after.openOperations()).toMatchObject([{ operationId: 'open' }]);
  });

  it('is written anew when most of it is of no more use, and loses nothing that comes meanwhile', async () => {
    const journal = await open('boot-1', 20_000);
    await journal.append(say('open', 'started'));
    let largest = 0;
    for (let round = 0; round < 40; round += 1) {
      const steps = Array.from({ length: 20 }, () => journal.append(say('other', 'step', { step: 'again' })));
      await Promise.all([...steps, journal.append(say(`r${round}`, 'failed')), journal.append(say('other', 'failed'))]);
      largest = Math.max(largest, (await stat(path)).size);
    }
    expect(largest).toBeGreaterThan(20_000);
    // All of it would be some 250 KB.
    expect(largest).toBeLessThan(80_000);
    const rounds = Array.from({ length: 40 }, (_, n) => `r${n}`);
    for (const one of [journal, await open()]) {
      expect(one.openOperations()).toMatchObject([{ operationId: 'open' }]);
      expect(rounds.filter((id) => one.outcomeOf(`c-${id}`)?.state !== 'failed')).toEqual([]);
    }
    expect(new Set((await lines()).map((line) => JSON.parse(line).seq)).size).toBe((await lines()).length);
  });

  it('that cannot be written anew is gone on with as it is', async () => {
    const journal = await open('boot-1', 5_000);
    await mkdir(`${path}.new`);
    const sayMany = () => Promise.all(Array.from({ length: 50 }, () => journal.append(say('other', 'failed'))));
    await sayMany();
    expect(await lines()).toHaveLength(50);
    await rm(`${path}.new`, { recursive: true });
    for (let round = 0; round < 10; round += 1) await sayMany();
    expect((await lines()).length).toBeLessThan(550);
    expect((await open()).outcomeOf('c-other')).toMatchObject({ seq: 550 });
  });

  it('is written anew where it could not be synced, for nobody knows what the disk has of it', async () => {
    const journal = await open();
    await journal.append(say('before', 'started'));
    const { ino } = await stat(path);
    const probe = await openFile(path);
    const handle = Object.getPrototypeOf(probe) as FileHandle;
    await probe.close();
    const failing = vi.spyOn(handle, 'datasync').mockRejectedValueOnce(new Error('EIO: i/o error'));
    await expect(journal.append(say('lost', 'started'))).rejects.toMatchObject({ code: 'INTERNAL' });
    failing.mockRestore();
    await journal.append(say('after', 'started'));
    expect((await stat(path)).ino).not.toBe(ino);
    const ids = ['before', 'after'];
    for (const one of [journal, await open()])
      expect(one.openOperations().map(({ operationId }) => operationId)).toEqual(ids);
  });

  it('writes nothing more once it is closed', async () => {
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
