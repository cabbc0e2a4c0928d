import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newGuards } from '../../../agent/operations/guards.ts';
import { type Journal, openJournal, type Transition } from '../../../agent/operations/journal.ts';
import { until } from '../../fakes/cri-server.ts';
import { memoryLog } from '../../fakes/log.ts';
import { fakeNative } from '../../fakes/native.ts';
import { makeProcfs, type Procfs } from '../../fakes/procfs.ts';

const SIGKILL = 9;
const SIGTERM = 15;
const PLACEHOLDER = { pid: 10, start: 500 };
const ROOT = { pid: 20, start: 600 };

let top: string;
let procfs: Procfs;
let journal: Journal;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'guards-'));
  procfs = await makeProcfs([PLACEHOLDER, ROOT]);
  journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'boot' });
});
afterEach(async () => {
  await journal.close();
  await procfs.remove();
  await rm(top, { recursive: true, force: true });
});

const armed = (adoption: 'standby' | 'foreign'): Transition => ({
  operationId: 'op',
  kind: 'restore',
  containerKey: { containerId: 'c', pid: PLACEHOLDER.pid, startTime: PLACEHOLDER.start },
  pod: { namespace: 'team', name: 'worker', uid: 'uid' },
  container: 'main',
  checkpointId: 'ckpt',
  version: '1',
  state: 'armed',
  details: { rootPid: ROOT.pid, rootStart: ROOT.start, innerPid: 2, adoption, controlDir: '/ctl' },
});

/** The guards of an agent that starts while this container is written down as armed. */
async function resumed(adoption: 'standby' | 'foreign', processes = [PLACEHOLDER, ROOT]) {
  await journal.append(armed(adoption));
  const fake = fakeNative({ procRoot: procfs.root, processes });
  const logged = memoryLog();
  const guards = newGuards({ native: fake.native, journal, log: logged.log });
  await guards.resume();
  const isEnded = () => journal.restoredContainers().length === 0;
  return { ...fake, ...logged, guards, isEnded };
}
const acts = (asked: readonly (readonly unknown[])[]) => asked.filter(([verb]) => verb !== 'pin');

describe('a restored container', () => {
  it('is known by its restored process from the start on, pinned together with its PID 1', async () => {
    const { guards, asked, held } = await resumed('foreign');
    expect(guards.rootOf('c')).toEqual(ROOT);
    expect(guards.rootOf('other')).toBeUndefined();
    expect(asked).toEqual([
      ['pin', 10, 500],
      ['pin', 20, 600],
    ]);
    expect([...held]).toEqual([10, 20]);
  });

  it.each([
    ['an exit code', 42 << 8, 42],
    ['success', 0, 0],
    ['a signal', SIGTERM, 143],
  ])('ends with what its restored process ended with: %s', async (_, status, exitCode) => {
    const { guards, asked, held, end, isEnded, said } = await resumed('foreign');
    await procfs.drop(ROOT.pid);
    end(ROOT.pid, status);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([['inject-exit', 10, exitCode]]);
    expect(guards.rootOf('c')).toBeUndefined();
    expect(held.size).toBe(0);
    expect(said('restored container ended')).toMatchObject([{ exitCode, reason: 'EXITED' }]);
  });

  it('has its exit code read from a zombie where the kernel does not tell it otherwise', async () => {
    const { asked, end, isEnded } = await resumed('foreign');
    const fields = ['Z', 1, ...Array<number>(17).fill(0), ROOT.start, ...Array<number>(29).fill(0), 3 << 8];
    await procfs.write(`${ROOT.pid}/stat`, `${ROOT.pid} (worker) ${fields.join(' ')}\n`);
    end(ROOT.pid, null);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([['inject-exit', 10, 3]]);
  });

  it('is killed where nobody can tell the exit code any more', async () => {
    const { asked, end, isEnded, said } = await resumed('foreign');
    await procfs.drop(ROOT.pid);
    end(ROOT.pid, null);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([['signal', SIGKILL, '10:500']]);
    expect(said('restored container ended')).toMatchObject([{ exitCode: 137, reason: 'EXIT_CODE_UNKNOWN' }]);
  });

  it('is not judged by another process that has the PID by then', async () => {
    const { asked, end, isEnded } = await resumed('foreign');
    await procfs.drop(ROOT.pid);
    await procfs.add({ ...ROOT, start: 9_999, state: 'Z' });
    end(ROOT.pid, null);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([['signal', SIGKILL, '10:500']]);
  });

  it('is killed where its exit code cannot be delivered', async () => {
    const { asked, end, failing, isEnded } = await resumed('foreign');
    failing.set('inject-exit', new Error('ptrace: no'));
    await procfs.drop(ROOT.pid);
    end(ROOT.pid, 0);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([
      ['inject-exit', 10, 0],
      ['signal', SIGKILL, '10:500'],
    ]);
  });

  it('is left alone once its PID 1 has ended', async () => {
    const { asked, held, end, isEnded, said } = await resumed('foreign');
    await procfs.drop(PLACEHOLDER.pid);
    end(PLACEHOLDER.pid, SIGKILL);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([]);
    expect(held.has(ROOT.pid)).toBe(false);
    expect(said('restored container ended')).toMatchObject([{ reason: 'PLACEHOLDER_ENDED' }]);
  });

  it('has a SIGTERM that is pending for its PID 1 forwarded, once', async () => {
    const { asked, end, isEnded } = await resumed('foreign');
    await procfs.write(`${PLACEHOLDER.pid}/status`, 'Name:\tsleep\nShdPnd:\t0000000000004000\n');
    await until(() => acts(asked).length > 0, 'the signal');
    await new Promise((resolve) => setTimeout(resolve, 450));
    expect(acts(asked)).toEqual([['signal', SIGTERM, '20:600']]);
    end(PLACEHOLDER.pid, 0);
    await until(isEnded, 'the end to be written down');
  });

  it('whose PID 1 is the standby needs the agent for nothing but the note that it ended', async () => {
    const { guards, asked, held, end, isEnded } = await resumed('standby');
    expect(guards.rootOf('c')).toEqual(ROOT);
    end(ROOT.pid, 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isEnded()).toBe(false);
    end(PLACEHOLDER.pid, 0);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([]);
    expect(held.has(ROOT.pid)).toBe(false);
    expect(guards.rootOf('c')).toBeUndefined();
  });
});

