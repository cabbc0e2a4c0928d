import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { clean } from '../../../operator/cleanup/clean.ts';
import { eventually } from '../kube/server.ts';

let top: string;
let basePath: string;
beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'cleanup-'));
  basePath = join(top, 'volume');
  mkdirSync(basePath);
});
afterEach(() => rmSync(top, { recursive: true }));

function artifact(id: string, version: string, namespace = 'demo'): string {
  const directory = join(basePath, id, 'versions', version);
  mkdirSync(join(directory, 'criu'), { recursive: true });
  writeFileSync(join(directory, 'criu/pages-1.img'), 'x'.repeat(100));
  writeFileSync(join(directory, 'manifest.yaml'), `formatVersion: 1\nsource: {\n   "namespace": "${namespace}"\n  }\n`);
  return directory;
}
function mark(path: string, ageSeconds = 0): string {
  const file = join(basePath, path);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, '{}\n');
  const time = Date.now() / 1_000 - ageSeconds;
  utimesSync(file, time, time);
  return file;
}
const said: string[] = [];
const run = (more: object = {}) =>
  clean({
    basePath,
    checkpointId: 'one',
    namespace: 'demo',
    waitMs: 0,
    pollMs: 10,
    say: (line) => said.push(line),
    ...more,
  });

describe('the cleanup', () => {
  it('removes a checkpoint with all its versions and marks, and nothing beside it', async () => {
    artifact('one', '1');
    artifact('one', '2');
    artifact('two', '1');
    mark('one/readers/1@used');
    mark('one/readers/1/dead', 3_600);
    expect(await run()).toEqual({ result: 'clean', kept: [] });
    expect(readdirSync(basePath)).toEqual(['two']);
    expect(existsSync(join(basePath, 'two/versions/1/manifest.yaml'))).toBe(true);
  });

  it('is done where there is nothing, and when it is asked twice', async () => {
    expect(await run()).toEqual({ result: 'clean', kept: [] });
    expect(readdirSync(basePath)).toEqual([]);
  });

  it.each([
    ['reader op-1 of version 1', 'one/readers/1/op-1'],
    ['maker u-1', 'one/versions/tmp/u-1.owner'],
  ])('leaves everything in its place while there is %s', async (user, path) => {
    const place = artifact('one', '1');
    mark(path);
    expect(await run()).toEqual({ result: 'in-use', users: [user] });
    expect(existsSync(join(place, 'criu/pages-1.img'))).toBe(true);
  });

  it('waits for a reader, and goes on when it has gone', async () => {
    artifact('one', '1');
    const reader = mark('one/readers/1/op-1');
    const running = run({ waitMs: 20_000 });
    await eventually(() => expect(said.at(-1)).toContain('op-1'));
    rmSync(reader);
    expect(await running).toEqual({ result: 'clean', kept: [] });
    expect(readdirSync(basePath)).toEqual([]);
  });

  it('keeps what another namespace made', async () => {
    artifact('one', '1', 'other');
    artifact('one', '2');
    mark('one/versions/tmp/x@3.old');
    expect(await run()).toEqual({ result: 'clean', kept: ['1'] });
    expect(readdirSync(join(basePath, 'one/versions')).sort()).toEqual(['1', 'tmp']);
    expect(readdirSync(join(basePath, 'one/versions/tmp'))).toEqual(['x@3.old']);
  });

  it('removes what is half there, and what an earlier try moved aside', async () => {
    rmSync(join(artifact('one', '1'), 'manifest.yaml'));
    mkdirSync(join(basePath, 'one/versions/tmp/op@2.deleted/criu'), { recursive: true });
    expect(await run()).toEqual({ result: 'clean', kept: [] });
    expect(readdirSync(basePath)).toEqual([]);
  });

  describe('on a volume that somebody prepared', () => {
    const outside = () => join(top, 'outside');
    beforeEach(() => {
      mkdirSync(join(outside(), 'tmp'), { recursive: true });
      writeFileSync(join(outside(), 'precious'), 'x');
    });
    afterEach(() => expect(readdirSync(outside()).sort()).toEqual(['precious', 'tmp']));

    it('removes links themselves, wherever they lie in the checkpoint', async () => {
      const place = artifact('one', '1');
      symlinkSync(outside(), join(place, 'criu/link'));
      symlinkSync(outside(), join(basePath, 'one/versions/2'));
      symlinkSync(join(outside(), 'precious'), join(place, 'rootfs'));
      expect(await run()).toEqual({ result: 'clean', kept: [] });
      expect(readdirSync(basePath)).toEqual([]);
    });

    it.each(['one', 'one/versions', 'one/versions/tmp', 'one/readers'])(
      'refuses a link in the place of %s',
      async (path) => {
        mkdirSync(join(basePath, path, '..'), { recursive: true });
        if (path !== 'one') artifactBeside(path);
        symlinkSync(outside(), join(basePath, path));
        await expect(run()).rejects.toThrow(/ELOOP|ENOTDIR/);
      },
    );

    function artifactBeside(path: string): void {
      if (path === 'one/versions/tmp' || path === 'one/readers') artifact('one', '1');
    }

    it('reads no record through a link, and waits for no pipe', async () => {
      const place = artifact('one', '1');
      rmSync(join(place, 'manifest.yaml'));
      symlinkSync(join(outside(), 'precious'), join(place, 'manifest.yaml'));
      const pipe = artifact('one', '2');
      rmSync(join(pipe, 'manifest.yaml'));
      expect(spawnSync('mkfifo', [join(pipe, 'manifest.yaml')]).status).toBe(0);
      expect(await run()).toEqual({ result: 'clean', kept: [] });
      expect(readdirSync(basePath)).toEqual([]);
    });

    it.each(['..', '.', '', '../outside', 'a/b', 'tmp', '.hidden'])('refuses the id %j', async (checkpointId) => {
      await expect(run({ checkpointId })).rejects.toThrow(RangeError);
    });
  });
});

describe('the program', () => {
  const start = (env: Record<string, string>) =>
    spawnSync(process.execPath, ['--import', 'tsx', 'operator/cleanup/main.ts'], {
      env: { PATH: process.env['PATH'] ?? '', ...env },
      encoding: 'utf8',
    });

  it('does what its environment says, and wants all of it', () => {
    artifact('one', '1');
    const env = { CHECKPOINT_BASE_PATH: basePath, CHECKPOINT_ID: 'one', CHECKPOINT_NAMESPACE: 'demo' };
    expect(start({ CHECKPOINT_BASE_PATH: basePath, CHECKPOINT_ID: 'one' })).toMatchObject({ status: 2 });
    expect(start({ ...env, CHECKPOINT_ID: '..' })).toMatchObject({ status: 1 });
    expect(existsSync(join(basePath, 'one'))).toBe(true);
    expect(start(env)).toMatchObject({ status: 0, stderr: '' });
    expect(existsSync(join(basePath, 'one'))).toBe(false);
  });
});
