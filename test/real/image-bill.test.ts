import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VERSION } from '../../contract/version.ts';
import type { Bill } from '../../deploy/images/bill/cyclonedx.ts';
import { AGENT_ROOT, host, REPOSITORY } from './environment/host.ts';

/** The bills of materials as the images get them, compared with what is really there. */
const LAY_OUT = resolve(REPOSITORY, 'deploy/images/lay-out.sh');
const SHARE = 'usr/share/snapshot';
const work = mkdtempSync(join(tmpdir(), 'image-bill-'));
afterAll(() => rmSync(work, { recursive: true }));

interface LaidOut {
  readonly added: string;
  readonly bill: Bill;
  readonly licences: string;
}

async function layOut(image: string, ...root: readonly string[]): Promise<LaidOut> {
  const added = join(work, image);
  await host([LAY_OUT, image, REPOSITORY, added, ...root]);
  const bill = JSON.parse(readFileSync(join(added, SHARE, 'bom.json'), 'utf8')) as Bill;
  return { added, bill, licences: readFileSync(join(added, SHARE, 'licenses.txt'), 'utf8') };
}

let agent: LaidOut;
let placeholder: LaidOut;
beforeAll(async () => {
  agent = await layOut('agent', AGENT_ROOT);
  placeholder = await layOut('placeholder');
});

/** The place of a package in the path of one of its files. */
const PACKAGE = /node_modules\/(?:.*\/node_modules\/)?(?:@[^/]+\/)?[^/]+(?=\/)/;

function purlOf(place: string): string {
  const text = readFileSync(join(REPOSITORY, place, 'package.json'), 'utf8');
  const { name, version } = JSON.parse(text) as { name: string; version: string };
  return `pkg:npm/${name.replace('@', '%40')}@${version}`;
}

const sorted = (values: Iterable<string>) => [...values].sort();
const components = ({ bill }: LaidOut, kind: string) =>
  bill.components.filter(({ purl }) => purl?.startsWith(`pkg:${kind}/`));
const piecesOf = ({ bill }: LaidOut, program: string) =>
  bill.dependencies.find(({ ref }) => ref === `${program}@${VERSION}`)?.dependsOn ?? [];
const nameIn = (purl: string) => decodeURIComponent(/^pkg:\w+\/(?:debian\/)?(.+)@/.exec(purl)?.[1] ?? '');

/** Packages of which the linker took something, said by the symbols that are in a program: one that only this library defines. */
const MARKS: Readonly<Record<string, string>> = {
  'libarchive-dev': 'archive_read_new',
  'libssl-dev': 'EVP_EncryptInit_ex',
  'zlib1g-dev': 'inflate',
  'libbz2-dev': 'BZ2_bzDecompress',
  'liblzma-dev': 'lzma_code',
  'libzstd-dev': 'ZSTD_decompressStream',
  'liblz4-dev': 'LZ4_decompress_safe',
  'libxml2-dev': 'xmlReaderForIO',
  'nettle-dev': 'nettle_md5_init',
  'libacl1-dev': 'acl_get_file',
  'libattr1-dev': 'attr_copy_file',
  'libc6-dev': '__libc_start_main',
};

async function symbolsOf(program: string): Promise<Set<string>> {
  const listed = await host(['nm', '--defined-only', '--format=posix', join(REPOSITORY, 'native/build', program)]);
  return new Set(listed.split('\n').map((line) => line.split(' ')[0] ?? ''));
}