describe('what watches a process', () => {
  it.each([
    ['restored process', ROOT, 'foreign'],
    ['PID 1', PLACEHOLDER, 'foreign'],
    ['PID 1', PLACEHOLDER, 'standby'],
  ] as const)(
    'may end before it does: the %s is pinned anew, and nobody is touched (%#)',
    async (_, { pid, start }, adoption) => {
      const { asked, end, isEnded, guards } = await resumed(adoption);
      asked.length = 0;
      end(pid, null);
      await until(() => asked.length > 0, 'another pin');
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(asked).toEqual([['pin', pid, start]]);
      expect(isEnded()).toBe(false);
      expect(guards.rootOf('c')).toEqual(ROOT);
      await procfs.drop(pid);
      end(pid, 5 << 8);
      await until(isEnded, 'the end to be written down');
      expect(acts(asked)).toEqual(pid === ROOT.pid ? [['inject-exit', 10, 5]] : []);
    },
  );
});

describe('a container that ended while no agent ran', () => {
  it('is written down as ended, and nobody is touched', async () => {
    await procfs.drop(PLACEHOLDER.pid);
    for (const processes of [[ROOT], [{ ...PLACEHOLDER, start: 9_999 }, ROOT]]) {
      const { guards, asked, isEnded, held } = await resumed('foreign', processes);
      expect(isEnded()).toBe(true);
      expect(guards.rootOf('c')).toBeUndefined();
      expect(acts(asked)).toEqual([]);
      expect(held.size).toBe(0);
    }
  });

  it('in which only the restored process ended is killed, for its exit code is lost', async () => {
    await procfs.drop(ROOT.pid);
    const { asked, isEnded, held } = await resumed('foreign', [PLACEHOLDER]);
    await until(isEnded, 'the end to be written down');
    expect(acts(asked)).toEqual([['signal', SIGKILL, '10:500']]);
    expect(held.size).toBe(0);
  });

  it('is still there when it only cannot be pinned: nothing is written down', async () => {
    const { isEnded, asked } = await resumed('foreign', [ROOT]);
    expect(isEnded()).toBe(false);
    expect(acts(asked)).toEqual([]);
  });

  it('is not taken over a second time by the next start', async () => {
    await procfs.drop(PLACEHOLDER.pid);
    await resumed('foreign', []);
    const fake = fakeNative({ procRoot: procfs.root, processes: [PLACEHOLDER, ROOT] });
    await newGuards({ native: fake.native, journal, log: memoryLog().log }).resume();
    expect(fake.asked).toEqual([]);
  });
});
