import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { contentsMessage } from '../../agent/api/rpc-contents.ts';
import { loadProtocol } from '../../agent/api/rpc-protocol.ts';
import type { OpenedVolume } from '../../agent/operations/artifacts.ts';
import { MAX_AREAS } from '../../agent/operations/contents-room.ts';
import { type InspectionCalls, inspectVisible } from '../../agent/operations/inspection.ts';
import type { Caller } from '../../agent/operations/service.ts';
import { activeReaders, lastUse } from '../../agent/store/readers.ts';
import { memoryLog } from '../fakes/log.ts';
import {
  type AreaSketch,
  makeDir,
  message,
  PAGE,
  put,
  putLeast,
  putMemory,
  putPagemap,
  putProcesses,
} from '../unit/criu/synthetic.ts';
import { type draft, KEYS, makeArtifact, makeVolume } from '../unit/store/volume.ts';

/** Inspections of artifacts that an agent signed, with images that no dump makes. */

const MIB = 1 << 20;
const BASE = 0x7f0000000000;
const name = { id: 'ckpt', version: '1' };
const operator: Caller = { name: 'operator', namespaces: 'all' };
const tenant = (...namespaces: string[]): Caller => ({ name: 'tenant', namespaces: new Set(namespaces) });
const corrupt = (text: string) =>
  expect.objectContaining({ code: 'ARTIFACT_CORRUPT', message: expect.stringContaining(text) });

let volume: OpenedVolume & { remove(): Promise<void> };
let work: string;
let calls: InspectionCalls;
/** Looks while an inspection is under way. */
let meanwhile: () => Promise<void>;
beforeEach(async () => {
  volume = { ...(await makeVolume()), basePath: '/checkpoints' };
  work = await mkdtemp(join(tmpdir(), 'inspection-'));
  meanwhile = async () => undefined;
  calls = {
    keys: KEYS,
    node: { name: 'node-a', bootId: 'boot-a', threads: 2 },
    log: memoryLog().log,
    makeWorkDir: async () => {
      await meanwhile();
      const path = await mkdtemp(join(work, 'op-'));
      return { path, remove: () => rm(path, { recursive: true }) };
    },
  };
});
afterEach(async () => {
  // Whatever came of an inspection, nothing of it is left.
  expect(await readdir(work)).toEqual([]);
  expect(await activeReaders(volume, name)).toEqual([]);
  await rm(work, { recursive: true });
  await volume.remove();
});

const inspect = (caller = operator, signal = new AbortController().signal) =>
  inspectVisible(calls, volume, { ...name, signal }, caller);

interface Sketch {
  /** Adds images to a directory that has the least, or puts others in their place. */
  readonly images?: (dir: string) => void;
  readonly index?: string;
  readonly blocks?: number;
  readonly removed?: string;
  readonly record?: Parameters<typeof draft>[0];
}

/** Publishes images, signed, with what lies beside them. */
async function publishImages({ images, index, blocks = 0, removed, record }: Sketch = {}): Promise<void> {
  const dir = makeDir();
  putLeast(dir);
  putMemory(dir, 1, []);
  putPagemap(dir, 1, 1, []);
  writeFileSync(join(dir, 'pages-1.img'), '');
  images?.(dir);
  const files: Record<string, string | Buffer> = {};
  for (const image of await readdir(dir)) files[`criu/${image}`] = await readFile(join(dir, image));
  if (index !== undefined) files['memory/bulk.index'] = index;
  if (removed !== undefined) files['rootfs/removed.json'] = removed;
  const bulk = index === undefined ? null : { blocks, bytes: 0, salt: 'ab'.repeat(32) };
  await makeArtifact(volume, { files, record: { bulk, ...record } });
}

const area = (start: number, pages: number, more: Partial<AreaSketch> = {}): AreaSketch => ({
  start: BASE + start * PAGE,
  end: BASE + (start + pages) * PAGE,
  ...more,
});
const pages = (dir: string, id: number, count: number) =>
  writeFileSync(join(dir, `pages-${id}.img`), Buffer.alloc(count * PAGE, 1));
const line = (pid: number, start: number, count: number, offset: number) =>
  `${pid} ${BASE + start * PAGE} ${count * PAGE} ${offset * PAGE} ${'0'.repeat(32)}\n`;

const FILE = { flags: 0x2, status: 0x41, mapped: 1 };
const SHARED = { flags: 0x21, status: 0x101, mapped: 77 };

