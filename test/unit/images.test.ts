import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { VERSION } from '../../contract/version.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const IMAGES = join(ROOT, 'deploy/images');
const read = (path: string) => readFileSync(join(IMAGES, path), 'utf8');
/** Each directory with a Dockerfile is an image. */
const images = readdirSync(IMAGES).filter((name) => existsSync(join(IMAGES, name, 'Dockerfile')));
const versions = new Map([...read('versions.env').matchAll(/^(\w+)=(.*)$/gm)].map(([, key, value]) => [key, value]));

/** The instructions of a Dockerfile's last stage, without the arguments of FROM. */
function lastStage(dockerfile: string): { instruction: string; rest: string }[] {
  const stage = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '));
  return [...stage.matchAll(/^([A-Z]+) (.*)$/gm)].map(([, instruction = '', rest = '']) => ({ instruction, rest }));
}

function labelsOf(dockerfile: string): Record<string, string> {
  const labels = lastStage(dockerfile).filter(({ instruction }) => instruction === 'LABEL');
  return Object.fromEntries(labels.map(({ rest }) => /^([^=]+)="(.*)"$/.exec(rest)?.slice(1) as [string, string]));
}

describe('the directory of images', () => {
  it('has those that are shipped', () => {
    expect(images).toEqual(expect.arrayContaining(['agent', 'operator', 'placeholder']));
  });

  it.each(images)('has all that the scripts ask of %s', (image) => {
    const files = readdirSync(join(IMAGES, image));
    expect(files).toEqual(
      expect.arrayContaining(['Dockerfile', 'Dockerfile.dockerignore', 'image.json', 'install.sh']),
    );
  });

  it.each(images)('has one base for all: the Dockerfile of %s has that of versions.env', (image) => {
    expect(/^ARG BASE=(.*)$/m.exec(read(`${image}/Dockerfile`))?.[1]).toBe(versions.get('BASE_IMG'));
    expect(versions.get('BASE_IMG')).toContain(versions.get('DEBIAN_RELEASE'));
  });

  it.each(images)('gives the build of %s what it copies, and nothing that is not there', (image) => {
    const allowed = [...read(`${image}/Dockerfile.dockerignore`).matchAll(/^!(.*)$/gm)].map(([, path = '']) => path);
    const missing = allowed.filter((path) => !path.includes('*') && !existsSync(join(ROOT, path)));
    expect(missing).toEqual([]);
    const dockerfile = read(`${image}/Dockerfile`);
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths = '']) =>
      paths.split(' '),
    );
    const covered = (path: string) => path === '.' || allowed.some((one) => path === one || path.startsWith(`${one}/`));
    expect(copied.length).toBeGreaterThan(0);
    expect(copied.filter((path) => !covered(path))).toEqual([]);
    // The programs that build.mjs bundles, with what they import.
    expect(allowed).toEqual(
      expect.arrayContaining(['agent', 'operator', 'snapshotctl', 'contract', 'kube', 'deploy/images']),
    );
  });

  it.each(images)('says in image.json of %s what its Dockerfile says, and the version of this package', (image) => {
    const { Labels } = JSON.parse(read(`${image}/image.json`)) as { Labels: Record<string, string> };
    expect(labelsOf(read(`${image}/Dockerfile`))).toMatchObject(Labels);
    const said = Object.entries(Labels).filter(([name]) => name.endsWith('version'));
    expect(said.map(([, version]) => version)).toEqual([VERSION]);
  });
});

describe("the operator's image", () => {
  it('runs as nobody in particular', () => {
    const { User } = JSON.parse(read('operator/image.json')) as { User: string };
    expect(User).toBe('65532:65532');
    expect(lastStage(read('operator/Dockerfile'))).toContainEqual({ instruction: 'USER', rest: User });
  });
});

describe("the placeholder's Dockerfile", () => {
  const dockerfile = read('placeholder/Dockerfile');

  it('runs nothing in its base, and changes nothing of how that is started', () => {
    const used = new Set(lastStage(dockerfile).map(({ instruction }) => instruction));
    expect([...used].sort()).toEqual(['ARG', 'COPY', 'FROM', 'LABEL']);
    expect(dockerfile).toMatch(/^FROM \$\{PLACEHOLDER_BASE_IMG\} AS workload$/m);
    expect(lastStage(dockerfile)[0]).toEqual({ instruction: 'FROM', rest: 'workload' });
  });

  it('names the base, and does not say the digest of the base of the base', () => {
    expect(labelsOf(dockerfile)).toMatchObject({
      'org.opencontainers.image.base.name': expect.stringMatching(/^\$\{PLACEHOLDER_BASE_IMG\}$/),
      'org.opencontainers.image.base.digest': '',
    });
  });
});
