import { readdir } from 'node:fs/promises';
import { type Area, type AreaKind, isShared, kindOf, protectionText, readMemory } from './areas.ts';
import type { BulkIndex } from './bulk-index.ts';
import { type MappedFile, readMappedFiles } from './mapped-files.ts';
import { readPresent } from './pagemap.ts';
import { type Process, readInventory, readProcesses } from './processes.ts';
import { measureOf, type Range } from './ranges.ts';
import { corrupt } from './wire.ts';

/** What images hold, for those who only look: which processes, which memory, and how much of it is stored. */

/** Memory of a process; neighbours that are alike are one. Sizes in bytes. */
export interface ContentArea extends Range {
  readonly kind: Exclude<AreaKind, 'memfd'>;
  /** What is mapped, inside the container; empty where that has no name. */
  readonly path: string;
  readonly protection: string;
  readonly shared: boolean;
  /** Pages in CRIU's images and in the bulk file. */
  readonly storedBytes: number;
  /** Of them, those in the bulk file. */
  readonly bulkBytes: number;
}

/** A process without its memory. */
export type ContentProcess = Pick<Process, 'pid' | 'ppid' | 'comm' | 'state'> & { readonly threads: number };

/** What the images lie among. */
export interface ContentSource {
  /** Directory of the images; the pages themselves need not be there. */
  readonly dir: string;
  readonly bulk: BulkIndex;
  /** Size of a pages image, by its name; undefined where there is none. */
  readonly pagesBytes: (name: string) => number | undefined;
  /** Called before each process, so that a long reading can be ended. */
  readonly goOn: () => void;
}

/**
 * Calls `take` with each process and all its memory, in the order of PIDs; what is taken from one is forgotten before the next. Throws
 * ARTIFACT_CORRUPT for images that are malformed or contradict themselves.
 */
export async function readContents(
  source: ContentSource,
  take: (process: ContentProcess, areas: readonly ContentArea[]) => void,
): Promise<void> {
  const { dir, bulk, goOn } = source;
  await readInventory(dir);
  const processes = (await readProcesses(dir)).toSorted((a, b) => a.pid - b.pid);
  const living = new Set(processes.filter(isLiving).map(({ pid }) => pid));
  for (const pid of bulk.memory.keys())
    if (!living.has(pid)) throw corrupt(`the bulk index has memory of process ${pid}, which the images do not have`);
  const files = await readMappedFiles(dir);
  const names = new Set(await readdir(dir));
  const memory = { dir, bulk, files, pages: pagesReader(source, names), shared: new Map<number, Measure>() };
  for (const process of processes) {
    goOn();
    const { pid, ppid, comm, state, threads } = process;
    const areas = isLiving(process) ? await contentAreas(memory, pid) : [];
    take({ pid, ppid, comm, state, threads: threads.length }, areas);
  }
}

const isLiving = ({ state }: Process) => state === 'alive' || state === 'stopped';

type Measure = ReturnType<typeof measureOf>;

/** How much of a range has its pages in the images that a pagemap image tells of. */
type PagesReader = (pagemapName: string) => Promise<Measure>;

function pagesReader({ dir, pagesBytes }: ContentSource, names: ReadonlySet<string>): PagesReader {
  const owners = new Map<number, string>();
  return async (name) => {
    // Shared memory that nobody wrote to has no images.
    if (name.startsWith('pagemap-shmem-') && !names.has(name)) return () => 0;
    const pagemap = await readPresent(dir, name);
    const owner = owners.get(pagemap.pagesId);
    const image = `pages-${pagemap.pagesId}.img`;
    if (owner !== undefined && owner !== name) throw corrupt(`${name}: ${image} belongs to ${owner} too`);
    owners.set(pagemap.pagesId, name);
    const found = pagesBytes(image);
    if (found !== pagemap.pagesBytes)
      throw corrupt(`${image} has ${found ?? 'no'} bytes, its pagemap ${name} tells of ${pagemap.pagesBytes}`);
    return measureOf(pagemap.present);
  };
}

interface MemorySource {
  readonly dir: string;
  readonly bulk: BulkIndex;
  readonly files: ReadonlyMap<number, MappedFile>;
  readonly pages: PagesReader;
  /** What is known of shared memory: it is read once, however many processes have it. */
  readonly shared: Map<number, Measure>;
}

async function contentAreas({ dir, bulk, files, pages, shared }: MemorySource, pid: number): Promise<ContentArea[]> {
  const { areas } = await readMemory(dir, pid);
  const own = await pages(`pagemap-${pid}.img`);
  const moved = measureOf(bulk.memory.get(pid) ?? []);
  const contentOf = async (id: number) => {
    const known = shared.get(id) ?? (await pages(`pagemap-shmem-${id}.img`));
    shared.set(id, known);
    return known;
  };
  const found: ContentArea[] = [];
  for (const area of areas) {
    const { kind, path: name, content } = described(area, files);
    const bulkBytes = moved(area);
    const isElsewhere = content !== undefined && isShared(area);
    const stored = isElsewhere
      ? (await contentOf(content))({ start: area.offset, end: area.offset + area.end - area.start })
      : own(area);
    const { start, end } = area;
    const parts = { start, end, kind, path: name, protection: protectionText(area), shared: isShared(area) };
    append(found, { ...parts, storedBytes: stored + bulkBytes, bulkBytes });
  }
  return found;
}

/** What an area is, what its file is called, and where the content of shared memory is. */
function described(
  area: Area,
  files: ReadonlyMap<number, MappedFile>,
): { kind: ContentArea['kind']; path: string; content: number | undefined } {
  const kind = kindOf(area);
  if (kind === 'shared') return { kind, path: '', content: area.mapped };
  if (kind !== 'file' && kind !== 'memfd') return { kind, path: '', content: undefined };
  const file = files.get(area.mapped);
  const plain = file?.isDevice ? 'device' : 'file';
  return { kind: kind === 'memfd' ? 'shared' : plain, path: file?.path ?? '', content: file?.content };
}

/** Adds an area, to the last one where that is its neighbour and like it. */
function append(areas: ContentArea[], area: ContentArea): void {
  const last = areas.at(-1);
  const isLike =
    last?.end === area.start &&
    last.kind === area.kind &&
    last.path === area.path &&
    last.protection === area.protection &&
    last.shared === area.shared;
  if (!isLike) {
    areas.push(area);
    return;
  }
  areas[areas.length - 1] = {
    ...last,
    end: area.end,
    storedBytes: last.storedBytes + area.storedBytes,
    bulkBytes: last.bulkBytes + area.bulkBytes,
  };
}
