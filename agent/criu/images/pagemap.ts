import { lstat } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { numberField, replaceFields } from './edit.ts';
import { readImage } from './file.ts';
import { pagemapNames, requireBearable, takeTurn } from './fragments.ts';
import { type Range, subtract } from './ranges.ts';
import { big, corrupt, parseMessage, required, uint } from './wire.ts';

/** Size of a page in the images. */
export const PAGE = 4096;

/** Entries after which others get their turn. */
const AT_A_STRETCH = 4_000;

const PARENT = 1;
const PRESENT = 4;

/** Addresses of processes end below 2^57; all are multiples of a page, so a double holds them exactly. */
const ADDRESS_END = 2 ** 57;

/** A pagemap entry. `present`: its pages are in the pages image at `offset`; otherwise `offset` is where the next ones begin. */
interface PagemapEntry extends Range {
  readonly present: boolean;
  readonly offset: number;
  /** As it was read, and not parsed: memory in single pages has a million entries, and a parsed one takes a kilobyte. */
  readonly bytes: Uint8Array;
}

/** A pagemap image: which memory of a process is where in `pages-<pagesId>.img`. */
export interface Pagemap {
  readonly name: string;
  readonly pagesId: number;
  readonly head: Uint8Array;
  readonly entries: readonly PagemapEntry[];
  /** Bytes that the pages image must have, exactly. */
  readonly pagesBytes: number;
}

function readEntry(bytes: Uint8Array, name: string, offset: number): PagemapEntry {
  const message = parseMessage(bytes, name);
  const address = required(big(message, 1), message, 'the address');
  const pages = big(message, 5) ?? BigInt(required(uint(message, 2), message, 'the number of pages'));
  const flags = uint(message, 4) ?? PRESENT;
  if (flags & PARENT || uint(message, 3)) throw corrupt(`${name}: pages of an earlier dump, which there is none of`);
  const start = Number(address);
  if (address % BigInt(PAGE) !== 0n || start >= ADDRESS_END) throw corrupt(`${name}: address ${address} cannot be`);
  if (pages < 1n || pages > BigInt((ADDRESS_END - start) / PAGE))
    throw corrupt(`${name}: ${pages} pages at ${address}`);
  return { start, end: start + Number(pages) * PAGE, present: (flags & PRESENT) !== 0, offset, bytes };
}

/** The entries one by one. They must be in order and must not overlap. */
function* decodeEntries(entries: readonly Uint8Array[], name: string): Generator<PagemapEntry> {
  let offset = 0;
  let end = 0;
  for (const bytes of entries) {
    const entry = readEntry(bytes, name, offset);
    if (entry.start < end) throw corrupt(`${name}: entries overlap or are out of order at address ${entry.start}`);
    end = entry.end;
    if (entry.present) offset += entry.end - entry.start;
    if (!Number.isSafeInteger(offset)) throw corrupt(`${name}: more pages than a file can hold`);
    yield entry;
  }
}

/** Bytes that the pages image has up to the end of an entry. */
const pagesUpTo = ({ present, offset, start, end }: PagemapEntry) => (present ? offset + end - start : offset);

async function readParts(dir: string, name: string) {
  const [head, ...entries] = (await readImage(path.join(dir, name), 'pagemap')).entries;
  if (head === undefined) throw corrupt(`${name} is empty`);
  const message = parseMessage(head, name);
  return { head, entries, pagesId: required(uint(message, 1), message, 'the pages id') };
}

/** Reads a pagemap image by file name. Entries must be in order and must not overlap. */
export async function readPagemap(dir: string, name: string): Promise<Pagemap> {
  const { head, entries, pagesId } = await readParts(dir, name);
  const decoded: PagemapEntry[] = [];
  for (const entry of decodeEntries(entries, name)) {
    decoded.push(entry);
    if (decoded.length % AT_A_STRETCH === 0) await setImmediate();
  }
  const last = decoded.at(-1);
  return { name, pagesId, head, entries: decoded, pagesBytes: last === undefined ? 0 : pagesUpTo(last) };
}

interface Present extends Pick<Pagemap, 'pagesId' | 'pagesBytes'> {
  readonly present: readonly Range[];
}