describe('an inspection', () => {
  it('tells of areas, of what is stored of them, and where', async () => {
    await publishImages({
      images: (dir) => {
        putMemory(dir, 1, [
          area(0, 4, { protection: 5, ...FILE }),
          area(4, 4, { protection: 5, ...FILE }),
          area(8, 8),
          area(16, 8, { protection: 1 }),
          area(30, 4, { status: 0x221 }),
          area(40, 4, { ...SHARED, offset: 2 * PAGE }),
          area(50, 1, { flags: 0x122 }),
          area(60, 2, { status: 0x209 }),
        ]);
        putPagemap(dir, 1, 1, [
          { start: BASE + 3 * PAGE, pages: 2 },
          { start: BASE + 20 * PAGE, pages: 1 },
          { start: BASE + 21 * PAGE, pages: 4, flags: 1 << 1 },
        ]);
        pages(dir, 1, 3);
        put(dir, 'pagemap-shmem-77.img', 'pagemap', [message([1, 2]), message([1, 0], [2, 0], [4, 6], [5, 5])]);
        pages(dir, 2, 5);
      },
      index: line(1, 9, 2, 0) + line(1, 11, 1, 2) + line(1, 31, 1, 3),
      blocks: 3,
      removed: '{"removed":["etc/issue","etc/motd"],"opaque":["var"]}',
    });
    const { processes, removedPaths, artifact } = await inspect();
    const anonymous = { path: '', shared: false, protection: 'rw-', bulkBytes: 0 };
    expect(processes).toMatchObject([
      {
        ...{ pid: 1, ppid: 0, comm: 'task1', threads: 1, state: 'alive', cuda: false, deviceBytes: 0 },
        ...{ memoryBytes: 35 * PAGE, storedBytes: 10 * PAGE, areasLeftOut: 0, bytesLeftOut: 0 },
        areas: [
          { ...area(0, 8), kind: 'file', path: '/etc/hosts', protection: 'r-x', shared: false, storedBytes: 2 * PAGE },
          { ...area(8, 8), kind: 'anonymous', ...anonymous, storedBytes: 3 * PAGE, bulkBytes: 3 * PAGE },
          { ...area(16, 8), kind: 'anonymous', ...anonymous, protection: 'r--', storedBytes: PAGE },
          { ...area(30, 4), kind: 'heap', ...anonymous, storedBytes: PAGE, bulkBytes: PAGE },
          // Three of its four pages are among the five that are stored.
          { ...area(40, 4), kind: 'shared', ...anonymous, shared: true, storedBytes: 3 * PAGE },
          { ...area(50, 1), kind: 'stack', ...anonymous, storedBytes: 0 },
          { ...area(60, 2), kind: 'special', ...anonymous, storedBytes: 0 },
        ],
      },
    ]);
    expect(removedPaths).toBe(2);
    expect(artifact).toMatchObject({
      ...name,
      location: '/checkpoints/ckpt/versions/1',
      problem: undefined,
      readers: [],
    });
  });

  it('holds a mark while it reads, so that a deletion waits, and counts as no use', async () => {
    await publishImages();
    let readers: string[] = [];
    meanwhile = async () => {
      readers = await activeReaders(volume, name);
    };
    await inspect();
    expect(readers).toEqual([expect.stringMatching(/^inspect-/)]);
    expect(await lastUse(volume, name)).toBeUndefined();
  });

  it('shows a tenant what is theirs, and tells nothing of the rest', async () => {
    await publishImages();
    expect((await inspect(tenant('team'))).processes).toHaveLength(1);
    await expect(inspect(tenant('other'))).rejects.toMatchObject({ code: 'ARTIFACT_NOT_FOUND' });
    await rm(join(volume.root, 'ckpt'), { recursive: true });
    await expect(inspect()).rejects.toMatchObject({ code: 'ARTIFACT_NOT_FOUND' });
  });

  it('ends when its caller goes', async () => {
    await publishImages();
    const gone = new AbortController();
    meanwhile = async () => gone.abort();
    await expect(inspect(operator, gone.signal)).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('says which processes used CUDA, and what they held', async () => {
    const gpu = { uuid: 'GPU-1', model: 'NVIDIA H200', memoryBytes: 9, freeBytes: 9, usedBytes: 9 };
    const cuda = {
      ...{ driver: '580.1', driverApi: 13_000, libraries: [], given: 'visible' as const, visibleDevices: null },
      gpus: [{ ...gpu, mig: null, mps: null, virtualization: null }],
      ...{ deviceOrder: null, processes: [{ pid: 5, deviceBytes: 7 }], proven: true, launchJob: false },
    };
    await publishImages({
      images: (dir) => {
        putProcesses(dir, [
          { pid: 1, ppid: 0 },
          { pid: 5, ppid: 1 },
        ]);
        putMemory(dir, 5, [area(0, 1)]);
        putPagemap(dir, 5, 5, []);
        pages(dir, 5, 0);
      },
      record: { cuda },
    });
    expect((await inspect()).processes).toMatchObject([
      { pid: 1, cuda: false, deviceBytes: 0 },
      { pid: 5, ppid: 1, cuda: true, deviceBytes: 7 },
    ]);
  });

  it('answers within 4 MiB of 100000 areas in each of four processes', async () => {
    const all = Array.from({ length: 100_000 }, (_, at) => area(3 * at, 1 + (at % 2), at % 5 === 0 ? FILE : {}));
    const longest = `/${'d'.repeat(254)}`.repeat(16);
    await publishImages({
      images: (dir) => {
        putProcesses(
          dir,
          [1, 2, 3, 4].map((pid) => ({ pid, ppid: pid - 1 })),
        );
        for (const pid of [1, 2, 3, 4]) {
          putMemory(dir, pid, all);
          // The last area is the only one that is stored.
          putPagemap(dir, pid, pid, [{ start: BASE + 3 * 99_999 * PAGE, pages: 2 }]);
          pages(dir, pid, 2);
        }
        put(dir, 'files.img', 'files', [message([1, 1], [2, 1], [3, message([1, 1], [6, longest], [10, 0o020666])])]);
      },
    });
    const contents = await inspect();
    const { processes } = contents;
    expect(processes.map(({ pid }) => pid)).toEqual([1, 2, 3, 4]);
    for (const { areas, areasLeftOut, bytesLeftOut, memoryBytes } of processes) {
      expect(areas.length).toBeGreaterThan(0);
      expect(areas.length + areasLeftOut).toBe(100_000);
      const shown = areas.reduce((sum, { start, end }) => sum + end - start, 0);
      expect(shown + bytesLeftOut).toBe(memoryBytes);
      expect(areas.at(-1)).toMatchObject({ ...area(299_997, 2), storedBytes: 2 * PAGE });
      expect(areas.map(({ start }) => start)).toEqual(areas.map(({ start }) => start).toSorted((a, b) => a - b));
    }
    const counts = processes.map(({ areas }) => areas.length);
    expect(Math.max(...counts)).toBe(MAX_AREAS);
    expect(Math.min(...counts)).toBeLessThan(MAX_AREAS);
    expect(processes.flatMap(({ areas }) => areas).some(({ kind }) => kind === 'device')).toBe(true);
    expect(sizeOfAnswer(contents)).toBeLessThan(4 * MIB);
  });

  it('answers within 4 MiB of thousands of processes and files', async () => {
    const many = Array.from({ length: 2_300 }, (_, index) => ({ pid: index + 1, ppid: index === 0 ? 0 : 1 }));
    await publishImages({
      images: (dir) => {
        putProcesses(dir, many);
        for (const { pid } of many) {
          putMemory(dir, pid, [area(0, 2), area(4, pid % 7 === 0 ? 3 : 1)]);
          putPagemap(dir, pid, pid, pid > 1_500 ? [{ start: BASE, pages: 1 }] : []);
          pages(dir, pid, pid > 1_500 ? 1 : 0);
        }
      },
    });
    const contents = await inspect();
    expect(contents.processes.length + contents.processesLeftOut).toBe(2_300);
    expect(contents.processesLeftOut).toBeGreaterThan(0);
    // Those with memory in the artifact are all there.
    expect(contents.processes.filter(({ pid }) => pid > 1_500)).toHaveLength(800);
    expect(contents.filesLeftOut).toBeGreaterThan(0);
    expect(contents.files.length + contents.filesLeftOut).toBe(4 * 2_300 + 4);
    expect(sizeOfAnswer(contents)).toBeLessThan(4 * MIB);
  });
});

/** What goes over the wire. */
function sizeOfAnswer(contents: Awaited<ReturnType<typeof inspect>>): number {
  const protocol = loadProtocol();
  const method = protocol.agent['InspectCheckpoint'];
  if (method === undefined) throw new Error('the service has no such method');
  return method.responseSerialize(contentsMessage(contents, protocol)).length;
}

describe('refused, and told why, are', () => {
  const cutOff = (dir: string, image: string) =>
    writeFileSync(join(dir, image), readFileSync(join(dir, image)).subarray(0, -1));
  const entries: [string, Sketch, string][] = [
    ['no images at all', { images: (dir) => rmSync(join(dir, 'inventory.img')) }, 'inventory.img cannot be opened'],
    ['an image that is cut off', { images: (dir) => cutOff(dir, 'mm-1.img') }, 'mm-1.img is cut off'],
    ['a tree that is cut off', { images: (dir) => cutOff(dir, 'pstree.img') }, 'pstree.img is cut off'],
    [
      'a number of pages beyond all memory',
      { images: (dir) => putPagemap(dir, 1, 1, [{ start: BASE, pages: 2 ** 51 }]) },
      'pages at',
    ],
    [
      'more pages than there are',
      { images: (dir) => putPagemap(dir, 1, 1, [{ start: BASE, pages: 9 }]) },
      'pages-1.img has 0 bytes, its pagemap pagemap-1.img tells of 36864',
    ],
    [
      'pages that two processes have',
      {
        images: (dir) => {
          putProcesses(dir, [
            { pid: 1, ppid: 0 },
            { pid: 2, ppid: 1 },
          ]);
          putMemory(dir, 2, []);
          putPagemap(dir, 2, 1, []);
        },
      },
      'belongs to pagemap-1.img too',
    ],
    [
      'a process that is its own ancestor',
      {
        images: (dir) =>
          putProcesses(dir, [
            { pid: 1, ppid: 2 },
            { pid: 2, ppid: 1 },
          ]),
      },
      'its own ancestor',
    ],
    ['a parent that is not there', { images: (dir) => putProcesses(dir, [{ pid: 1, ppid: 9 }]) }, 'is missing'],
    [
      'threads beyond all that a system has',
      {
        images: (dir) => {
          const threads = Buffer.alloc(300_000, 1);
          put(dir, 'pstree.img', 'pstree', [message([1, 1], [2, 0], [3, 1], [4, 1], [5, threads])]);
        },
      },
      'names 300000 threads',
    ],
    ['areas that overlap', { images: (dir) => putMemory(dir, 1, [area(0, 4), area(2, 4)]) }, 'overlap'],
    ['an area that ends before it begins', { images: (dir) => putMemory(dir, 1, [area(4, -2)]) }, 'cannot be'],
    ['an index with other blocks than the record', { index: line(1, 0, 1, 0), blocks: 2 }, 'has 1 blocks of memory'],
    ['an index that is no index', { index: '1 4096 5 0 00\n', blocks: 1 }, 'line 1 of the bulk index'],
    ['an index without an end', { index: 'x'.repeat(MIB), blocks: 1 }, 'has no end'],
    ['an index that is cut off', { index: line(1, 0, 1, 0).slice(0, -1), blocks: 1 }, 'cut off inside a line'],
    ['an index in disorder', { index: line(1, 4, 1, 0) + line(1, 0, 1, 1), blocks: 2 }, 'not in order'],
    ['an index with half a page', { index: line(1, 0.5, 1, 0), blocks: 1 }, 'not whole pages'],
    ['memory of a process that is not there', { index: line(9, 0, 1, 0), blocks: 1 }, 'memory of process 9'],
    ['a list of removed paths that is none', { removed: '{"removed":' }, 'rootfs/removed.json'],
  ];

  it.each(entries)('%s', async (_what, sketch, text) => {
    await publishImages(sketch);
    await expect(inspect()).rejects.toEqual(corrupt(text));
  });

  it('images beyond what is read, of which nothing is copied', async () => {
    await publishImages({ images: (dir) => put(dir, 'mm-1.img', 'mm', [Buffer.alloc(17 * MIB)]) });
    meanwhile = () => Promise.reject(new Error('it has begun to copy'));
    await expect(inspect()).rejects.toMatchObject({
      code: 'ARTIFACT_TOO_LARGE',
      message: expect.stringContaining('criu/mm-1.img has'),
    });
  });

  it('images that somebody changed, and a record that nobody signed', async () => {
    await publishImages();
    const place = join(volume.root, 'ckpt/versions/1');
    const image = await readFile(join(place, 'criu/core-1.img'));
    image[image.length - 1] = (image.at(-1) ?? 0) ^ 1;
    await writeFile(join(place, 'criu/core-1.img'), image);
    await expect(inspect()).rejects.toEqual(corrupt('criu/core-1.img has SHA-256'));
    const record = await readFile(join(place, 'manifest.yaml'), 'utf8');
    await writeFile(join(place, 'manifest.yaml'), record.replace('worker-0', 'worker-1'));
    await expect(inspect()).rejects.toMatchObject({ code: 'ARTIFACT_UNSIGNED' });
  });

  it('an image that became a link', async () => {
    await publishImages();
    const image = join(volume.root, 'ckpt/versions/1/criu/core-1.img');
    await rm(image);
    await symlink('/etc/passwd', image);
    await expect(inspect()).rejects.toMatchObject({ code: expect.stringMatching(/^ARTIFACT_/) });
  });
});
