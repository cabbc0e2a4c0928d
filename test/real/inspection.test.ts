import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Answer } from '../flow/grpc/client.ts';
import type { Container } from './environment/container.ts';
import { workload } from './environment/pod.ts';
import { namespaceOf, processes } from './environment/processes.ts';
import { ApiNode } from './grpc/node.ts';
import { artifactPath } from './scenario.ts';

/** What an inspection says of artifacts that CRIU made, against what /proc said of the processes. */

const MIB = 1 << 20;

let node: ApiNode;
beforeAll(async () => {
  node = await ApiNode.start();
});
afterAll(async () => {
  expect(await node?.stop()).toEqual([]);
});

/** A neighbourhood of memory that is all alike, as /proc/PID/maps and as an answer has it. */
interface Mapped {
  readonly start: number;
  readonly end: number;
  readonly kind: string;
  readonly path: string;
  readonly protection: string;
  readonly shared: boolean;
}

interface Seen {
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  readonly threads: number;
  readonly state: string;
  readonly areas: readonly Mapped[];
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) ([rwx-]{3})([sp]) [0-9a-f]+ \S+ \d+ *(.*)$/;
const SPECIAL = ['[vdso]', '[vvar]', '[vvar_vclock]'];

function kindOf(path: string): string {
  if (SPECIAL.includes(path)) return 'SPECIAL';
  if (path === '[heap]') return 'HEAP';
  if (path === '[stack]') return 'STACK';
  return /^\/(memfd:|SYSV|dev\/zero)/.test(path) ? 'SHARED' : path === '' ? 'ANONYMOUS' : 'FILE';
}

function areasOf(pid: number): Mapped[] {
  const areas: Mapped[] = [];
  for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').trimEnd().split('\n')) {
    const [, from = '', to = '', protection = '', sharing, name = ''] = LINE.exec(line) ?? [];
    if (name === '[vsyscall]') continue;
    const path = /^(\[|\/SYSV|\/dev\/zero)/.test(name) ? '' : name.replace(/ \(deleted\)$/, '');
    const [start, end] = [Number.parseInt(from, 16), Number.parseInt(to, 16)];
    const area = { start, end, kind: kindOf(name), path, protection, shared: sharing === 's' };
    const last = areas.at(-1);
    const isLike = last && { ...last, start, end };
    if (last?.end === start && JSON.stringify(isLike) === JSON.stringify(area))
      areas[areas.length - 1] = { ...last, end };
    else areas.push(area);
  }
  return areas;
}

/** The processes of a container, by their PIDs inside it. */
async function treeOf(container: Container): Promise<Seen[]> {
  const root = await container.pid();
  const own = namespaceOf(root, 'pid');
  const found = processes().filter(
    ({ pid, cgroups, state }) => cgroups.includes(container.id) && (state === 'Z' || namespaceOf(pid, 'pid') === own),
  );
  const inner = new Map(found.map(({ pid, nspid }) => [pid, nspid.at(-1) ?? 0]));
  return found
    .map(({ pid, parent, state }) => ({
      pid: inner.get(pid) ?? 0,
      parent: inner.get(parent) ?? 0,
      name: readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd(),
      threads: readdirSync(`/proc/${pid}/task`).length,
      state: state === 'Z' ? 'ENDED' : state === 'T' ? 'STOPPED' : 'ALIVE',
      areas: state === 'Z' ? [] : areasOf(pid),
    }))
    .toSorted((a, b) => a.pid - b.pid);
}

interface Inspected {
  readonly answer: Answer;
  /** What /proc showed both before and after the checkpoint. */
  readonly tree: readonly Seen[];
  readonly artifact: string;
  readonly id: string;
}

/** Checkpoints a workload that runs on, and asks what is inside its artifact. */
async function inspected(...command: readonly [string, ...string[]]): Promise<Inspected> {
  const source = await node.runPlain({ command: workload(...command) });
  const before = await treeOf(source.container);
  const { response } = await node.perform('Checkpoint', source);
  const id = response.checkpoint_id;
  const after = new Map((await treeOf(source.container)).map((one) => [one.pid, new Set(one.areas.map(textOf))]));
  const tree = before.map((one) => ({
    ...one,
    areas: one.areas.filter((area) => after.get(one.pid)?.has(textOf(area))),
  }));
  const answer = await node.api.ask('InspectCheckpoint', { checkpoint_id: id });
  await source.pod.remove();
  return { answer, tree, id, artifact: artifactPath(node.cluster.volume, { id, version: '1' }) };
}

const textOf = (area: Mapped) => JSON.stringify(area);

function mapped({ start, end, kind, path, protection, shared }: Answer): Mapped {
  return { start, end, kind: kind.replace('MEMORY_KIND_', ''), path, protection, shared };
}

