import { type FileHandle, open } from 'node:fs/promises';
import { PAGE, type Segment } from './pagemap.ts';
import { intersect, merge, type Range } from './ranges.ts';
import { corrupt } from './wire.ts';

/**
 * Memory that a process has in common with its parent. After a fork CRIU dumps such pages once for each, and at a restore lets the
 * child inherit the parent's area and keeps every page shared whose content is equal. Memory that is filled in afterwards is never
 * shared, so what is still in common must stay in CRIU's images, in both.
 */

/** A process's memory in its pages image. */
export interface PagesFile {
  readonly path: string;
  readonly segments: readonly Segment[];
}

/** Granularity of the decision, aligned to addresses. */
const BLOCK = 1 << 20;

/** A block stays for the sake of sharing from this many equal pages on: at most a sixteenth of the sharing is given up for speed. */
const EQUAL_PAGES_TO_STAY = 16;

const ZERO_PAGE = Buffer.alloc(PAGE);

/** True where enough pages are equal in both; zero pages do not count, since these need no memory at all when they are moved. */
export function worthSharing(left: Buffer, right: Buffer): boolean {
  const pages = Math.min(left.length, right.length) / PAGE;
  const enough = Math.min(EQUAL_PAGES_TO_STAY, pages);
  let equal = 0;
  for (let page = 0; page < pages && equal < enough && equal + pages - page >= enough; page++) {
    const at = page * PAGE;
    const same = left.compare(right, at, at + PAGE, at, at + PAGE) === 0;
    if (same && left.compare(ZERO_PAGE, 0, PAGE, at, at + PAGE) !== 0) equal++;
  }
  return equal >= enough;
}

/** The pieces of a range, cut at multiples of a block. */
function* blocks(range: Range): Generator<Range> {
  for (let start = range.start; start < range.end; ) {
    const end = Math.min(range.end, (Math.floor(start / BLOCK) + 1) * BLOCK);
    yield { start, end };
    start = end;
  }
}

async function readMemoryAt(handle: FileHandle, pages: PagesFile, range: Range, into: Buffer): Promise<Buffer> {
  const segment = segmentAt(pages.segments, range.start);
  const length = range.end - range.start;
  const target = into.subarray(0, length);
  for (let got = 0; got < length; ) {
    const { bytesRead } = await handle.read(
      target,
      got,
      length - got,
      segment.offset + range.start - segment.start + got,
    );
    if (bytesRead === 0) throw corrupt(`${pages.path} is cut off`);
    got += bytesRead;
  }
  return target;
}

function segmentAt(segments: readonly Segment[], address: number): Segment {
  let low = 0;
  for (let high = segments.length - 1; low < high; ) {
    const middle = (low + high + 1) >> 1;
    if ((segments[middle]?.start ?? 0) <= address) low = middle;
    else high = middle - 1;
  }
  const segment = segments[low];
  if (segment === undefined || address < segment.start || address >= segment.end)
    throw corrupt(`no page at ${address}`);
  return segment;
}

/** The blocks within `where` (sorted) that parent and child both have and that are worth sharing. Sorted. */
export async function commonMemory(child: PagesFile, parent: PagesFile, where: readonly Range[]): Promise<Range[]> {
  const both = intersect(intersect(child.segments, parent.segments), where);
  if (both.length === 0) return [];
  const common: Range[] = [];
  const [left, right] = [Buffer.alloc(BLOCK), Buffer.alloc(BLOCK)];
  const childFile = await open(child.path, 'r');
  try {
    const parentFile = await open(parent.path, 'r');
    try {
      for (const range of both) {
        for (const block of blocks(range)) {
          const mine = await readMemoryAt(childFile, child, block, left);
          const theirs = await readMemoryAt(parentFile, parent, block, right);
          if (worthSharing(mine, theirs)) common.push(block);
        }
      }
    } finally {
      await parentFile.close();
    }
  } finally {
    await childFile.close();
  }
  return merge(common);
}
