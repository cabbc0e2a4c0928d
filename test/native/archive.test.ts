import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { lowerLayer, startOverlay, tree } from './overlay-container.ts';
import { failure, helperPath, run, scratch, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

let lower: string;
beforeAll(() => {
  lower = lowerLayer();
});

/** Where a capture writes to. */
function outputs() {
  const directory = scratch();
  const tar = join(directory, 'diff.tar');
  const removed = join(directory, 'removed.json');
  return { tar, removed, args: ['--tar', tar, '--removed', removed] };
}

/** An archive and a list written by hand. `entries` is Python: calls of file(), link(), … on a tarfile `t`. */
function crafted(entries: string, removed = '{"removed":[],"opaque":[]}') {
  const files = outputs();
  const program = `
import io, sys, tarfile
t = tarfile.open(sys.argv[1], 'w', format=tarfile.PAX_FORMAT)
def add(name, type=tarfile.REGTYPE, content=b'', **more):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = type, len(content), 0o644
    for key, value in more.items(): setattr(info, key, value)
    t.addfile(info, io.BytesIO(content))
def file(name, content=b'planted'): add(name, content=content)
def directory(name): add(name, tarfile.DIRTYPE, mode=0o755)
def symlink(name, target): add(name, tarfile.SYMTYPE, linkname=target)
def link(name, target): add(name, tarfile.LNKTYPE, linkname=target)
${entries}
t.close()`;
  execFileSync('python3', ['-c', program, files.tar]);
  writeFileSync(files.removed, removed);
  return files;
}

describe('what a workload did to its root filesystem', () => {
  let source: Awaited<ReturnType<typeof startOverlay>>;
  let before: ReturnType<typeof tree>;
  let changed: ReturnType<typeof tree>;
  const files = outputs();
  beforeAll(async () => {
    source = await startOverlay(lower);
    before = tree('show', source.root);
    tree('change', source.root);
    changed = tree('show', source.root);
    const result = await verb(['capture', '--upper', source.upper, ...files.args]);
    expect(result).toMatchObject({ removed: 3, opaque: 2, skipped: 1 });
    // Everything in the upper layer but the whiteouts and the socket.
    const upper = execFileSync('find', [source.upper, '-printf', '.'], { encoding: 'utf8' }).length;
    expect(result['entries']).toBe(upper - 4);
    expect(upper).toBeGreaterThan(5100);
    expect(result['bytes']).toBeGreaterThan(9_000_000);
    expect(result['bytes']).toBeLessThan(12_000_000);
  });

  /** What cannot come back: the socket, which CRIU binds again, and the device node, which is skipped on purpose. */
  const restorable = (files: ReturnType<typeof tree>) =>
    files.filter(({ path }) => path !== 'device' && path !== 'sticky/socket');

  test('lists what was removed, and what hides the lower directory', () => {
    expect(JSON.parse(readFileSync(files.removed, 'utf8'))).toEqual({
      removed: ['%25-in lower', 'etc/issue.net', 'gone'],
      // What became a directory is one too: the overlay marks each that is made where the lower layer has something.
      opaque: ['becomes-directory', 'opaque'],
    });
  });

  test('makes the same archive of the same tree', async () => {
    const again = outputs();
    await verb(['capture', '--upper', source.upper, ...again.args]);
    expect(readFileSync(again.tar).equals(readFileSync(files.tar))).toBe(true);
    expect(readFileSync(again.removed, 'utf8')).toBe(readFileSync(files.removed, 'utf8'));
  });

  test('comes back in another container of the same image, in every respect', async () => {
    const placeholder = await startOverlay(lower);
    // The root directory itself is as old as its container.
    expect(tree('show', placeholder.root).slice(1)).toEqual(before.slice(1));
    const result = await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(result).toMatchObject({ skipped: 1 });
    const after = tree('show', placeholder.root);
    expect(restorable(after)).toEqual(restorable(changed));
    expect(after.some(({ path }) => path === 'device' || path === 'sticky/socket')).toBe(false);
    // The tree was compared with itself if these are not in it.
    const found = new Map(after.map((file) => [file['path'], file]));
    expect(found.get('capable')?.['xattrs']).toMatchObject({
      'security.capability': expect.any(String),
      'trusted.mine': '0001',
    });
    expect(found.get('acl')?.['xattrs']).toHaveProperty(['system.posix_acl_access']);
    expect(found.get('acls/without')?.['xattrs']).toEqual({});
    expect(found.get('zz-link')?.['link']).toBe('links/a');
    expect(found.get('sparse')).toMatchObject({ size: 3 * 2 ** 30 + 17 });
    expect(found.get('sparse')?.['blocks']).toBeLessThan(1000);
    expect(found.get('touched')?.['mtime']).toBe('1234567890123456789');
    expect(found.size).toBeGreaterThan(5100);
  });

  test('comes back where other things lie in the way', async () => {
    const placeholder = await startOverlay(lower);
    tree('conflict', placeholder.root);
    await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(restorable(tree('show', placeholder.root))).toEqual(restorable(changed));
  });

  test('comes back twice: applying it again changes nothing', async () => {
    const placeholder = await startOverlay(lower);
    for (let i = 0; i < 2; i++) await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(restorable(tree('show', placeholder.root))).toEqual(restorable(changed));
  });

  test('comes back behind a read-only root mount, which stays read-only', async () => {
    const placeholder = await startOverlay(lower, { setup: 'busybox mount -o remount,bind,ro /' });
    expect(() => writeFileSync(join(placeholder.root, 'x'), '')).toThrow(/EROFS/);
    await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(restorable(tree('show', placeholder.root))).toEqual(restorable(changed));
    expect(() => writeFileSync(join(placeholder.root, 'x'), '')).toThrow(/EROFS/);
  });

  test('the exclusions keep a path, all that is below it, and what a pattern matches out of both outputs', async () => {
    const kept = outputs();
    const patterns = ['/etc', '/dirs', '*/f', '*many1?/*', '/gon', '/gone'];
    await verb(['capture', '--upper', source.upper, ...kept.args, ...patterns.flatMap((p) => ['--exclude', p])]);
    expect(JSON.parse(readFileSync(kept.removed, 'utf8'))).toEqual({
      removed: ['%25-in lower'],
      opaque: ['becomes-directory', 'opaque'],
    });
    const names = execFileSync('tar', ['tf', kept.tar], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).split('\n');
    expect(names).toEqual(
      expect.arrayContaining(['./', 'mode', 'many10/', 'many1/0', 'becomes-directory/with/depth/']),
    );
    expect(names.filter((name) => /^(etc|dirs)\/|\/f$|^many1[0-9]\/./.test(name))).toEqual([]);
  });

  test('an output that exists is refused', async () => {
    const taken = outputs();
    writeFileSync(taken.tar, 'precious');
    const line = await failure(['capture', '--upper', source.upper, ...taken.args]);
    expect(line).toMatchObject({ step: 'create', errno: 'EEXIST', target: taken.tar });
    expect(readFileSync(taken.tar, 'utf8')).toBe('precious');
  });
});

test.each([
  [
    'a directory that was renamed',
    ',redirect_dir=on',
    (root: string) => execFileSync('mv', [`${root}/keep`, `${root}/moved`]),
  ],
  [
    'a file of which only the metadata was copied',
    ',metacopy=on',
    (root: string) => execFileSync('chmod', ['600', `${root}/mode`]),
  ],
])('capture refuses %s: the layer alone does not say what is in it', async (_name, options, change) => {
  const source = await startOverlay(lower, { options });
  change(source.root);
  const line = await failure(['capture', '--upper', source.upper, ...outputs().args]);
  expect(line).toMatchObject({ code: 'OVERLAY_REDIRECT' });
});

test('a mount of the container is captured alone, without what is mounted on it, and comes back in another one', async () => {
  const setup = 'busybox mount -t tmpfs tmpfs /volume';
  const source = await startOverlay(lower, {
    setup: `${setup}; busybox mkdir /volume/sub; busybox mount -t tmpfs tmpfs /volume/sub`,
  });
  writeFileSync(join(source.root, 'volume/file'), 'in the volume');
  writeFileSync(join(source.root, 'volume/sub/hidden'), 'on another mount');
  execFileSync('mknod', [join(source.root, 'volume/zero'), 'c', '0', '0']);
  const server = createServer().listen(join(source.root, 'volume/socket'));
  await new Promise((done) => server.once('listening', done));
  const files = outputs();
  const captured = await verb(['capture', ...source.target, '--mount', '/volume', ...files.args]);
  server.close();
  expect(captured).toEqual({ entries: 4, bytes: 13, removed: 0, opaque: 0, skipped: 1 });
  expect(readFileSync(files.removed, 'utf8')).toBe('{"removed":[],"opaque":[]}\n');
  const placeholder = await startOverlay(lower, { setup });
  const applied = await verb(['apply', ...placeholder.target, '--mount', '/volume', '--tar', files.tar]);
  expect(applied).toEqual({ entries: 3, removed: 0, skipped: 1 });
  expect(readdirSync(join(placeholder.root, 'volume')).sort()).toEqual(['file', 'sub']);
  expect(readFileSync(join(placeholder.root, 'volume/file'), 'utf8')).toBe('in the volume');
  expect(existsSync(join(placeholder.upper, 'volume'))).toBe(false);
});

describe('a hostile target', () => {
  test('planted symlinks lead nowhere: neither in the container nor outside does anything change', async () => {
    const outside = scratch();
    writeFileSync(join(outside, 'issue.net'), 'outside');
    writeFileSync(join(outside, 'passwd'), 'outside');
    const placeholder = await startOverlay(lower);
    // The same path inside: a following apply in a chroot would come there.
    mkdirSync(join(placeholder.root, outside), { recursive: true });
    writeFileSync(join(placeholder.root, outside, 'issue.net'), 'inside');
    writeFileSync(join(placeholder.root, outside, 'passwd'), 'inside');
    execFileSync('rm', ['-rf', join(placeholder.root, 'etc')]);
    symlinkSync(outside, join(placeholder.root, 'etc'));
    symlinkSync(join(outside, 'passwd'), join(placeholder.root, 'a-file'));
    const files = crafted(
      `directory('etc'); file('etc/passwd'); file('a-file'); link('etc/again', 'etc/passwd'); directory('etc/sub')`,
      '{"removed":["etc/issue.net","a-file/x"],"opaque":["etc"]}',
    );
    expect(await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args])).toEqual({
      entries: 5,
      removed: 0,
      skipped: 0,
    });
    for (const place of [outside, join(placeholder.root, outside)]) {
      expect(readdirSync(place).sort()).toEqual(['issue.net', 'passwd']);
      for (const name of ['issue.net', 'passwd'])
        expect(readFileSync(join(place, name), 'utf8')).toBe(place === outside ? 'outside' : 'inside');
    }
    expect(readdirSync(join(placeholder.root, 'etc')).sort()).toEqual(['again', 'passwd', 'sub']);
    expect(readFileSync(join(placeholder.root, 'etc/passwd'), 'utf8')).toBe('planted');
    expect(readFileSync(join(placeholder.root, 'a-file'), 'utf8')).toBe('planted');
  });

  test('what is mounted in the container is not reached', async () => {
    const placeholder = await startOverlay(lower, {
      setup: 'busybox mount -t tmpfs tmpfs /data; busybox touch /data/precious',
    });
    const files = crafted(
      `directory('data'); file('data/precious'); file('data/more')`,
      '{"removed":["data/gone"],"opaque":["data"]}',
    );
    await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(readdirSync(join(placeholder.root, 'data'))).toEqual(['precious']);
    expect(readFileSync(join(placeholder.root, 'data/precious'), 'utf8')).toBe('');
    expect(readFileSync(join(placeholder.upper, 'data/more'), 'utf8')).toBe('planted');
  });

  test('a mount of the new container that the old one had not stays where it is, and what leads to it', async () => {
    const placeholder = await startOverlay(lower, {
      setup:
        'busybox mkdir -p /srv/volume; busybox mount -t tmpfs tmpfs /srv/volume; busybox touch /srv/volume/precious',
    });
    const files = crafted(
      `directory('srv'); file('srv/volume'); file('srv/beside'); symlink('srv', '/data')`,
      '{"removed":["srv/volume","srv"],"opaque":["srv"]}',
    );
    const keep = ['--keep', '/srv/volume', '--keep', '/proc'];
    expect(await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args, ...keep])).toEqual({
      entries: 2,
      removed: 0,
      skipped: 2,
    });
    expect(readdirSync(join(placeholder.root, 'srv')).sort()).toEqual(['beside', 'volume']);
    expect(readdirSync(join(placeholder.root, 'srv/volume'))).toEqual(['precious']);
    // Without being told, the file takes the place of the directory and the mount is gone: that is what `--keep` is for.
    await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(() => readdirSync(join(placeholder.root, 'srv/volume'))).toThrow();
  });

  test('a file that has other names in a lower layer is not written in place', async () => {
    const placeholder = await startOverlay(lower);
    const files = crafted(`file('pair-one', b'new')`);
    await verb(['apply', ...placeholder.target, '--mount', '/', ...files.args]);
    expect(readFileSync(join(placeholder.root, 'pair-one'), 'utf8')).toBe('new');
    expect(readFileSync(join(placeholder.root, 'pair-two'), 'utf8')).toBe('lower pair-one\n');
    expect(readFileSync(join(lower, 'pair-one'), 'utf8')).toBe('lower pair-one\n');
  });

  test('a mount behind a symlink, and a recycled PID, are refused before anything is touched', async () => {
    const placeholder = await startOverlay(lower);
    symlinkSync('/', join(placeholder.root, 'around'));
    const files = crafted(`file('new')`);
    const behind = await failure(['apply', ...placeholder.target, '--mount', '/around', ...files.args]);
    expect(behind).toMatchObject({ code: 'SYMLINK_REFUSED', errno: 'ELOOP' });
    const recycled = ['--pid', `${placeholder.pid}`, '--start', '1'];
    expect(await failure(['apply', ...recycled, '--mount', '/', ...files.args])).toMatchObject({ code: 'TARGET_GONE' });
    expect(existsSync(join(placeholder.root, 'new'))).toBe(false);
  });
});

