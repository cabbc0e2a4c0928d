import path from 'node:path';
import { canBeFilled, inheritedAreas, type Memory, readMemory } from './areas.ts';
import { commonMemory } from './common.ts';
import { encodeImage } from './file.ts';
import { requireBearable, requireFewPieces, takeTurn } from './fragments.ts';
import { checkPagesSize, entriesWithout, type Pagemap, presentSegments, readPagemap, type Segment } from './pagemap.ts';
import { type Process, readProcesses } from './processes.ts';
import { intersect, lengthOf, merge, type Range, subtract } from './ranges.ts';

/**
 * Takes large private memory out of CRIU's images, to be filled in beside CRIU. `planBulk` only reads; the native helper's `bulk-write`
 * then follows the plan's text; `adoptBulk` puts the smaller images in the place of CRIU's.
 */

/** Ending of files that are to take the place of the one without it. */
export const KEPT = '.kept';

/** What becomes of one process's images. */
interface BulkRewrite {
  readonly pid: number;
  readonly pagemapName: string;
  readonly pagesName: string;
  /** The image's bytes. These are not in V8's heap, as its entries one by one would be. */
  readonly pagemap: Buffer;
  readonly keptBytes: number;
}

export interface BulkPlan {
  /** Lines for `snapshot-helper bulk-write --plan`; empty where nothing is worth moving. */
  readonly text: string;
  /** The PROC numbers of the plan and of the index: PIDs inside the container. */
  readonly processes: readonly number[];
  readonly movedBytes: number;
  /** Bytes that stay in CRIU's images because parent and child share them, counted in each process. */
  readonly sharedBytes: number;
  readonly rewrites: readonly BulkRewrite[];
}

/** Shorter ranges stay in CRIU's images. Bytes. */
export interface BulkOptions {
  readonly minRangeBytes: number;
  /** More pieces of memory are refused; for tests. */
  readonly mostPieces?: number;
}

interface Candidate {
  readonly process: Process;
  readonly pagemap: Pagemap;
  readonly memory: Memory;
  readonly segments: readonly Segment[];
  readonly large: readonly Range[];
}

const atLeast = (ranges: readonly Range[], bytes: number) => ranges.filter((range) => range.end - range.start >= bytes);

async function readCandidate(dir: string, process: Process, options: BulkOptions): Promise<Candidate> {
  const pagemap = await readPagemap(dir, `pagemap-${process.pid}.img`);
  await checkPagesSize(dir, pagemap);
  const memory = await readMemory(dir, process.pid);
  const segments = presentSegments(pagemap);
  const fillable = merge(memory.areas.filter(canBeFilled));
  return { process, pagemap, memory, segments, large: atLeast(intersect(segments, fillable), options.minRangeBytes) };
}

/** For each process the ranges that it must keep because it shares them with its parent or a child. */
async function sharedRanges(dir: string, candidates: ReadonlyMap<number, Candidate>): Promise<Map<number, Range[]>> {
  const shared = new Map<number, Range[]>();
  const pages = (of: Candidate) => ({ path: path.join(dir, `pages-${of.pagemap.pagesId}.img`), segments: of.segments });
  for (const child of candidates.values()) {
    const parent = candidates.get(child.process.ppid);
    if (parent === undefined) continue;
    const inherited = merge(inheritedAreas(child.memory, parent.memory));
    const concerned = intersect(inherited, merge([...child.large, ...parent.large]));
    const common = await commonMemory(pages(child), pages(parent), concerned);
    for (const { process } of [child, parent])
      shared.set(process.pid, merge([...(shared.get(process.pid) ?? []), ...common]));
  }
  return shared;
}

/** Plan lines and new pagemap of one process. `number` is its place among sources and outputs. */
function rewrite(dir: string, candidate: Candidate, moved: readonly Range[], number: number) {
  const { pid } = candidate.process;
  const pagesName = `pages-${candidate.pagemap.pagesId}.img`;
  const source = path.join(dir, pagesName);
  const lines = [`src ${number} ${source}`, `out ${number} ${source}${KEPT}`];
  let keptBytes = 0;
  let next = 0;
  for (const segment of candidate.segments) {
    const at = (address: number) => segment.offset + address - segment.start;
    // Every moved range lies in one segment.
    const here: Range[] = [];
    for (let range = moved[next]; range !== undefined && range.start < segment.end; range = moved[++next])
      here.push(range);
    for (const { start, end } of subtract([segment], here)) {
      lines.push(`keep ${number} ${number} ${at(start)} ${end - start}`);
      keptBytes += end - start;
    }
    for (const { start, end } of here) lines.push(`move ${pid} ${number} ${at(start)} ${start} ${end - start}`);
  }
  const pagemap = encodeImage({ kind: 'pagemap', entries: entriesWithout(candidate.pagemap, moved) });
  return { lines, result: { pid, pagemapName: candidate.pagemap.name, pagesName, pagemap, keptBytes } };
}

/**
 * Decides what of the images in `dir` (absolute) goes to the bulk file. Throws ARTIFACT_CORRUPT for images that contradict themselves,
 * MEMORY_FRAGMENTED where there is too much of them.
 */
export async function planBulk(dir: string, options: BulkOptions): Promise<BulkPlan> {
  await requireBearable(dir);
  return await takeTurn(() => plan(dir, options));
}

async function plan(dir: string, options: BulkOptions): Promise<BulkPlan> {
  const living = (await readProcesses(dir)).filter((process) => process.credentials.length > 0);
  const candidates = new Map<number, Candidate>();
  let pieces = 0;
  for (const process of living) {
    const candidate = await readCandidate(dir, process, options);
    pieces += candidate.segments.length;
    requireFewPieces(pieces, options.mostPieces);
    candidates.set(process.pid, candidate);
  }
  const shared = await sharedRanges(dir, candidates);
  const lines: string[] = [];
  const rewrites: BulkRewrite[] = [];
  let movedBytes = 0;
  for (const candidate of candidates.values()) {
    const moved = atLeast(subtract(candidate.large, shared.get(candidate.process.pid) ?? []), options.minRangeBytes);
    if (moved.length === 0) continue;
    const one = rewrite(dir, candidate, moved, rewrites.length);
    for (const line of one.lines) lines.push(line);
    rewrites.push(one.result);
    movedBytes += lengthOf(moved);
  }
  const sharedBytes = [...shared.values()].reduce((sum, ranges) => sum + lengthOf(ranges), 0);
  const text = lines.length === 0 ? '' : `${lines.join('\n')}\n`;
  return { text, processes: rewrites.map(({ pid }) => pid), movedBytes, sharedBytes, rewrites };
}
