import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readBase } from '../../deploy/images/archive/base.ts';

/** What a placeholder is put upon: images in archives of either form, and root directories. */
const IMAGES = resolve(import.meta.dirname, '../../deploy/images');
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'image-base-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function put(path: string, content: unknown): string {
  const file = join(directory, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content));
  return file;
}

const config = (architecture: string) => ({
  architecture,
  os: 'linux',
  rootfs: { type: 'layers', diff_ids: ['sha256:1'] },
});

describe('the base image', () => {
  it('is read from an archive of docker save', () => {
    put('c.json', config('amd64'));
    put('manifest.json', [{ Config: 'c.json', RepoTags: ['r/a:1'], Layers: ['x/layer.tar'] }]);
    expect(readBase(directory)).toEqual({
      name: 'r/a:1',
      config: config('amd64'),
      layers: [join(directory, 'x/layer.tar')],
    });
  });

  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: 'sha256:1a' };
  const manifest = (digest: string) => ({ config: { mediaType: 'c', digest }, layers: [layer] });
  const base = { name: 'r/b:2', config: config('amd64'), layers: ['blobs/sha256/1a'] };
  const read = () => {
    const { layers, ...rest } = readBase(directory);
    return { ...rest, layers: layers.map((path) => path.slice(directory.length + 1)) };
  };

  it('is read from an OCI layout', () => {
    const annotations = { 'io.containerd.image.name': 'r/b:2' };
    put('index.json', {
      manifests: [{ mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: 'sha256:aa', annotations }],
    });
    put('blobs/sha256/aa', manifest('sha256:bb'));
    put('blobs/sha256/bb', config('amd64'));
    expect(read()).toEqual(base);
  });

  it('is that for amd64, where there are several architectures', () => {
    const annotations = { 'org.opencontainers.image.ref.name': 'r/b:2' };
    put('index.json', {
      manifests: [{ mediaType: 'application/vnd.oci.image.index.v1+json', digest: 'sha256:ii', annotations }],
    });
    const one = (architecture: string, digest: string) => ({ mediaType: 'm', digest, platform: { architecture } });
    put('blobs/sha256/ii', { manifests: [one('arm64', 'sha256:00'), one('amd64', 'sha256:aa')] });
    put('blobs/sha256/aa', manifest('sha256:bb'));
    put('blobs/sha256/bb', config('amd64'));
    expect(read()).toEqual(base);
  });

  it('must be one, and an image', () => {
    put('manifest.json', [
      { Config: 'a', Layers: [] },
      { Config: 'b', Layers: [] },
    ]);
    expect(() => readBase(directory)).toThrow(
      'the archive has 2 images for amd64, and the base must be one: save it alone',
    );
    rmSync(join(directory, 'manifest.json'));
    expect(() => readBase(directory)).toThrow(/neither manifest.json nor index.json/);
  });

  it('of another architecture is refused by name', () => {
    put('c.json', config('arm64'));
    put('manifest.json', [{ Config: 'c.json', RepoTags: null, Layers: [] }]);
    const image = put('image.json', {});
    const args = ['--out', join(directory, 'out'), '--name', 'n', '--image', image, '--base', directory];
    expect(refusal('node', '--import', 'tsx', join(IMAGES, 'archive/main.ts'), ...args)).toBe(
      'archive: the base image is for linux/arm64, and images are made for linux/amd64 only',
    );
  });
});

function refusal(program: string, ...args: readonly string[]): string {
  try {
    execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    return (error as { stderr: string }).stderr.trim();
  }
  throw new Error(`${program} ${args.join(' ')} did not fail`);
}

/** A program that says for which machine it is, by its first bytes. */
function program(path: string, machine: number): void {
  const bytes = Buffer.alloc(128);
  bytes.write('\x7fELF', 'latin1');
  bytes.writeUInt16LE(machine, 18);
  chmodSync(put(path, bytes), 0o755);
}

describe('the root directory of a base image', () => {
  const check = join(IMAGES, 'check-base.sh');

  it('is taken where its programs are for amd64, and where there is none', () => {
    execFileSync(check, [directory], { stdio: 'pipe' });
    program('usr/bin/x', 62);
    chmodSync(put('usr/bin/script', `#!/bin/sh\n${'#'.repeat(100)}\n`), 0o755);
    execFileSync(check, [directory], { stdio: 'pipe' });
  });

  it.each([
    ['arm64', 183],
    ['riscv64', 243],
    ['machine 258', 258],
  ])('is refused by name where they are for %s', (name, machine) => {
    program('opt/worker', machine);
    expect(refusal(check, directory)).toBe(
      `check-base.sh: the base image is for ${name} (/opt/worker), and images are made for amd64 only`,
    );
  });
});

it('another architecture of the machine that builds is refused by name', () => {
  const check = join(IMAGES, 'check-architecture.sh');
  execFileSync(check, ['amd64']);
  expect(refusal(check, 'arm64')).toBe('check-architecture.sh: this is arm64, and images are made for amd64 only');
  // Both builds ask it before they begin.
  expect(readFileSync(join(IMAGES, 'make-image.sh'), 'utf8')).toContain(
    'check-architecture.sh" "$(dpkg --print-architecture)"',
  );
  expect(readFileSync(join(IMAGES, 'placeholder/Dockerfile'), 'utf8')).toContain('check-architecture.sh "$');
});
