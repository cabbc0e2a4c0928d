import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ArtifactHints, newArtifactHints } from '../../agent/operations/artifact-hints.ts';
import type { Volume } from '../../agent/store/paths.ts';
import { until } from '../fakes/cri-server.ts';
import { memoryLog } from '../fakes/log.ts';

const EVERY_MS = 10;
/** Long enough for several looks. */
const WHILE_MS = 100;

let root: string;
let hints: ArtifactHints;
let looks: number;
let failure: Error | undefined;
let hinted: string[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'hints-'));
  looks = 0;
  failure = undefined;
  hinted = [];
  const onVolume = async (work: (volume: Volume) => Promise<void>) => {
    looks += 1;
    if (failure !== undefined) throw failure;
    await work({ root });
  };
  const lookAgain = (key: string) => hinted.push(key);
  hints = newArtifactHints({ onVolume, lookAgain, log: memoryLog().log, everyMs: EVERY_MS });
});
afterEach(async () => {
  hints.close();
  await rm(root, { recursive: true });
});

const artifact = (id: string) => ({ id, version: '1' });
const publish = (id: string) => mkdir(join(root, id, 'versions', '1'), { recursive: true });
const looked = async (times = 2) => {
  const before = looks;
  await until(() => looks >= before + times, `${times} looks`);
};

describe('artifacts that are waited for', () => {
  it('are told of when they come, once, to those who wait for them', async () => {
    for (const [key, id] of Object.entries({ a: 'one', b: 'one', c: 'two' })) hints.awaited(key, artifact(id));
    // One that is only being made has no name yet.
    await mkdir(join(root, 'one', 'versions', 'tmp', 'half'), { recursive: true });
    await looked();
    expect(hinted).toEqual([]);
    await publish('one');
    await until(() => hinted.length > 0, 'a hint');
    await looked();
    expect(hinted.toSorted()).toEqual(['a', 'b']);
  });

  it('are looked for all together', async () => {
    const ids = Array.from({ length: 50 }, (_, n) => `id-${n}`);
    await Promise.all(ids.map(publish));
    for (const id of ids) hints.awaited(`key-${id}`, artifact(id));
    await until(() => hinted.length === ids.length, 'all hints');
    expect(looks).toBe(1);
  });

  it('are not looked for while nobody waits', async () => {
    await sleep(WHILE_MS);
    expect(looks).toBe(0);
    hints.awaited('a', artifact('one'));
    await looked();
    hints.awaited('a', undefined);
    const before = looks;
    await publish('one');
    await sleep(WHILE_MS);
    expect([looks, hinted]).toEqual([before, []]);
  });

  it('are those that were named last', async () => {
    hints.awaited('a', artifact('one'));
    hints.awaited('a', artifact('two'));
    await publish('one');
    await looked();
    expect(hinted).toEqual([]);
    await publish('two');
    await until(() => hinted.length > 0, 'a hint');
    expect(hinted).toEqual(['a']);
  });

  it('are told of when something else lies in their place: the operation finds out what', async () => {
    hints.awaited('a', artifact('one'));
    await symlink('/', join(root, 'one'));
    await until(() => hinted.length > 0, 'a hint');
    expect(hinted).toEqual(['a']);
  });

  it('are looked for again when the volume could not be reached', async () => {
    failure = new Error('away');
    hints.awaited('a', artifact('one'));
    await publish('one');
    await looked();
    expect(hinted).toEqual([]);
    failure = undefined;
    await until(() => hinted.length > 0, 'a hint');
  });

  it('are not looked for after the end', async () => {
    hints.awaited('a', artifact('one'));
    hints.close();
    hints.awaited('b', artifact('one'));
    await publish('one');
    await sleep(WHILE_MS);
    expect([looks, hinted]).toEqual([0, []]);
  });
});
