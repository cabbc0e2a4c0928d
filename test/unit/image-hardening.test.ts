import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

/** What is taken from the Debian roots that images are made of. */
const IMAGES = resolve(import.meta.dirname, '../../deploy/images');
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'image-root-'));
});
afterEach(() => rmSync(root, { recursive: true }));

function put(path: string, mode: number, content = ''): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
  chmodSync(join(root, path), mode);
}
function directory(path: string, mode: number): void {
  mkdirSync(join(root, path), { recursive: true });
  chmodSync(join(root, path), mode);
}
const modeOf = (path: string) => statSync(join(root, path)).mode & 0o7777;
const harden = () => execFileSync(join(IMAGES, 'harden-root.sh'), [root], { encoding: 'utf8', stdio: 'pipe' });

describe('harden-root.sh', () => {
  it('takes set-user-id and set-group-id bits, and says from what', () => {
    put('usr/bin/su', 0o4755);
    put('usr/bin/chage', 0o2755);
    put('usr/bin/ls', 0o755);
    directory('var/mail', 0o2775);
    directory('tmp', 0o1777);
    const said = harden().trim().split('\n').sort();
    expect(said).toEqual(['-rwsr-xr-x /usr/bin/su', '-rwxr-sr-x /usr/bin/chage', 'drwxrwsr-x /var/mail'].sort());
    expect(['usr/bin/su', 'usr/bin/chage', 'usr/bin/ls', 'var/mail', 'tmp'].map(modeOf)).toEqual([
      0o755, 0o755, 0o755, 0o775, 0o1777,
    ]);
    expect(harden()).toBe('');
  });

  it.each(['etc/open', 'var/open directory'])('refuses a root where everybody may write to %s', (path) => {
    if (path.includes('directory')) directory(path, 0o777);
    else put(path, 0o666);
    expect(harden).toThrow(
      `everybody may write to these: ${path.includes('directory') ? 'drwxrwxrwx' : '-rw-rw-rw-'} /${path}`,
    );
  });

  it('does not look at devices, which the runtime has its own of', () => {
    put('dev/null', 0o666);
    expect(harden()).toBe('');
  });

  it('leaves no source whose lists need not be of today', () => {
    put(
      'etc/apt/sources.list',
      0o644,
      'deb http://a/debian trixie main\ndeb [check-valid-until=no] http://a/debian sid main\n',
    );
    put(
      'etc/apt/sources.list.d/snapshot.list',
      0o644,
      'deb [signed-by=/k.gpg check-valid-until=no] http://a sid main\n',
    );
    harden();
    const read = (path: string) => readFileSync(join(root, path), 'utf8');
    expect(read('etc/apt/sources.list')).toBe('deb http://a/debian trixie main\ndeb http://a/debian sid main\n');
    expect(read('etc/apt/sources.list.d/snapshot.list')).toBe('deb [signed-by=/k.gpg] http://a sid main\n');
  });
});

describe.each(['make-root.sh', 'install-packages.sh'])('%s', (script) => {
  const text = readFileSync(join(IMAGES, script), 'utf8');

  it('hardens what it made', () => {
    expect(text).toMatch(/\$here\/harden-root\.sh"/);
  });

  it('lets apt take lists that are not of today of single sources alone', () => {
    expect(text).not.toMatch(/Check-Valid-Until/);
    expect(text).toContain('check-valid-until=no');
  });
});