/** Processes and areas are those of /proc; what was the same before and after is there exactly so. */
function expectSame({ answer, tree }: Inspected): void {
  expect(
    answer.processes.map(({ pid, parent_pid: parent, name, threads, state }: Answer) => ({
      ...{ pid, parent, name, threads, state: state.replace('PROCESS_STATE_', '') },
    })),
  ).toEqual(tree.map(({ pid, parent, name, threads, state }) => ({ pid, parent, name, threads, state })));
  for (const [index, { areas }] of tree.entries()) {
    const found = answer.processes[index].areas.map(mapped);
    expect(found).toEqual(expect.arrayContaining([...areas]));
    // Nearly all memory of an idle process stays as it is: the comparison is about something.
    expect(areas.length).toBeGreaterThanOrEqual(found.length * 0.9);
  }
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const sizesOf = (artifact: string, pattern: RegExp) =>
  readdirSync(artifact, { recursive: true, encoding: 'utf8' })
    .filter((name) => pattern.test(name))
    .map((name) => statSync(join(artifact, name)).size);
const areasIn = ({ answer }: Pick<Inspected, 'answer'>): Answer[] =>
  answer.processes.flatMap(({ areas }: Answer) => areas);

describe('of a process with 64 MiB of memory and 16 MiB of zeros', () => {
  let seen: Inspected;
  beforeAll(async () => {
    seen = await inspected('memory', '64', '16');
  });

  test('the areas are those of /proc', () => expectSame(seen));

  test('every stored page is counted once', () => {
    const { artifact } = seen;
    const areas = areasIn(seen);
    const bulk = sum(sizesOf(artifact, /^memory\/bulk\.pages$/));
    expect(sum(areas.map(({ bulk_bytes }) => bulk_bytes))).toBe(bulk);
    expect(sum(areas.map(({ stored_bytes }) => stored_bytes))).toBe(
      bulk + sum(sizesOf(artifact, /^criu\/pages-\d+\.img$/)),
    );
    const [process] = seen.answer.processes;
    expect(process).toMatchObject({ pid: 1, cuda: false, device_bytes: 0, areas_left_out: 0, bytes_left_out: 0 });
    expect(process.stored_bytes).toBe(sum(areas.map(({ stored_bytes }) => stored_bytes)));
    expect(process.memory_bytes).toBe(sum(areas.map(({ start, end }) => end - start)));
  });

  test('the random memory is in the bulk file, the zeros are nowhere, and the file of the program stays where it is', () => {
    const large = areasIn(seen).filter(({ start, end }) => end - start >= 64 * MIB);
    expect(large).toHaveLength(1);
    const { start, end, stored_bytes: stored, bulk_bytes: bulk } = large[0];
    expect(end - start).toBeGreaterThanOrEqual(80 * MIB);
    expect(stored).toBeGreaterThanOrEqual(64 * MIB);
    expect(stored).toBeLessThan(end - start - 15 * MIB);
    expect(bulk).toBe(stored);
    const code = areasIn(seen).find(({ path, protection }) => path.endsWith('libc.so.6') && protection === 'r-x');
    expect(code).toMatchObject({ kind: 'MEMORY_KIND_FILE', shared: false, stored_bytes: 0 });
  });

  test('the checkpoint is that of GetCheckpoint, the files are those on the volume', async () => {
    const { answer, artifact, id } = seen;
    expect(answer.checkpoint).toEqual(await node.api.ask('GetCheckpoint', { checkpoint_id: id }));
    expect(answer.checkpoint.readers).toEqual([]);
    const files = readdirSync(artifact, { recursive: true, encoding: 'utf8' })
      .map((path) => ({ path, found: statSync(join(artifact, path)) }))
      .filter(({ path, found }) => found.isFile() && path !== 'manifest.yaml')
      .map(({ path, found }) => ({ path, bytes: found.size }))
      .toSorted((a, b) => (a.path < b.path ? -1 : 1));
    expect(answer.files.map(({ path, bytes }: Answer) => ({ path, bytes }))).toEqual(files);
    for (const { path, digest } of answer.files)
      expect(digest).toMatch(path === 'memory/bulk.pages' ? /^$/ : /^[0-9a-f]{64}$/);
    expect(answer.checkpoint.record.sizes).toMatchObject({
      total_bytes: sum(files.map(({ bytes }) => bytes)),
      files: files.length,
    });
  });

  test('the artifact fits the node that made it; what needs a container is not said to', async () => {
    const answer = await node.api.ask('CheckCompatibility', { restore: { checkpoint_id: seen.id } });
    expect(answer).toEqual({
      compatible: true,
      mismatches: [],
      not_checked: [
        'image',
        'mounts',
        'memory limit',
        'terminal',
        'network',
        'capabilities',
        'seccomp and security label',
      ],
    });
  });
});

test('of shared, named and System V memory, the areas and their contents are told', async () => {
  const seen = await inspected('memoryobjects', 'sysv');
  expectSame(seen);
  const root = seen.answer.processes[0];
  const named = (wanted: string) => root.areas.find(({ path }: Answer) => path === wanted);
  expect(named('/memfd:test-object')).toMatchObject({ kind: 'MEMORY_KIND_SHARED', shared: true, stored_bytes: MIB });
  // A file of /dev/shm is stored as a file.
  expect(named('/dev/shm/snapshot-test')).toMatchObject({ kind: 'MEMORY_KIND_FILE', shared: true, stored_bytes: 0 });
  const unnamed = root.areas.filter(({ kind, path }: Answer) => kind === 'MEMORY_KIND_SHARED' && path === '');
  const sizes = unnamed.map(({ start, end, stored_bytes }: Answer) => [end - start, stored_bytes]);
  // What mmap shares, and what shmget does.
  expect(sizes.toSorted(([a]: number[], [b]: number[]) => (a ?? 0) - (b ?? 0))).toEqual([
    [4096, 4096],
    [MIB, MIB],
  ]);
});

test('of a tree, all processes are told with their threads, also those that stand still or have ended', async () => {
  const seen = await inspected('tree');
  expectSame(seen);
  const states = seen.answer.processes.map(({ state }: Answer) => state);
  expect(states).toEqual(expect.arrayContaining(['PROCESS_STATE_STOPPED', 'PROCESS_STATE_ENDED']));
  expect(Math.max(...seen.answer.processes.map(({ threads }: Answer) => threads))).toBeGreaterThan(1);
  const stored = sum(areasIn(seen).map(({ stored_bytes }) => stored_bytes));
  expect(stored).toBe(sum(sizesOf(seen.artifact, /^(criu\/pages-\d+\.img|memory\/bulk\.pages)$/)));
});
