import { spawnSync } from 'node:child_process';
import { cp, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sweep } from '../../agent/store/sweep.ts';
import { NEXT_START } from '../unit/store/volume.ts';

import { freshVolume } from './retention/retaining.ts';

const { volume, madeAgo, stateOf } = freshVolume();

describe('a collector that is killed before each of its calls', () => {
  let work: string;
  let script: string;
  beforeAll(async () => {
    work = await mkdtemp(join(tmpdir(), 'retention-crash-'));
    script = join(work, 'collector.mjs');
    await build({
      entryPoints: [join(import.meta.dirname, 'store-crash/collector.ts')],
      outfile: script,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    });
  });
  afterAll(() => rm(work, { recursive: true, force: true }));

  it('leaves the artifact whole or gone, at once, and nothing for a second sweep', { timeout: 600_000 }, async () => {
    await madeAgo(2);
    await madeAgo(0, { version: '2' });
    const root = join(work, 'volume');
    const copy = { root };
    const seen: string[] = [];
    let dieAt = 1;
    for (; ; dieAt += 1) {
      await rm(root, { recursive: true, force: true });
      await cp(volume.root, root, { recursive: true, preserveTimestamps: true });
      const child = spawnSync(process.execPath, [script, root, String(dieAt)], { encoding: 'utf8' });
      const hasDied = child.signal === 'SIGKILL';
      if (!hasDied) expect(child).toMatchObject({ status: 0, stderr: '' });
      expect(['complete', 'absent']).toContain(await stateOf('1', 'ckpt', copy));
      await sweep(copy, { ...NEXT_START, silentAfterMs: 0 });
      const state = await stateOf('1', 'ckpt', copy);
      if (seen.at(-1) !== state) seen.push(state);
      expect(await sweep(copy, { ...NEXT_START, silentAfterMs: 0 })).toEqual({ actions: [], more: false });
      expect(await stateOf('2', 'ckpt', copy)).toBe('complete');
      expect((await stat(join(root, 'ckpt/versions/2'))).isDirectory()).toBe(true);
      if (!hasDied) break;
    }
    // The outcome turns once, and never back.
    expect(seen).toEqual(['complete', 'absent']);
    expect(dieAt).toBeGreaterThan(60);
  });
});
