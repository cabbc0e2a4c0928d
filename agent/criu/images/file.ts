import { constants } from 'node:fs';
import { type FileHandle, open, rename, unlink } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { SnapshotError } from '../../errors.ts';
import { corrupt } from './wire.ts';

/**
 * CRIU's image files: one or two magic numbers, then entries, each a 32-bit little-endian length and a protobuf message.
 * Some kinds carry raw bytes behind their first entry (ghost files, TCP streams): these are read with `readFirstEntry`.
 */

const COMMON = 0x54564319;
const SERVICE = 0x55105940;

/** Magic numbers by kind (facts of criu/include/magic.h), in file order. */
const MAGICS = {
  inventory: [0x58313116],
  pstree: [COMMON, 0x50273030],
  core: [COMMON, 0x55053847],
  mm: [COMMON, 0x57492820],
  pagemap: [COMMON, 0x56084025],
  mountpoints: [COMMON, 0x55563928],
  seccomp: [COMMON, 0x64413049],
  files: [COMMON, 0x56303138],
  netns: [COMMON, 0x55933752],
  pidns: [COMMON, 0x61157326],
  ttyInfo: [COMMON, 0x59453036],
  ghostFile: [COMMON, 0x52583605],
  apparmor: [COMMON, 0x59423047],
  memfd: [COMMON, 0x48453499],
  stats: [SERVICE, 0x57093306],
} as const;

export type ImageKind = keyof typeof MAGICS;

/** An image in memory. `entries` are the messages without their lengths. */
export interface Image {
  readonly kind: ImageKind;
  readonly entries: readonly Uint8Array[];
}

const MAX_FILE = 256 * 1024 * 1024;
const MAX_ENTRY = 64 * 1024 * 1024;
const MAX_ENTRIES = 1 << 22;
/** Entries after which others get their turn. */
const AT_A_STRETCH = 20_000;

function magicBytes(kind: ImageKind): Buffer {
  const numbers = MAGICS[kind];
  const head = Buffer.alloc(numbers.length * 4);
  for (const [index, number] of numbers.entries()) head.writeUInt32LE(number, index * 4);
  return head;
}

async function readFrom(handle: FileHandle, path: string, most: number | undefined): Promise<Buffer> {
  const stat = await handle.stat();
  if (!stat.isFile()) throw corrupt(`${path} is not a regular file`);
  if (most === undefined && stat.size > MAX_FILE)
    throw corrupt(`${path} has ${stat.size} bytes, more than any image of its kind`);
  const bytes = Buffer.alloc(Math.min(stat.size, most ?? MAX_FILE));
  for (let got = 0; got < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, got, bytes.length - got, got);
    if (bytesRead === 0) throw corrupt(`${path} became shorter while it was read`);
    got += bytesRead;
  }
  return bytes;
}

/** The file's bytes; only the first `most` of them where that is given. Links and pipes are neither followed nor waited for. */
async function readBytes(path: string, most?: number): Promise<Buffer> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw new SnapshotError('ARTIFACT_CORRUPT', `CRIU image: ${path} cannot be opened`, { cause: error });
  }
  try {
    return await readFrom(handle, path, most);
  } finally {
    await handle.close();
  }
}

async function cutEntries(bytes: Buffer, kind: ImageKind, path: string, most: number): Promise<Uint8Array[]> {
  const head = magicBytes(kind);
  if (!bytes.subarray(0, head.length).equals(head))
    throw corrupt(`${path} does not begin with the magic numbers of ${kind}`);
  const entries: Uint8Array[] = [];
  for (let at = head.length; at < bytes.length && entries.length < most; ) {
    if (at + 4 > bytes.length) throw corrupt(`${path} ends inside an entry's length`);
    const length = bytes.readUInt32LE(at);
    if (length > MAX_ENTRY) throw corrupt(`${path} has an entry of ${length} bytes`);
    if (at + 4 + length > bytes.length) throw corrupt(`${path} is cut off inside entry ${entries.length}`);
    if (entries.length >= MAX_ENTRIES) throw corrupt(`${path} has more than ${MAX_ENTRIES} entries`);
    entries.push(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
    if (entries.length % AT_A_STRETCH === 0) await setImmediate();
  }
  return entries;
}

/** How many entries an image has, at most: what is wrong with it is not looked for, and nothing is kept of it. Throws as `readImage`. */
export async function countEntries(path: string): Promise<number> {
  const bytes = await readBytes(path);
  let count = 0;
  for (let at = 2 * 4; at + 4 <= bytes.length; at += 4 + bytes.readUInt32LE(at)) count += 1;
  return count;
}

/** Reads a whole image. Throws ARTIFACT_CORRUPT where it is missing, of another kind, cut off or beyond any sane size. */
export async function readImage(path: string, kind: ImageKind): Promise<Image> {
  return { kind, entries: await cutEntries(await readBytes(path), kind, path, Number.MAX_SAFE_INTEGER) };
}

/** Reads the first entry of an image that may carry raw content behind it. Only the first 64 KiB are looked at. */
export async function readFirstEntry(path: string, kind: ImageKind): Promise<Uint8Array> {
  const [first] = await cutEntries(await readBytes(path, 64 * 1024), kind, path, 1);
  if (first === undefined) throw corrupt(`${path} is empty`);
  return first;
}

/** The one entry of an image that has exactly one. */
export async function readOnlyEntry(path: string, kind: ImageKind): Promise<Uint8Array> {
  const { entries } = await readImage(path, kind);
  const [only, second] = entries;
  if (only === undefined || second !== undefined) throw corrupt(`${path} has ${entries.length} entries instead of one`);
  return only;
}

/** The file's bytes for an image. */
export function encodeImage(image: Image): Buffer {
  const head = magicBytes(image.kind);
  const bytes = Buffer.alloc(image.entries.reduce((sum, entry) => sum + 4 + entry.length, head.length));
  bytes.set(head);
  let at = head.length;
  for (const entry of image.entries) {
    bytes.writeUInt32LE(entry.length, at);
    bytes.set(entry, at + 4);
    at += 4 + entry.length;
  }
  return bytes;
}

/** Writes an image, or its bytes, to a new file (which must not exist) and fsyncs it. */
export async function writeNewImage(path: string, image: Image | Buffer): Promise<void> {
  const handle = await open(path, 'wx', 0o600);
  try {
    await handle.writeFile(Buffer.isBuffer(image) ? image : encodeImage(image));
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Replaces single entries of an image file (by index) atomically. The new file is read again before it takes the place of the old
 * one: each entry that was not to change must be the same bytes, else nothing is changed and INTERNAL is thrown.
 */
export async function replaceEntries(
  path: string,
  image: Image,
  edits: ReadonlyMap<number, Uint8Array>,
): Promise<void> {
  const fresh = `${path}.new`;
  await unlink(fresh).catch(() => undefined);
  await writeNewImage(fresh, {
    kind: image.kind,
    entries: image.entries.map((entry, index) => edits.get(index) ?? entry),
  });
  const written = await readImage(fresh, image.kind);
  const same =
    written.entries.length === image.entries.length &&
    written.entries.every(
      (entry, index) => Buffer.compare(entry, edits.get(index) ?? image.entries[index] ?? entry) === 0,
    );
  if (!same) {
    await unlink(fresh);
    throw new SnapshotError('INTERNAL', `${path}: the rewritten image differs in entries that were not to change`);
  }
  await rename(fresh, path);
}