describe('a hostile artifact', () => {
  let placeholder: Awaited<ReturnType<typeof startOverlay>>;
  let untouched: ReturnType<typeof tree>;
  beforeAll(async () => {
    placeholder = await startOverlay(lower);
    untouched = tree('show', placeholder.root);
  });
  const apply = (files: { args: string[] }) => ['apply', ...placeholder.target, '--mount', '/', ...files.args];

  test.each([
    ['dot-dot', `file('../escaped')`],
    ['dot-dot inside', `file('keep/../../escaped')`],
    ['dot-dot at the end', `directory('keep/..')`],
    ['an absolute name', `add('/escaped')`],
    ['an empty component', `file('keep//escaped')`],
    ['a dot inside', `file('keep/./escaped')`],
    ['a file as the root', `add('.', content=b'x')`],
    ['a hard link to the outside', `link('escaped', '../../etc/passwd')`],
    ['an absolute hard link', `link('escaped', '/etc/passwd')`],
    ['a component of 256 bytes', `file('n' * 256)`],
    ['a path of 5000 bytes', `file('/'.join(['n' * 99] * 50))`],
  ])('is refused: %s', async (_name, entries) => {
    expect(await failure(apply(crafted(entries)))).toMatchObject({ code: 'BAD_PATH' });
    expect(tree('show', placeholder.root)).toEqual(untouched);
  });

  test.each([
    ['dot-dot', '{"removed":["../x"],"opaque":[]}', 'BAD_PATH'],
    ['dot-dot after a good path', '{"removed":["gone","keep/.."],"opaque":[]}', 'BAD_PATH'],
    ['encoded dot-dot', '{"removed":["%2E%2E/x"],"opaque":[]}', 'BAD_PATH'],
    ['an encoded slash', '{"removed":["gone","%2Fetc"],"opaque":[]}', 'BAD_PATH'],
    ['absolute', '{"removed":["/gone"],"opaque":[]}', 'BAD_PATH'],
    ['empty', '{"removed":["gone",""],"opaque":[]}', 'BAD_PATH'],
    ['the root as opaque', '{"removed":["gone"],"opaque":["."]}', 'BAD_PATH'],
    ['an encoded zero byte', '{"removed":["gone","a%00b"],"opaque":[]}', 'BAD_REMOVED'],
    ['half an escape', '{"removed":["gone","a%4"],"opaque":[]}', 'BAD_REMOVED'],
    ['lower-case hex', '{"removed":["gone","%2e"],"opaque":[]}', 'BAD_REMOVED'],
    ['an escape of JSON', '{"removed":["gone","\\u002e."],"opaque":[]}', 'BAD_REMOVED'],
    ['not an array', '{"removed":"gone","opaque":[]}', 'BAD_REMOVED'],
    ['cut off', '{"removed":["gone"],"opaque":[', 'BAD_REMOVED'],
    ['one list only', '{"removed":["gone"]}', 'BAD_REMOVED'],
    ['something after it', '{"removed":["gone"],"opaque":[]}{}', 'BAD_REMOVED'],
    ['nothing', '', 'BAD_REMOVED'],
  ])('has its list refused as a whole: %s', async (_name, removed, code) => {
    expect(await failure(apply(crafted(`file('new')`, removed)))).toMatchObject({ code });
    expect(tree('show', placeholder.root)).toEqual(untouched);
  });

  test('a symlink in the archive is not followed by later entries', async () => {
    const outside = scratch();
    const target = await startOverlay(lower);
    mkdirSync(join(target.root, outside), { recursive: true });
    const files = crafted(
      `symlink('way', '${outside}'); file('way/through'); symlink('file', '${outside}/f'); file('file')`,
    );
    await verb(['apply', ...target.target, '--mount', '/', ...files.args]);
    expect(readdirSync(outside)).toEqual([]);
    expect(readdirSync(join(target.root, outside))).toEqual([]);
    expect(readFileSync(join(target.root, 'way/through'), 'utf8')).toBe('planted');
    expect(readFileSync(join(target.root, 'file'), 'utf8')).toBe('planted');
  });

  test('a hard link through a symlink is refused', async () => {
    const target = await startOverlay(lower);
    const files = crafted(`symlink('way', '/etc'); link('stolen', 'way/issue')`);
    expect(await failure(['apply', ...target.target, '--mount', '/', ...files.args])).toMatchObject({
      code: 'SYMLINK_REFUSED',
    });
  });

  test('device nodes are skipped, and so is nothing else', async () => {
    const target = await startOverlay(lower);
    const device = `devmajor=8, devminor=0`;
    const files = crafted(
      `add('disk', tarfile.BLKTYPE, ${device}); add('keep/same', tarfile.CHRTYPE, ${device}); add('fifo', tarfile.FIFOTYPE)`,
    );
    const result = await verb(['apply', ...target.target, '--mount', '/', ...files.args]);
    expect(result).toEqual({ entries: 1, removed: 0, skipped: 2 });
    expect(existsSync(join(target.root, 'disk'))).toBe(false);
    expect(statSync(join(target.root, 'keep/same')).isFile()).toBe(true);
    expect(statSync(join(target.root, 'fifo')).isFIFO()).toBe(true);
  });

  test('labels and attributes of the overlay are not taken from it', async () => {
    const target = await startOverlay(lower);
    const names = [
      'security.selinux',
      'security.ima',
      'security.evm',
      'trusted.overlay.opaque',
      'system.other',
      'user.good',
    ];
    const headers = names.map((name) => `'SCHILY.xattr.${name}': 'y'`).join(',');
    const files = crafted(`add('labelled', pax_headers={${headers}})`);
    await verb(['apply', ...target.target, '--mount', '/', ...files.args]);
    const dumped = execFileSync('getfattr', ['-d', '-m', '-', '--absolute-names', join(target.upper, 'labelled')], {
      encoding: 'utf8',
    });
    expect(dumped.split('\n').filter((line) => line.includes('='))).toEqual(['user.good="y"']);
  });

  test('damage is an error line or harmless, never a crash', async () => {
    const good = crafted(
      `directory('d'); file('d/f', b'x' * 3000); symlink('s', 'd/f'); link('l', 'd/f'); add('x', pax_headers={'SCHILY.xattr.user.a': 'b', 'mtime': '1.5'})`,
      '{"removed":["gone"],"opaque":["opaque"]}',
    );
    const target = await startOverlay(lower);
    const archive = readFileSync(good.tar);
    let seed = 12345;
    const random = (below: number) => {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      return Math.floor((seed / 2147483648) * below);
    };
    const codes = new Set<number | null>();
    for (let round = 0; round < 150; round++) {
      const damaged = Buffer.from(archive);
      for (let i = 0; i < 1 + random(6); i++) damaged[random(archive.length - 9000)] = random(256);
      const cut = round % 5 === 0 ? damaged.subarray(0, random(damaged.length)) : damaged;
      writeFileSync(good.tar, cut);
      const result = await run([helperPath, 'apply', ...target.target, '--mount', '/', ...good.args]);
      codes.add(result.code);
      expect([0, 1], result.stderr).toContain(result.code);
      if (result.code === 1) expect(JSON.parse(result.stderr)).toMatchObject({ verb: 'apply' });
    }
    expect([...codes].sort()).toEqual([0, 1]);
  });
});

test.each([
  [['capture', '--upper', '/x', '--tar', '/t']],
  [['capture', '--tar', '/t', '--removed', '/r']],
  [['capture', '--upper', '/x', '--mount', '/m', '--tar', '/t', '--removed', '/r']],
  [['capture', '--mount', '/m', '--tar', '/t', '--removed', '/r']],
  [['apply', '--mount', '/', '--tar', '/t']],
  [['apply', '--pid', '1', '--start', '1', '--tar', '/t']],
])('usage: %j', async (args) => {
  const result = await run([helperPath, ...args]);
  expect(result.code).toBe(2);
  expect(result.stderr).toContain(`usage: snapshot-helper ${args[0]}`);
});
