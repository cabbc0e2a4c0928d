import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../../agent/config.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import type { Native, ProcessId } from '../../../agent/host/native.ts';
import { finishPending, publishPending } from '../../../agent/operations/completion.ts';
import type { AgentContext } from '../../../agent/operations/context.ts';
import { type Pending, savePending } from '../../../agent/operations/pending.ts';
import { makeStaging } from '../../../agent/store/staging.ts';
import { artifactState } from '../../../agent/store/verify.ts';
import { memoryLog } from '../../fakes/log.ts';
import { makeProcfs, type Procfs } from '../../fakes/procfs.ts';
import { draft, KEYS, makeVolume, otherKey, writeFiles } from '../store/volume.ts';

let top: string;
let procfs: Procfs;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'completion-'));
  procfs = await makeProcfs();
});
afterEach(async () => {
  await procfs.remove();
  await rm(top, { recursive: true, force: true });
});

/** An agent whose volume cannot be reached, with a stopped workload's checkpoint to be finished. */
async function agentWithPending() {
  const config = parseConfig(
    JSON.stringify({
      nodeName: 'a',
      storage: { basePath: '/c' },
      host: { procRoot: procfs.root },
      paths: { stateDir: top, runDir: top },
    }),
  );
  const { sizes: _sizes, bulk: _bulk, timings: _timings, ...rest } = draft();
  const pending = {
    operationId: 'op',
    id: 'ckpt',
    version: '1',
    mode: 'new',
    staging: 'ckpt/tmp',
    rootfsBytes: 0,
    shmBytes: 0,
  } as const;
  const root: ProcessId = { pid: 10, start: 500 };
  await savePending(top, { ...pending, root, draft: { ...rest, process: { ...rest.process, count: 1 } } });
  const asked: string[] = [];
  const native = {
    attach: async () => {
      asked.push('attach');
      throw new SnapshotError('STORAGE_NOT_ATTACHED', 'no volume');
    },
  } as unknown as Native;
  const { log, said } = memoryLog();
  const context = {
    config,
    native,
    node: { name: 'a', bootId: 'b' },
    log,
    liveOperations: new Set<string>(),
  } as unknown as AgentContext;
  return { context, asked, said, files: () => readdir(join(top, 'pending')) };
}

describe('a checkpoint that is to be finished', () => {
  it('is kept for later where its volume cannot be reached, and not swept meanwhile', async () => {
    const { context, asked, files } = await agentWithPending();
    const left = new Set<string>();
    expect([...(await finishPending(context, left))]).toEqual([]);
    expect(asked).toEqual(['attach']);
    expect([...context.liveOperations]).toEqual(['op']);
    expect([...left]).toEqual(['op']);
    await finishPending(context, left);
    expect(asked).toEqual(['attach', 'attach']);
    expect(await files()).toEqual(['op.json']);
  });

  it('is left to the operation that is at work on it', async () => {
    const { context, asked, files, said } = await agentWithPending();
    await procfs.add({ pid: 10, start: 500 });
    context.liveOperations.add('op');
    expect([...(await finishPending(context, new Set()))]).toEqual([]);
    expect(asked).toEqual([]);
    expect(await files()).toEqual(['op.json']);
    expect(said('interrupted checkpoint cannot be finished')).toEqual([]);
  });

  it('is forgotten where the workload runs on after all', async () => {
    const { context, asked, files } = await agentWithPending();
    await procfs.add({ pid: 10, start: 500 });
    await finishPending(context, new Set());
    expect(asked).toEqual([]);
    expect(await files()).toEqual([]);
  });

  it('is finished where the workload is killed and only slow to vanish', async () => {
    const { context, asked, files } = await agentWithPending();
    await procfs.add({ pid: 10, start: 500, state: 'R', status: { ShdPnd: '0000000000000100' } });
    await finishPending(context, new Set());
    expect(asked).toEqual(['attach']);
    expect(await files()).toEqual(['op.json']);
  });

  it('waits for the CRIU of the earlier run, which may still end the workload', async () => {
    const { context, asked, files } = await agentWithPending();
    await procfs.add({ pid: 10, start: 500, state: 't', status: { TracerPid: '77' } });
    const finishing = finishPending(context, new Set());
    await sleep(150);
    await procfs.drop(10);
    await finishing;
    expect(asked).toEqual(['attach']);
    expect(await files()).toEqual(['op.json']);
  });
});

describe('images that were made with a record key which signs no more', () => {
  /** What is left to do after a restart that brought another key. */
  async function publishMade(keyId: string, accepted: readonly (typeof otherKey)[]) {
    const volume = await makeVolume();
    try {
      const operation = { node: 'a', bootId: 'b', operationId: 'op' };
      const staging = await makeStaging({ volume, id: 'ckpt', version: '1', operation });
      await writeFiles(staging.path);
      const { sizes: _sizes, bulk, timings: _timings, ...rest } = draft();
      const pending = { id: 'ckpt', version: '1', mode: 'new', draft: rest, rootfsBytes: 0, shmBytes: 0 };
      const context = { keys: { current: otherKey, accepted }, log: memoryLog().log } as unknown as AgentContext;
      const finalized = { criuBytes: 1, zeroBytes: 0, bulk, keyId };
      try {
        await publishPending(context, {
          ...{ volume, staging, finalized, timings: [] },
          pending: pending as unknown as Pending,
        });
      } finally {
        await staging.discard();
      }
      return await artifactState(volume, { id: 'ckpt', version: '1', keys: { current: otherKey, accepted } });
    } finally {
      await volume.remove();
    }
  }

  it('are signed with the key of their block tags', async () => {
    const found = await publishMade(KEYS.current.id, [otherKey, KEYS.current]);
    expect(found).toMatchObject({ state: 'complete', artifact: { key: { id: KEYS.current.id } } });
  });

  it('are kept where the agent does not have that key any more', async () => {
    await expect(publishMade(KEYS.current.id, [otherKey])).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining(KEYS.current.id),
    });
  });
});