describe("the agent's bill", () => {
  test('has every package of its Debian root, with its version, and no other', async () => {
    const status = readFileSync(join(AGENT_ROOT, 'var/lib/dpkg/status'), 'utf8').trim().split('\n\n');
    const field = (entry: string, name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(entry)?.[1];
    const installed = status.map((entry) => `${field(entry, 'Package')} ${field(entry, 'Version')}`);
    // Packages of this machine that are linked into programs are pieces of these, and of no image.
    const direct = new Set(agent.bill.dependencies.find(({ ref }) => ref.startsWith('image:'))?.dependsOn);
    const listed = components(agent, 'deb').filter((one) => direct.has(one['bom-ref']));
    expect(sorted(listed.map(({ name, version }) => `${name} ${version}`))).toEqual(sorted(installed));
  });

  test.each(['snapshot-agent', 'snapshotctl'])(
    'has every npm package that the bundle %s has parts of, and no other',
    (program) => {
      const directory = join(REPOSITORY, 'dist', program.replace('snapshot-', ''));
      const { sources } = JSON.parse(readFileSync(join(directory, `${program}.mjs.map`), 'utf8')) as {
        sources: string[];
      };
      const places = new Set(sources.flatMap((source) => PACKAGE.exec(source)?.[0] ?? []));
      // Some packages are bundles themselves, and say that they are made from files that they do not have.
      const found = [...places].filter((place) => existsSync(join(REPOSITORY, place, 'package.json'))).map(purlOf);
      const pieces = piecesOf(agent, program);
      expect(found.length).toBeGreaterThan(0);
      expect(found.filter((purl) => !pieces.includes(purl))).toEqual([]);
      const scopes = new Set([...places].map((place) => place.replace(/\/[^/]+$/, '')));
      const unseen = pieces.filter((purl) => !found.includes(purl));
      expect(unseen.filter((purl) => !scopes.has(`node_modules/${nameIn(purl).replace(/\/.*$/, '')}`))).toEqual([]);
    },
  );

  test.each(['snapshot-helper', 'snapshot-cuda'])(
    'has the libraries that are linked into %s, and no other',
    async (program) => {
      const symbols = await symbolsOf(program);
      const pieces = piecesOf(agent, program).map(nameIn);
      const static_ = program === 'snapshot-helper';
      for (const [name, symbol] of Object.entries(MARKS)) {
        const linked = static_ ? symbols.has(symbol) : name === 'libc6-dev';
        expect(pieces.includes(name), `${name} (${symbol}) in ${program}`).toBe(linked);
      }
      const known = new Set(Object.keys(MARKS));
      expect(pieces.filter((name) => !known.has(name) && !/^libgcc-\d+-dev$/.test(name))).toEqual([]);
    },
  );

  test('has our programs, all that were laid out', () => {
    const ours = agent.bill.components.filter(({ type, version }) => type === 'application' && version === VERSION);
    expect(sorted(ours.map(({ name }) => name))).toEqual([
      'snapshot-agent',
      'snapshot-cuda',
      'snapshot-helper',
      'snapshotctl',
    ]);
  });
});

test("the placeholder's bill has what is added, and nothing of the base", () => {
  expect(sorted(placeholder.bill.components.map(({ name }) => name.replace(/-\d+-/, '-')))).toEqual([
    'libc6-dev',
    'libgcc-dev',
    'snapshot-standby',
  ]);
});

describe.each(['agent', 'placeholder'] as const)('the bill of the %s', (image) => {
  const laidOut = () => (image === 'agent' ? agent : placeholder);

  test('has the fields that CycloneDX requires, and names each thing once', () => {
    const { bill } = laidOut();
    expect(bill).toMatchObject({ bomFormat: 'CycloneDX', specVersion: '1.5', version: 1 });
    const references = bill.components.map((one) => one['bom-ref']);
    expect(new Set(references).size).toBe(references.length);
    for (const { type, name, version } of bill.components) {
      expect(['application', 'library', 'operating-system']).toContain(type);
      expect(name).not.toBe('');
      expect(version).not.toBe('');
    }
    const known = new Set([bill.metadata.component['bom-ref'], ...references]);
    expect(
      bill.dependencies.flatMap(({ ref, dependsOn }) => [ref, ...dependsOn]).filter((ref) => !known.has(ref)),
    ).toEqual([]);
  });

  test('comes with a licence for each thing, whose text is in the image', () => {
    const { added, bill, licences } = laidOut();
    const entries = licences.trim().split('\n');
    expect(entries).toHaveLength(2 * bill.components.length);
    const places = entries.filter((_, index) => index % 2 === 1).map((line) => line.trim());
    const lacking = places.filter((place) => ![added, AGENT_ROOT].some((root) => hasText(join(root, place))));
    expect(lacking).toEqual([]);
  });

  test('is the same when it is made again', async () => {
    const { added, bill } = laidOut();
    const again = join(work, `${image}-again`);
    await host([LAY_OUT, image, REPOSITORY, again, ...(image === 'agent' ? [AGENT_ROOT] : [])]);
    expect(JSON.parse(readFileSync(join(again, SHARE, 'bom.json'), 'utf8'))).toEqual(bill);
    await host(['diff', '-r', added, again]);
  });
});

/** A file that is not empty, or a directory with one. */
function hasText(path: string): boolean {
  if (!existsSync(path)) return false;
  if (!statSync(path).isDirectory()) return statSync(path).size > 0;
  return readdirSync(path).some((name) => hasText(join(path, basename(name))));
}

test('the same input gives the same image', async () => {
  const base = join(work, 'base');
  await host(['mkdir', '-p', join(base, 'bin')]);
  await host(['cp', join(REPOSITORY, 'native/build/snapshot-standby'), join(base, 'bin/worker')]);
  const script = resolve(REPOSITORY, 'deploy/images/make-image.sh');
  const make = async (archive: string) => host([script, 'placeholder', 'test.local/same:1', join(work, archive), base]);
  await make('one.tar');
  // Reading a file changes what its file system knows of it.
  await host(['touch', '-a', join(base, 'bin/worker')]);
  await make('two.tar');
  await host(['cmp', join(work, 'one.tar'), join(work, 'two.tar')]);
});

test('a root without the copyright files of its packages is refused', async () => {
  const root = join(work, 'root');
  await host(['mkdir', '-p', join(root, 'var/lib'), join(root, 'etc')]);
  await host(['cp', '-r', join(AGENT_ROOT, 'var/lib/dpkg'), join(root, 'var/lib/dpkg')]);
  await host(['cp', join(AGENT_ROOT, 'usr/lib/os-release'), join(AGENT_ROOT, 'etc/debian_version'), join(root, 'etc')]);
  await expect(host([LAY_OUT, 'agent', REPOSITORY, join(work, 'refused'), root])).rejects.toThrow(
    /made without the copyright files/,
  );
});
