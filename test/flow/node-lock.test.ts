import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openNative } from '../../agent/host/native.ts';
import { lockNode } from '../../agent/operations/node-lock.ts';
import { memoryLog } from '../fakes/log.ts';

const native = openNative({
  helperPath: resolve('native/build/snapshot-helper'),
  procRoot: '/proc',
  deadlineMs: 10_000,
});
const stop = new AbortController();
let top: string;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'node-lock-'));
});
afterEach(() => rm(top, { recursive: true, force: true }));

it('lets the second agent of a node wait until the first has ended', async () => {
  const { log, said } = memoryLog();
  const stateDir = join(top, 'state');
  const first = await lockNode(native, stateDir, { log, signal: stop.signal });
  expect(said('another agent of this node is still at work')).toEqual([]);
  let isSecond = false;
  const waiting = lockNode(native, stateDir, { log, signal: stop.signal }).then((lock) => {
    isSecond = true;
    return lock;
  });
  await expect.poll(() => said('another agent of this node is still at work')).toHaveLength(1);
  expect(isSecond).toBe(false);
  first?.stop();
  const second = await waiting;
  expect(isSecond).toBe(true);
  second?.stop();
  expect(await second?.ended).toEqual([]);
});

it('does not keep an agent that is stopped from ending', async () => {
  const { log } = memoryLog();
  const first = await lockNode(native, top, { log, signal: stop.signal });
  const impatient = new AbortController();
  const waiting = lockNode(native, top, { log, signal: impatient.signal });
  impatient.abort();
  expect(await waiting).toBeUndefined();
  first?.stop();
});
