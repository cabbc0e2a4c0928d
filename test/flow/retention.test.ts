import { execFileSync } from 'node:child_process';
import { cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { runRetention } from '../../agent/operations/retention.ts';
import { noteUse } from '../../agent/store/readers.ts';
import { makeArtifact, makeVolume, otherKey } from '../unit/store/volume.ts';

import { age, EXPIRED, freshVolume, HOUR, SIZE, sourceIn } from './retention/retaining.ts';

const { volume, agent, at, madeAgo, stateOf, onVolume, restoreOf } = freshVolume();

describe('a round of retention', () => {
  it('does nothing and leaves nothing where no rule is on', async () => {
    await madeAgo(9_999);
    const { collect, told } = agent({});
    expect(await collect()).toBe('off');
    expect(await readdir(volume.root)).toEqual(['ckpt']);
    expect(told('storage')).toEqual([[{ freeBytes: expect.any(Number), totalBytes: expect.any(Number) }]]);
  });

  it('deletes what has expired, with all that belonged to it, and says what, why and how much', async () => {
    await madeAgo(2, { id: 'old', version: 'v.1', record: { source: sourceIn('team-a') } });
    await madeAgo(0.5, { id: 'young' });
    const { collect, logged, told } = agent(EXPIRED);
    expect(await collect()).toBe('done');
    expect(await onVolume()).toEqual(['young']);
    expect(await readdir(at('.snapshot-agent'))).toEqual(['collected.json']);
    const bytes = SIZE;
    expect(logged('artifact collected')).toMatchObject([
      {
        checkpointId: 'old',
        version: 'v.1',
        namespace: 'team-a',
        bytes,
        reason: 'ttl',
        lastUsedAt: expect.any(String),
      },
    ]);
    expect(told('collected')).toEqual([['ttl', bytes]]);
    expect(told('artifacts')).toEqual([[{ count: 1, bytes }]]);
    expect(told('failed')).toEqual([]);
  });

  it('keeps so many for each namespace', async () => {
    for (const version of ['1', '2', '3']) await madeAgo(10 - Number(version), { version });
    await madeAgo(20, { id: 'other', record: { source: sourceIn('team-b') } });
    const { collect, told } = agent({ maxArtifactsPerNamespace: 1 });
    await collect();
    expect([await stateOf('1'), await stateOf('2'), await stateOf('3'), await stateOf('1', 'other')]).toEqual([
      'absent',
      'absent',
      'complete',
      'complete',
    ]);
    expect(told('collected').map(([reason]) => reason)).toEqual(['count', 'count']);
  });

  it('counts from the last restore, and leaves what was signed as it was', async () => {
    await madeAgo(2);
    await madeAgo(2, { id: 'adopted' });
    await madeAgo(2, { id: 'looked-at' });
    await restoreOf('ckpt');
    await noteUse(volume, { id: 'adopted', version: '1' });
    await restoreOf('looked-at', false);
    await agent(EXPIRED).collect();
    expect(await stateOf()).toBe('complete');
    expect(await stateOf('1', 'adopted')).toBe('complete');
    expect(await stateOf('1', 'looked-at')).toBe('absent');
    await age(at('ckpt/readers/1@used'), 2 * HOUR);
    await agent(EXPIRED).collect();
    expect(await stateOf()).toBe('absent');
  });

  it('deletes what is ours although its files are damaged', async () => {
    await madeAgo(2);
    await rm(at('ckpt/versions/1/criu/core-1.img'));
    await agent(EXPIRED).collect();
    expect(await onVolume()).toEqual([]);
  });

  it('is not made again by another node at once, unless the volume is above the high mark', async () => {
    await madeAgo(2);
    await madeAgo(0, { id: 'young' });
    await agent(EXPIRED, 'node-b').collect();
    const other = agent(EXPIRED);
    expect(await other.collect({ notWithinMs: 60_000 })).toBe('recent');
    expect(other.told('artifacts')).toEqual([[{ count: 1, bytes: SIZE }]]);
    expect(await other.collect({ notWithinMs: 0 })).toBe('done');
    expect(await agent({ ...EXPIRED, highPercent: 1e-9 }).collect({ notWithinMs: 60_000 })).toBe('done');
    await writeFile(at('.snapshot-agent/collected.json'), 'torn {');
    expect(await other.collect({ notWithinMs: 60_000 })).toBe('done');
  });

  it('stops when it is told to', async () => {
    await madeAgo(2);
    await expect(agent(EXPIRED).collect({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await stateOf()).toBe('complete');
  });
});

describe('what cannot be told to be ours', () => {
  it('is kept as it is and reported once', async () => {
    const outside = await makeVolume();
    try {
      await makeArtifact(outside, { id: 'linked' });
      await age(join(outside.root, 'linked/versions/1/manifest.yaml'), 2 * HOUR);
      await symlink(join(outside.root, 'linked'), at('linked'));
      await madeAgo(2, { id: 'foreign', keys: { current: otherKey, accepted: [otherKey] } });
      await madeAgo(2, { id: 'unsigned' });
      const record = await readFile(at('unsigned/versions/1/manifest.yaml'), 'utf8');
      await writeFile(at('unsigned/versions/1/manifest.yaml'), record.slice(0, record.indexOf('\nsignature:') + 1));
      await mkdir(at('empty/versions/1'), { recursive: true });
      await mkdir(at('piped/versions/1'), { recursive: true });
      execFileSync('mkfifo', [at('piped/versions/1/manifest.yaml')]);
      await mkdir(at('through/versions/1'), { recursive: true });
      await symlink(at('foreign/versions/1/manifest.yaml'), at('through/versions/1/manifest.yaml'));
      await symlink(join(outside.root, 'linked/versions/1'), at('through/versions/2'));
      await madeAgo(2, { id: 'moved' });
      await cp(at('moved/versions/1'), at('moved/versions/2'), { recursive: true });
      await writeFile(at('file'), 'no directory');
      await mkdir(at('lost+found'));
      await madeAgo(2, { id: 'ours' });
      const { collect, logged } = agent({ ...EXPIRED, maxArtifactsPerNamespace: 1, maxBytesPerNamespace: 1 });
      await collect();
      await collect();
      expect(await stateOf('1', 'ours')).toBe('absent');
      expect(await stateOf('1', 'moved')).toBe('absent');
      const names = ['empty', 'file', 'foreign', 'linked', 'lost+found', 'moved', 'piped', 'through', 'unsigned'];
      expect((await onVolume()).sort()).toEqual(names);
      expect(await readdir(at('foreign/versions/1/criu'))).toEqual(['core-1.img', 'pages-1.img']);
      expect(await readdir(at('moved/versions'))).toContain('2');
      expect(await stateOf('1', 'linked', outside)).toBe('complete');
      expect(logged('artifacts that cannot be read are kept, whatever the rules say')).toMatchObject([
        {
          count: 6,
          artifacts: expect.arrayContaining(['foreign/1: ARTIFACT_UNSIGNED', 'piped/1: ARTIFACT_UNSAFE']),
        },
      ]);
    } finally {
      await outside.remove();
    }
  });

  it('does not lead a deletion out of the artifact', async () => {
    const outside = await makeVolume();
    try {
      await writeFile(join(outside.root, 'precious'), 'content');
      await madeAgo(2);
      await symlink(outside.root, at('ckpt/versions/1/criu/link'));
      await agent(EXPIRED).collect();
      expect(await onVolume()).toEqual([]);
      expect(await readFile(join(outside.root, 'precious'), 'utf8')).toBe('content');
    } finally {
      await outside.remove();
    }
  });

  it('keeps an artifact whose readers cannot be seen: a planted link is in the way', async () => {
    await madeAgo(2);
    await rm(at('ckpt/readers'), { recursive: true, force: true });
    await symlink('/tmp', at('ckpt/readers'));
    const { collect, logged } = agent(EXPIRED);
    await collect();
    expect(await stateOf()).toBe('complete');
    expect(logged('artifacts that cannot be read are kept, whatever the rules say')).toMatchObject([
      { artifacts: ['ckpt/1: STORAGE_UNSAFE'] },
    ]);
  });
});

describe('the periodic rounds', () => {
  it('go on after a failure, which is counted, until the signal', async () => {
    await madeAgo(2);
    const { retention, setup, told } = agent(EXPIRED);
    const stop = new AbortController();
    let calls = 0;
    const running = runRetention(retention, setup, {
      intervalMs: () => 5,
      signal: stop.signal,
      onVolume: async (work) => {
        calls += 1;
        if (calls === 1) throw new Error('not mounted');
        await work(volume);
      },
    });
    await vi.waitUntil(async () => (await stateOf()) === 'absent', { timeout: 10_000 });
    stop.abort();
    await running;
    expect(told('failed')).toHaveLength(1);
    expect(told('collected')).toHaveLength(1);
  });
});
