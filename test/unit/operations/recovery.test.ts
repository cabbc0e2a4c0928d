import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../../agent/config.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import type { AgentContext } from '../../../agent/operations/context.ts';
import { type Journal, openJournal, type Transition } from '../../../agent/operations/journal.ts';
import { recover } from '../../../agent/operations/recovery.ts';
import { memoryLog } from '../../fakes/log.ts';
import { fakeNative } from '../../fakes/native.ts';
import { type FakeProcess, makeProcfs, type Procfs } from '../../fakes/procfs.ts';

const SIGKILL = 9;
const SIGCONT = 18;
const MAIN: FakeProcess = { pid: 10, start: 500, children: [11] };

let top: string;
let procfs: Procfs;
let journal: Journal;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'recovery-'));
  procfs = await makeProcfs([MAIN, { pid: 11, start: 501 }]);
  journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'boot' });
});
afterEach(async () => {
  await journal.close();
  await procfs.remove();
  await rm(top, { recursive: true, force: true });
});

const transition = (state: Transition['state'], changes: Partial<Transition> = {}): Transition => ({
  operationId: 'op',
  kind: 'restore',
  containerKey: { containerId: 'c', pid: 10, startTime: 500 },
  pod: { namespace: 'team', name: 'worker', uid: 'uid' },
  container: 'main',
  checkpointId: 'ckpt',
  version: '2',
  state,
  ...changes,
});
const armed = transition('armed', {
  details: { rootPid: 11, rootStart: 501, innerPid: 2, adoption: 'foreign', controlDir: '/ctl' },
});

/** Dies after these transitions, starts again in the same boot, and recovers. */
async function afterDying(
  transitions: readonly Transition[],
  options: { hasControlDir?: boolean; failing?: string } = {},
) {
  for (const each of transitions) await journal.append(each);
  await journal.close();
  journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'boot' });
  const fake = fakeNative({ procRoot: procfs.root, hasControlDir: options.hasControlDir ?? true });
  if (options.failing !== undefined)
    fake.failing.set(options.failing, new SnapshotError('CONTROL_DIR_UNSAFE', 'planted'));
  const { log, said } = memoryLog();
  const config = parseConfig(
    JSON.stringify({
      nodeName: 'a',
      storage: { basePath: '/c' },
      host: { procRoot: procfs.root, cgroupRoot: `${procfs.root}/cg` },
      paths: { stateDir: top },
    }),
  );
  const context = { config, native: fake.native, journal, log, liveOperations: new Set() } as unknown as AgentContext;
  await recover(context);
  return { asked: fake.asked, outcome: journal.outcomeOf('c'), said };
}
const interrupted = {
  state: 'failed',
  details: { result: 'failed', code: 'CANCELLED', retry: true, interruptions: 1 },
};
const unknown = { state: 'unknown', details: { result: 'failed', code: 'OUTCOME_UNKNOWN' } };
const begun = [transition('started'), transition('step', { step: 'verify' })];
const changed = [...begun, transition('point-of-no-return'), transition('step', { step: 'criu-restore' })];