/** Which memory has its pages in which pages image, and how long that must be: what is enough where nothing is rewritten. */
export async function readPresent(dir: string, name: string): Promise<Present> {
  return await takeTurn(() => readRanges(dir, name));
}

async function readRanges(dir: string, name: string): Promise<Present> {
  const { entries, pagesId } = await readParts(dir, name);
  const present: Range[] = [];
  let [pagesBytes, read] = [0, 0];
  for (const entry of decodeEntries(entries, name)) {
    pagesBytes = pagesUpTo(entry);
    const last = present.at(-1);
    if (entry.present && last?.end === entry.start) present[present.length - 1] = { start: last.start, end: entry.end };
    else if (entry.present) present.push({ start: entry.start, end: entry.end });
    read += 1;
    if (read % AT_A_STRETCH === 0) await setImmediate();
  }
  return { pagesId, pagesBytes, present };
}

/** A piece of memory that is contiguous in address and in the pages image. */
export interface Segment extends Range {
  readonly offset: number;
}

/** The memory whose pages are in the pages image; neighbouring entries (CRIU cuts at 1 MiB) are one. */
export function presentSegments(pagemap: Pagemap): Segment[] {
  const segments: Segment[] = [];
  for (const entry of pagemap.entries) {
    if (!entry.present) continue;
    const last = segments.at(-1);
    if (last?.end === entry.start) segments[segments.length - 1] = { ...last, end: entry.end };
    else segments.push({ start: entry.start, end: entry.end, offset: entry.offset });
  }
  return segments;
}

/** The entries of the pagemap without the pages in `moved` (sorted); entries that are not touched keep their bytes. */
export function entriesWithout(pagemap: Pagemap, moved: readonly Range[]): Uint8Array[] {
  const kept: Uint8Array[] = [pagemap.head];
  let next = 0;
  for (const entry of pagemap.entries) {
    while ((moved[next]?.end ?? Number.POSITIVE_INFINITY) <= entry.start) next++;
    const touching: Range[] = [];
    for (let at = next; (moved[at]?.start ?? Number.POSITIVE_INFINITY) < entry.end; at++)
      touching.push(moved[at] ?? entry);
    if (touching.length === 0) {
      kept.push(entry.bytes);
      continue;
    }
    for (const part of entry.present ? subtract([entry], touching) : [entry])
      kept.push(partOf(entry, part, pagemap.name));
  }
  return kept;
}

function partOf(entry: PagemapEntry, part: Range, name: string): Uint8Array {
  if (part.start === entry.start && part.end === entry.end) return entry.bytes;
  const message = parseMessage(entry.bytes, name);
  const pages = (part.end - part.start) / PAGE;
  const countField = message.fields.some((field) => field.number === 5) ? 5 : 2;
  return replaceFields(
    message,
    new Map([
      [1, [numberField(1, part.start)]],
      [countField, [numberField(countField, pages)]],
    ]),
  );
}

/**
 * Checks that every pages image is exactly as long as its pagemap says, and belongs to one pagemap only. With a shorter one `criu restore`
 * never ends. Throws ARTIFACT_CORRUPT, and MEMORY_FRAGMENTED where there is too much of them.
 */
export async function checkPages(dir: string): Promise<void> {
  await requireBearable(dir);
  const seen = new Set<number>();
  for (const name of await pagemapNames(dir)) {
    const pagemap = { ...(await readPresent(dir, name)), name };
    if (seen.has(pagemap.pagesId))
      throw corrupt(`${name}: pages-${pagemap.pagesId}.img belongs to another pagemap too`);
    seen.add(pagemap.pagesId);
    await checkPagesSize(dir, pagemap);
  }
}

/** Checks the pages image of one pagemap. Throws ARTIFACT_CORRUPT. */
export async function checkPagesSize(
  dir: string,
  pagemap: Pick<Pagemap, 'name' | 'pagesId' | 'pagesBytes'>,
): Promise<void> {
  const name = `pages-${pagemap.pagesId}.img`;
  const found = await lstat(path.join(dir, name)).catch(() => undefined);
  if (found === undefined || !found.isFile()) throw corrupt(`${name} of ${pagemap.name} is not there`);
  if (found.size !== pagemap.pagesBytes) {
    throw corrupt(`${name} has ${found.size} bytes, its pagemap ${pagemap.name} tells of ${pagemap.pagesBytes}`);
  }
}
