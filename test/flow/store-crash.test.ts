import { spawnSync } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { namesIn } from '../../agent/store/files.ts';
import { artifactDir } from '../../agent/store/paths.ts';
import { sweep } from '../../agent/store/sweep.ts';
import { artifactState } from '../../agent/store/verify.ts';
import { KEYS, makeArtifact, NEXT_START } from '../unit/store/volume.ts';

/**
 * A publisher is killed before each of its calls into the filesystem, one after the other. Whatever it leaves, one sweep must yield the old
 * artifact or the new one, whole, and a second sweep must find nothing more.
 */

let work: string;
let script: string;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'store-crash-'));
  script = join(work, 'publisher.mjs');
  await build({
    entryPoints: [join(import.meta.dirname, 'store-crash/publisher.ts')],
    outfile: script,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  });
});
afterAll(() => rm(work, { recursive: true, force: true }));

type Before = 'nothing' | 'a complete artifact' | 'a broken artifact';

/** A volume as it was before the publisher came. */
async function prepare(before: Before): Promise<string> {
  const template = await mkdtemp(join(work, 'template-'));
  if (before === 'nothing') return template;
  await makeArtifact({ root: template }, { operationId: 'op-old', files: FILES_OLD, record: { traceId: 'old' } });
  if (before === 'a broken artifact') await writeFile(join(template, 'ckpt/versions/1/criu/core-1.img'), 'other');
  return template;
}

const FILES_OLD = { 'criu/core-1.img': 'old', 'memory/bulk.pages': 'old' };

function publisher(root: string, mode: string, dieAt: number) {
  return spawnSync(process.execPath, [script, root, mode, 'new', String(dieAt)], { encoding: 'utf8' });
}

async function found(root: string): Promise<string> {
  const volume = { root };
  const state = await artifactState(volume, { id: 'ckpt', version: '1', keys: KEYS });
  if (state.state !== 'complete') return state.state;
  const content = await readFile(join(artifactDir(volume, { id: 'ckpt', version: '1' }), 'criu/core-1.img'), 'utf8');
  expect(state.artifact.record.traceId).toBe(content);
  return content;
}

/** Leftovers of the dead operation count at once: in life a torn owner file waits two minutes. */
const request = { ...NEXT_START, silentAfterMs: 0 };

async function check(root: string, allowed: readonly string[]): Promise<string> {
  await sweep({ root }, request);
  const seen = await found(root);
  expect(allowed).toContain(seen);
  const second = await sweep({ root }, request);
  expect(second).toEqual({ actions: [], more: false });
  expect(await found(root)).toBe(seen);
  expect(await namesIn(join(root, 'ckpt/versions/tmp'), 10)).toEqual({ names: [], more: false });
  return seen;
}

describe.each([
  ['new', 'nothing', ['absent', 'new'], ['absent', 'new']],
  ['new', 'a broken artifact', ['problem', 'new'], ['problem', 'new']],
  ['replace', 'a complete artifact', ['old', 'new'], ['old', 'new']],
  ['replace', 'a broken artifact', ['problem', 'new'], ['problem', 'new']],
] as const)('a publisher (%s) over %s, killed before each of its calls', (mode, before, allowed, bothSeen) => {
  it('leaves the old artifact or the new one, and nothing for a second sweep', { timeout: 600_000 }, async () => {
    const template = await prepare(before);
    const root = join(work, `volume ${mode} ${before}`);
    const seen: string[] = [];
    let dieAt = 1;
    for (; ; dieAt += 1) {
      await rm(root, { recursive: true, force: true });
      await cp(template, root, { recursive: true });
      const child = publisher(root, mode, dieAt);
      const hasDied = child.signal === 'SIGKILL';
      if (!hasDied) expect(child).toMatchObject({ status: 0, stderr: '' });
      const state = await check(root, hasDied ? allowed : ['new']);
      if (seen.at(-1) !== state) seen.push(state);
      if (!hasDied) break;
    }
    // The outcome turns once, from old to new, and never back.
    expect(seen).toEqual(bothSeen);
    expect(dieAt).toBeGreaterThan(60);
  });
});
