import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../../agent/config.ts';
import type { AgentContext } from '../../../agent/operations/context.ts';
import { type Journal, openJournal, type Transition } from '../../../agent/operations/journal.ts';
import { recover } from '../../../agent/operations/recovery.ts';
import { memoryLog } from '../../fakes/log.ts';
import { fakeNative } from '../../fakes/native.ts';
import { makeProcfs, type Procfs } from '../../fakes/procfs.ts';
import { FakeDriver } from '../cuda/fake-driver.ts';

let top: string;
let procfs: Procfs;
let driver: FakeDriver;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'cuda-recovery-'));
  procfs = await makeProcfs([{ pid: 10, children: [11] }, { pid: 11 }]);
  driver = new FakeDriver();
});
afterEach(async () => {
  await procfs.remove();
  await rm(top, { recursive: true, force: true });
});

const open = (bootId: string): Promise<Journal> => openJournal({ path: join(top, 'journal.jsonl'), bootId });
const transition = (state: Transition['state'], details: Record<string, unknown> = {}): Transition => ({
  operationId: 'op',
  kind: 'checkpoint',
  containerKey: { containerId: 'c', pid: 10, startTime: 1000 },
  pod: { namespace: 'team', name: 'worker', uid: 'uid' },
  container: 'main',
  checkpointId: 'ckpt',
  version: '2',
  state,
  details,
});
const held = (...pids: number[]) =>
  transition('cuda-held', {
    processes: pids.map((pid) => ({ id: { pid, start: 1000 }, innerPid: pid - 9, comm: 'worker' })),
    deviceBytes: 1,
  });

/** An agent dies after these transitions; another one starts, in the same boot or a later one. */
async function afterDying(transitions: readonly Transition[], bootId = 'boot') {
  const before = await open('boot');
  for (const each of transitions) await before.append(each);
  await before.close();
  const journal = await open(bootId);
  const native = fakeNative({ procRoot: procfs.root, hasControlDir: true });
  const { log, said } = memoryLog();
  const host = { procRoot: procfs.root, cgroupRoot: `${procfs.root}/cg` };
  const cuda = { lockTimeoutSeconds: 0.1, callSeconds: 0.25 };
  const config = parseConfig(
    JSON.stringify({ nodeName: 'a', storage: { basePath: '/c' }, host, paths: { stateDir: top }, cuda }),
  );
  const parts = { config, native: native.native, journal, log, cuda: driver.workers };
  await recover({ ...parts, liveOperations: new Set() } as unknown as AgentContext);
  await journal.close();
  return { asked: native.asked, said };
}

describe('CUDA processes that a dead agent held', () => {
  it('are brought back, in whatever state they are', async () => {
    driver.add(10, { state: 'locked' });
    driver.add(11, { state: 'checkpointed' });
    const { said } = await afterDying([transition('started'), held(10), held(10, 11), transition('step')]);
    expect(driver.states()).toEqual({ 10: 'running', 11: 'running' });
    expect(said('CUDA process of an earlier run runs again')).toHaveLength(2);
    expect(said('operation of an earlier run was settled')).toHaveLength(1);
  });

  it('are nobody’s business where the operation ended', async () => {
    driver.add(10, { state: 'locked' });
    await afterDying([transition('started'), held(10), transition('failed')]);
    expect(driver.asked).toEqual([]);
  });

  it('are gone after a reboot, or when their PIDs are others’', async () => {
    driver.add(10, { state: 'locked' });
    await afterDying([transition('started'), held(10)], 'later boot');
    await procfs.add({ pid: 10, start: 2000 });
    await afterDying([transition('started'), held(10)]);
    expect(driver.asked).toEqual([]);
  });

  it('that are lost end with their container', async () => {
    driver.add(10, { state: 'checkpointed', unrestorable: 'CUDA_ERROR_INVALID_VALUE' });
    const { asked, said } = await afterDying([transition('started'), held(10)]);
    expect(asked).toEqual([['signal', 9, '10:1000']]);
    expect(said('CUDA process of an earlier run does not run')).toMatchObject([{ level: 50, end: 'lost' }]);
  });

  it('end with their container too where nobody can be asked for long, and that is said', async () => {
    driver.add(10, { state: 'locked' });
    driver.faultAt = () => 'hung';
    const { asked, said } = await afterDying([transition('started'), held(10)]);
    expect(asked).toEqual([['signal', 9, '10:1000']]);
    expect(said('CUDA process of an earlier run does not run')).toMatchObject([{ end: 'unknown' }]);
  });

  it('wait for a CRIU that still holds them', async () => {
    driver.add(10, { state: 'checkpointed' });
    await procfs.add({ pid: 10, status: { TracerPid: '77' } });
    setTimeout(() => void procfs.add({ pid: 10 }), 300);
    const began = performance.now();
    await afterDying([transition('started'), held(10)]);
    expect(performance.now() - began).toBeGreaterThan(250);
    expect(driver.states()).toEqual({ 10: 'running' });
  });

  it('cannot be told from a note that is damaged', async () => {
    driver.add(10, { state: 'locked' });
    await afterDying([transition('started'), transition('cuda-held', { processes: 'none' })]);
    expect(driver.asked).toEqual([]);
  });
});
