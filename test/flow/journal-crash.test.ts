import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openJournal } from '../../agent/operations/journal.ts';
import { transition } from './journal-crash/transition.ts';

let work: string;
let script: string;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'journal-crash-'));
  script = join(work, 'writer.mjs');
  await build({
    entryPoints: [join(import.meta.dirname, 'journal-crash/writer.ts')],
    outfile: script,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
  });
});
afterAll(() => rm(work, { recursive: true, force: true }));

/** What a writer was promised before it died at that call; `calls` where it lived. */
async function promised(dieAt: number) {
  const directory = await mkdtemp(join(work, 'run-'));
  const path = join(directory, 'journal.jsonl');
  const { stdout, stderr, signal } = spawnSync(process.execPath, [script, path, String(dieAt)], { encoding: 'utf8' });
  expect([signal, stderr]).toEqual([dieAt === 0 ? null : 'SIGKILL', '']);
  const said = stdout.split('\n').slice(0, -1);
  return { path, directory, said, calls: Number(said.at(-1)?.split(' ')[1]) };
}

describe('an agent that dies at any call into the filesystem', () => {
  it('leaves a journal with all that it had promised, also where it was just written anew', async () => {
    const { calls, path } = await promised(0);
    // It was written anew meanwhile: some of the steps are gone.
    expect((await readFile(path, 'utf8')).match(/"step"/g)?.length).toBeLessThan(24);
    for (let dieAt = 1; dieAt <= calls; dieAt += 1) {
      const run = await promised(dieAt);
      const journal = await openJournal({ path: run.path, bootId: 'boot' });
      expect(journal.warnings).toEqual([]);
      const open = journal.openOperations().map(({ operationId }) => operationId);
      const known = [
        ...open.map((id) => `${id} started`),
        ...journal.outcomes().map(({ operationId }) => `${operationId} succeeded`),
      ];
      expect(known).toEqual(expect.arrayContaining(run.said));
      // At most the two whose answers it did not live to give.
      expect(known.length).toBeLessThanOrEqual(run.said.length + 2);
      expect(await readdir(run.directory)).toEqual(['journal.jsonl']);
      await journal.close();
    }
  });
});

describe('a disk that is full', () => {
  it('fails transitions only for as long as it is', async () => {
    const disk = await mkdtemp(join(work, 'disk-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk]);
    try {
      const path = join(disk, 'journal.jsonl');
      const filler = join(disk, 'filler');
      const journal = await openJournal({ path, bootId: 'boot' });
      await journal.append(transition('before', 'started'));
      await expect(writeFile(filler, Buffer.alloc(65_536, 1))).rejects.toMatchObject({ code: 'ENOSPC' });
      // A page of the file may have room left: sooner or later half a line is written.
      const full: string[] = [];
      const fill = async () => {
        for (let n = 0; n < 100; n += 1) {
          full.push(`full-${n}`);
          await journal.append(transition(`full-${n}`, 'started'));
        }
      };
      const failed = { code: 'INTERNAL', message: expect.stringContaining('ENOSPC') };
      await expect(fill()).rejects.toMatchObject(failed);
      await expect(journal.append(transition('lost', 'started'))).rejects.toMatchObject(failed);
      await truncate(filler, 0);
      await journal.append(transition('after', 'started'));
      const ids = ['before', ...full.slice(0, -1), 'after'];
      expect(journal.openOperations().map(({ operationId }) => operationId)).toEqual(ids);
      await journal.close();
      const next = await openJournal({ path, bootId: 'boot' });
      expect(next.warnings).toEqual([]);
      expect(next.openOperations().map(({ operationId }) => operationId)).toEqual(ids);
      await next.close();
    } finally {
      execFileSync('umount', ['--lazy', disk]);
    }
  });
});