describe('an agent that died', () => {
  it('in nothing has nothing to settle', async () => {
    const ended = [transition('started'), transition('point-of-no-return'), armed, transition('succeeded')];
    const { asked, said } = await afterDying(ended);
    expect(asked).toEqual([]);
    expect(said('operation of an earlier run was settled')).toEqual([]);
  });

  it('in a checkpoint leaves the workload alone, and may try again', async () => {
    const { asked, outcome, said } = await afterDying([
      transition('started', { kind: 'checkpoint' }),
      transition('step', { kind: 'checkpoint', step: 'criu-dump' }),
    ]);
    expect(asked).toEqual([]);
    expect(outcome).toMatchObject({ ...interrupted, kind: 'checkpoint', checkpointId: 'ckpt', version: '2' });
    expect(said('operation of an earlier run was settled')).toMatchObject([
      { operationId: 'op', step: 'criu-dump', state: 'failed' },
    ]);
  });

  it('in the same container again and again gives it up: the operation may be what it dies of', async () => {
    const outcomes: unknown[] = [];
    for (const operationId of ['a', 'b', 'c', 'd', 'e']) {
      const { outcome } = await afterDying([transition('started', { kind: 'checkpoint', operationId })]);
      outcomes.push(outcome?.details['retry']);
    }
    expect(outcomes).toEqual([true, true, true, true, false]);
  });

  it('in a restore before anything was changed wakes every task, and may try again', async () => {
    const { asked, outcome } = await afterDying(begun);
    expect(asked).toEqual([['signal', SIGCONT, '10:500 11:501']]);
    expect(outcome).toMatchObject(interrupted);
  });

  it('in a restore that had begun to change the container ends it, and never tries again', async () => {
    const { asked, outcome } = await afterDying(changed);
    expect(asked).toEqual([['signal', SIGKILL, '10:500']]);
    expect(outcome).toMatchObject(unknown);
    expect(outcome?.details['retry']).toBeUndefined();
  });

  it('in a restore whose tree runs already tells the workload, and counts it as done', async () => {
    const { asked, outcome } = await afterDying([...changed, armed]);
    expect(asked).toEqual([
      ['look', 10, '/ctl/restore-complete'],
      ['put', 10, '/ctl/restore-complete', 'done\noperation=op\nartifact=ckpt/2\n'],
    ]);
    expect(outcome).toMatchObject({ state: 'succeeded' });
    expect(journal.restoredContainers()).toMatchObject([{ operationId: 'op', state: 'armed' }]);
  });

  it('in a restore whose tree runs already tells nobody where there is no control directory', async () => {
    const { asked, outcome } = await afterDying([...changed, armed], { hasControlDir: false });
    expect(asked.map(([verb]) => verb)).toEqual(['look']);
    expect(outcome).toMatchObject({ state: 'succeeded' });
  });

  it.each<[string, Transition[], object]>([
    ['before a change', begun, interrupted],
    ['after one', changed, unknown],
    ['once the tree ran', [...changed, armed], unknown],
  ])('touches nobody where the container is gone: %s', async (_, transitions, outcome) => {
    await procfs.drop(10);
    const settled = await afterDying(transitions);
    expect(settled.asked).toEqual([]);
    expect(settled.outcome).toMatchObject(outcome);
  });

  it.each<[string, Transition[], object]>([
    ['before a change', begun, interrupted],
    ['after one', changed, unknown],
    ['once the tree ran', [...changed, armed], unknown],
  ])('touches nobody where another process has the PID now: %s', async (_, transitions, outcome) => {
    await procfs.drop(10);
    await procfs.add({ ...MAIN, start: 9_999 });
    const settled = await afterDying(transitions);
    expect(settled.asked).toEqual([]);
    expect(settled.outcome).toMatchObject(outcome);
  });

  it.each(['look', 'put'])(
    'ends the container where the workload cannot be told (%s), and starts all the same',
    async (failing) => {
      const { asked, outcome, said } = await afterDying([...changed, armed], { failing });
      expect(asked.at(-1)).toEqual(['signal', SIGKILL, '10:500']);
      expect(outcome).toMatchObject(unknown);
      expect(said('operation of an earlier run cannot be settled as it should')).toMatchObject([{ operationId: 'op' }]);
    },
  );

  it.each<[string, Transition[], object]>([
    ['before a change', begun, interrupted],
    ['after one', changed, unknown],
  ])(
    'starts although signals cannot be sent, and never uses a changed container again: %s',
    async (_, transitions, outcome) => {
      expect(await afterDying(transitions, { failing: 'signal' })).toMatchObject({ outcome });
    },
  );

  it('settles each of several operations by its own state', async () => {
    const other = { operationId: 'op-2', containerKey: { containerId: 'c-2', pid: 11, startTime: 501 } };
    const { asked, outcome } = await afterDying([...changed, transition('started', other)]);
    expect(asked).toEqual([
      ['signal', SIGKILL, '10:500'],
      ['signal', SIGCONT, '11:501'],
    ]);
    expect(outcome).toMatchObject(unknown);
    expect(journal.outcomeOf('c-2')).toMatchObject(interrupted);
  });

  it('and dies again while it recovers finds nothing left to settle after it is through', async () => {
    await afterDying(changed);
    expect(journal.openOperations()).toEqual([]);
    expect((await afterDying([])).asked).toEqual([]);
  });

  it('before a reboot has nothing to settle: no process of that time lives', async () => {
    for (const each of changed) await journal.append(each);
    await journal.close();
    journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'another' });
    expect(journal.openOperations()).toEqual([]);
  });
});
