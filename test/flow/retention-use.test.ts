import { renameSync, writeFileSync } from 'node:fs';
import { cp, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openRetention } from '../../agent/operations/retention.ts';
import { deleteArtifact } from '../../agent/store/deletion.ts';
import { holdReader } from '../../agent/store/readers.ts';
import { makeStaging } from '../../agent/store/staging.ts';
import { takeTurn } from '../../agent/store/turn.ts';
import { artifactState } from '../../agent/store/verify.ts';
import { KEYS, makeArtifact, makeVolume } from '../unit/store/volume.ts';

import { age, EXPIRED, elsewhere, freshVolume } from './retention/retaining.ts';

const { volume, agent, at, madeAgo, stateOf } = freshVolume();

describe('what is in use', () => {
  it('stays while another node reads it, even one that has been silent for minutes', async () => {
    await madeAgo(2);
    const hold = await holdReader(volume, {
      id: 'ckpt',
      version: '1',
      operation: elsewhere('restore-1'),
      isUse: false,
    });
    const { collect, told } = agent(EXPIRED);
    await collect();
    expect(await stateOf()).toBe('complete');
    await age(at('ckpt/readers/1/restore-1'), 300);
    await collect();
    expect(await stateOf()).toBe('complete');
    expect(told('collected')).toEqual([]);
    await age(at('ckpt/readers/1/restore-1'), 700);
    await collect();
    expect(await stateOf()).toBe('absent');
    await hold.stop();
  });

  it('stays while another node makes an artifact of the same id', async () => {
    await madeAgo(2);
    const staging = await makeStaging({ volume, id: 'ckpt', version: '2', operation: elsewhere('op-2') });
    await agent(EXPIRED).collect();
    expect(await stateOf()).toBe('complete');
    await staging.discard();
    await agent(EXPIRED).collect();
    expect(await stateOf()).toBe('absent');
  });

  it('stays where it was replaced since it was chosen', async () => {
    await makeArtifact(volume);
    await makeArtifact(volume, { operationId: 'op-2', mode: 'replace' });
    const request = { id: 'ckpt', version: '1', keys: KEYS, operationId: 'collect-1', waitMs: 0 };
    await expect(deleteArtifact(volume, { ...request, madeBy: 'op-1' })).rejects.toMatchObject({
      code: 'ARTIFACT_BUSY',
    });
    expect(await stateOf()).toBe('complete');
    await deleteArtifact(volume, { ...request, madeBy: 'op-2' });
    expect(await stateOf()).toBe('absent');
  });

  it('stays while a replacement that was moved aside lies beside it', async () => {
    await madeAgo(2);
    await cp(at('ckpt/versions/1'), at('ckpt/versions/tmp/op-0@1.old'), { recursive: true });
    const { collect, logged } = agent(EXPIRED);
    await collect();
    expect(await stateOf()).toBe('complete');
    expect(logged('artifact is in use and stays')).toHaveLength(1);
  });

  /** Puts another artifact in the place of this one when called: all at once, as another node would between two calls of this one. */
  async function replacement(): Promise<() => void> {
    const other = await makeVolume();
    await makeArtifact(other, { operationId: 'op-new' });
    await cp(join(other.root, 'ckpt/versions/1'), at('ckpt/versions/tmp/new'), { recursive: true });
    await other.remove();
    return () => {
      renameSync(at('ckpt/versions/1'), at('ckpt/versions/tmp/old'));
      renameSync(at('ckpt/versions/tmp/new'), at('ckpt/versions/1'));
    };
  }
  const present = () => artifactState(volume, { id: 'ckpt', version: '1', keys: KEYS });
  const isNew = { state: 'complete', artifact: { record: { operationId: 'op-new' } } };

  it('stays where it is replaced after it was chosen', async () => {
    await madeAgo(2);
    const replace = await replacement();
    const { setup, logged } = agent(EXPIRED);
    let asked = 0;
    const rules = () => {
      asked += 1;
      if (asked === 2) replace();
      return setup.rules();
    };
    await openRetention({ ...setup, rules }).collect(volume, { signal: new AbortController().signal });
    expect(asked).toBeGreaterThanOrEqual(2);
    expect(await present()).toMatchObject(isNew);
    expect(logged('artifact is in use and stays')).toHaveLength(1);
  });

  it('is put back where it is replaced between the last look and the move', async () => {
    await makeArtifact(volume);
    const replace = await replacement();
    let asked = 0;
    const request = {
      ...{ id: 'ckpt', version: '1', keys: KEYS, madeBy: 'op-1', waitMs: 0 },
      // Asked for when the name aside is made: after the look.
      get operationId() {
        asked += 1;
        if (asked === 1) replace();
        return 'collect-1';
      },
    };
    await expect(deleteArtifact(volume, request)).rejects.toMatchObject({
      code: 'ARTIFACT_BUSY',
      message: expect.stringContaining('replaced meanwhile'),
    });
    expect(asked).toBeGreaterThanOrEqual(2);
    expect(await present()).toMatchObject(isNew);
    expect((await readdir(at('ckpt/versions/tmp'))).sort()).toEqual(['old']);
  });

  it('stays where it was restored since it was chosen', async () => {
    await madeAgo(2);
    await mkdir(at('ckpt/readers'));
    const { setup, told } = agent(EXPIRED);
    let asked = 0;
    const rules = () => {
      asked += 1;
      if (asked === 2) writeFileSync(at('ckpt/readers/1@used'), 'used');
      return setup.rules();
    };
    await openRetention({ ...setup, rules }).collect(volume, { signal: new AbortController().signal });
    expect((await present()).state).toBe('complete');
    expect(told('collected')).toEqual([]);
  });
});

