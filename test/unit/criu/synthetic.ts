import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';
import { bytesField, numberField } from '../../../agent/criu/images/edit.ts';
import { encodeImage, type ImageKind } from '../../../agent/criu/images/file.ts';

/** Images made by hand, for what no real dump shows. Field numbers are those of CRIU's messages. */

export const PAGE = 4096;

export function message(...fields: [number, number | bigint | string | Uint8Array][]): Uint8Array {
  return Buffer.concat(
    fields.map(([number, value]) => {
      if (typeof value === 'string') return bytesField(number, Buffer.from(value));
      return value instanceof Uint8Array ? bytesField(number, value) : numberField(number, value);
    }),
  );
}

const made: string[] = [];
afterAll(() => {
  for (const dir of made) rmSync(dir, { recursive: true, force: true });
});

/** An empty directory, removed after the test file. */
export function makeDir(): string {
  const dir = mkdtempSync(path.join(tmpdir(), 'criu-images-'));
  made.push(dir);
  return dir;
}

export function put(dir: string, name: string, kind: ImageKind, entries: readonly Uint8Array[]): void {
  writeFileSync(path.join(dir, name), encodeImage({ kind, entries }));
}

interface Caps {
  readonly bounding?: number;
  readonly effective?: number;
  readonly ambient?: number;
}

interface Thread {
  readonly caps?: Caps;
  readonly noNewPrivs?: boolean;
  readonly seccomp?: number;
  readonly lsm?: string;
}

function core(thread: Thread, comm: string | undefined): Uint8Array {
  const { bounding = 0, effective = 0, ambient = 0 } = thread.caps ?? {};
  const creds = message(
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((number): [number, number] => [number, 1000]),
    ...([
      [9, 0],
      [9, 0],
      [10, effective],
      [10, 0],
      [11, effective],
      [11, 0],
      [12, bounding],
      [12, 0],
      [13, 0],
    ] as [number, number][]),
    ...(thread.lsm === undefined ? [] : ([[15, thread.lsm]] as [number, string][])),
    [18, thread.noNewPrivs ? 1 : 0],
    [19, ambient],
    [19, 0],
  );
  const state = message(
    [1, 0],
    [2, 0],
    [10, creds],
    [11, thread.seccomp === undefined ? 0 : 2],
    [12, thread.seccomp ?? 0],
  );
  const task =
    comm === undefined
      ? []
      : ([[3, message([1, 1], [2, 0], [3, 0], [4, 0], [5, 0], [6, comm])]] as [number, Uint8Array][]);
  return message([1, 1], ...task, [5, state]);
}

export interface ProcessSketch {
  readonly pid: number;
  readonly ppid: number;
  readonly threads?: readonly Thread[];
}

/** pstree.img and the core images: the main thread has the PID, further threads the numbers after it. */
export function putProcesses(dir: string, processes: readonly ProcessSketch[]): void {
  const entries = processes.map(({ pid, ppid, threads = [{}] }) => {
    for (const [index, thread] of threads.entries()) {
      put(dir, `core-${pid + index}.img`, 'core', [core(thread, index === 0 ? `task${pid}` : undefined)]);
    }
    return message(
      [1, pid],
      [2, ppid],
      [3, pid],
      [4, 1],
      ...threads.map((_, index): [number, number] => [5, pid + index]),
    );
  });
  put(dir, 'pstree.img', 'pstree', entries);
}

export interface AreaSketch {
  readonly start: number;
  readonly end: number;
  readonly protection?: number;
  readonly flags?: number;
  readonly status?: number;
  readonly offset?: number;
  readonly mapped?: number;
}

export function putMemory(dir: string, pid: number, areas: readonly AreaSketch[]): void {
  const vmas = areas.map(
    ({ start, end, protection = 3, flags = 0x22, status = 0x201, ...more }): [number, Uint8Array] => [
      14,
      message(
        [1, start],
        [2, end],
        [3, more.offset ?? 0],
        [4, more.mapped ?? 0],
        [5, protection],
        [6, flags],
        [7, status],
        [8, 1],
      ),
    ],
  );
  put(dir, `mm-${pid}.img`, 'mm', [message([12, 9], ...vmas)]);
}

/** A pagemap as CRIU 4.2 writes it; flags 4 is present. */
export function putPagemap(
  dir: string,
  pid: number,
  pagesId: number,
  entries: readonly { start: number; pages: number; flags?: number }[],
): void {
  const rest = entries.map(({ start, pages, flags = 6 }) => message([1, start], [2, 0], [4, flags], [5, pages]));
  put(dir, `pagemap-${pid}.img`, 'pagemap', [message([1, pagesId]), ...rest]);
}

export function putMounts(
  dir: string,
  mounts: readonly { point: string; fstype?: number; key?: string; namespace?: number }[],
): void {
  for (const namespace of new Set(mounts.map((mount) => mount.namespace ?? 10))) {
    const table = mounts.filter((mount) => (mount.namespace ?? 10) === namespace);
    const entries = table.map(({ point, fstype = 5, key }, index) =>
      message(
        [1, fstype],
        [2, index + 1],
        [3, 1],
        [4, 0],
        [5, 0],
        [6, '/'],
        [7, point],
        [8, 'none'],
        [9, ''],
        ...(key === undefined ? [] : ([[18, key]] as [number, string][])),
      ),
    );
    put(dir, `mountpoints-${namespace}.img`, 'mountpoints', entries);
  }
}

export interface SocketSketch {
  readonly id: number;
  readonly family?: 2 | 10;
  readonly type?: number;
  readonly proto?: number;
  readonly state?: number;
  readonly source: readonly [readonly number[], number];
  readonly peer: readonly [readonly number[], number];
}

const words = (bytes: readonly number[]) =>
  Array.from({ length: bytes.length / 4 }, (_, index) => Buffer.from(bytes).readUInt32LE(index * 4));

/** A file entry that holds an inet socket; addresses as bytes in network order. */
export function socketEntry({
  id,
  family = 2,
  type = 1,
  proto = 6,
  state = 1,
  source,
  peer,
}: SocketSketch): Uint8Array {
  const address = (number: number, bytes: readonly number[]) =>
    words(bytes).map((word): [number, number] => [number, word]);
  const socket = message(
    [1, id],
    [2, id + 1000],
    [3, family],
    [4, type],
    [5, proto],
    [6, state],
    [7, source[1]],
    [8, peer[1]],
    [9, 2],
    [10, 0],
    ...address(11, source[0]),
    ...address(12, peer[0]),
    [13, message([1, 0])],
    [14, message([1, 5])],
    [18, 11],
  );
  return message([1, 4], [2, id], [4, socket]);
}

/** Entries of other kinds, to see that they are carried along. */
export const REGULAR_FILE = message(
  [1, 1],
  [2, 1],
  [3, message([1, 1], [2, 0x8000], [3, 0], [5, message([1, 0])], [6, '/etc/hosts'])],
);

/** inventory.img, an empty files.img and one process with one mount: the least that is read as images. */
export function putLeast(dir: string): void {
  put(dir, 'inventory.img', 'inventory', [message([1, 2], [2, 1], [4, 1], [6, 0])]);
  put(dir, 'files.img', 'files', [REGULAR_FILE]);
  putProcesses(dir, [{ pid: 1, ppid: 0 }]);
  putMounts(dir, [{ point: '/', fstype: 17 }]);
}