describe('agents of several nodes', () => {
  it('take turns: one that lives is left alone, a dead one is not waited for', async () => {
    await madeAgo(2);
    const turn = await takeTurn(volume, elsewhere('collect-b'));
    const { collect } = agent(EXPIRED);
    expect(await collect()).toBe('held');
    expect(await stateOf()).toBe('complete');
    await age(at('.snapshot-agent/collecting.owner'), 61);
    expect(await collect()).toBe('done');
    expect(await stateOf()).toBe('absent');
    await turn?.remove();
  });

  it("that all take a dead one's turn at once delete what one would have deleted", async () => {
    for (let version = 1; version <= 8; version += 1) await madeAgo(20 - version, { version: `${version}` });
    await takeTurn(volume, elsewhere('collect-b')).then((turn) => turn?.remove());
    await writeFile(at('.snapshot-agent/collecting.owner'), '');
    await age(at('.snapshot-agent/collecting.owner'), 3_600);
    const nodes = ['a', 'b', 'c', 'd'].map((node) => agent({ maxArtifactsPerNamespace: 3 }, node));
    await Promise.all(nodes.map(({ collect }) => collect()));
    expect((await readdir(at('ckpt/versions'))).sort()).toEqual(['6', '7', '8']);
    expect(nodes.flatMap(({ told }) => told('collected'))).toHaveLength(5);
    expect(nodes.flatMap(({ told }) => told('failed'))).toEqual([]);
  });

  it('that delete the same artifact at once: one does, the others are told, nothing is left', async () => {
    for (let round = 0; round < 20; round += 1) {
      await makeArtifact(volume);
      const one = { id: 'ckpt', version: '1', keys: KEYS, madeBy: 'op-1', waitMs: 0 };
      const ends = await Promise.allSettled(
        ['a', 'b', 'c'].map((node) => deleteArtifact(volume, { ...one, operationId: `collect-${node}` })),
      );
      const told = ends.flatMap((end) => (end.status === 'rejected' ? [(end.reason as { code: string }).code] : []));
      expect(told.filter((code) => !['ARTIFACT_NOT_FOUND', 'ARTIFACT_BUSY'].includes(code))).toEqual([]);
      expect(told.length).toBeLessThan(3);
      expect(await stateOf()).toBe('absent');
    }
  });
});
