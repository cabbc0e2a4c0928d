import type { ContentArea, ContentProcess } from '../criu/images/contents.ts';
import type { ArtifactRecord } from '../store/record.ts';
import type { ArtifactContents, CapturedProcess } from './service.ts';

/**
 * How much of an artifact's contents an answer holds. gRPC clients take 4 MiB unless they are told otherwise; an artifact may have
 * thousands of processes with thousands of areas each. What is left out is the least, and counted.
 */

/** Areas of one process. */
export const MAX_AREAS = 512;
const MAX_PROCESSES = 2_048;
/** Bytes of the answer for all areas, and for all files. The rest is for processes and the record. */
const AREAS_BYTES = 1.25 * 1024 * 1024;
const FILES_BYTES = 768 * 1024;
/** What an entry takes besides its text, at most. */
const AREA_BYTES = 64;
const FILE_BYTES = 100;
/** Longer than any path, and any name of a process, that the kernel has. */
const MAX_PATH = 4_096;
const MAX_NAME = 64;

/** Gathers processes, and forgets while it does so what will not be in the answer. */
export interface Gathered {
  add(process: ContentProcess, areas: readonly ContentArea[]): void;
  result(): Pick<ArtifactContents, 'processes' | 'processesLeftOut'>;
}

export function gatherProcesses({ cuda }: Pick<ArtifactRecord, 'cuda'>): Gathered {
  const devices = new Map(cuda?.processes.map(({ pid, deviceBytes }) => [pid, deviceBytes]));
  let kept: CapturedProcess[] = [];
  let processesLeftOut = 0;
  let bytes = 0;
  const shrink = () => {
    processesLeftOut += Math.max(0, kept.length - MAX_PROCESSES);
    kept = withinRoom(mostStored(kept, MAX_PROCESSES).toSorted((a, b) => a.pid - b.pid));
    bytes = kept.reduce((sum, { areas }) => sum + bytesOf(areas), 0);
  };
  return {
    add: (process, all) => {
      const areas = all.map((area) => ({ ...area, path: clip(area.path, MAX_PATH) }));
      const deviceBytes = devices.get(process.pid);
      const whole: CapturedProcess = {
        ...process,
        comm: clip(process.comm, MAX_NAME),
        cuda: deviceBytes !== undefined,
        deviceBytes: deviceBytes ?? 0,
        memoryBytes: mappedBytes(areas),
        storedBytes: areas.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
        areas,
        areasLeftOut: 0,
        bytesLeftOut: 0,
      };
      const one = withAreas(whole, new Set(mostStored(areas, MAX_AREAS)));
      kept.push(one);
      bytes += bytesOf(one.areas);
      if (bytes > 4 * AREAS_BYTES || kept.length > 4 * MAX_PROCESSES) shrink();
    },
    result: () => {
      shrink();
      return { processes: kept, processesLeftOut };
    },
  };
}

/** The files in the order of their paths, without the smallest where they are too many. */
export function gatherFiles({
  files,
}: Pick<ArtifactRecord, 'files'>): Pick<ArtifactContents, 'files' | 'filesLeftOut' | 'fileBytesLeftOut'> {
  const kept: ArtifactRecord['files'] = [];
  let room = FILES_BYTES;
  for (const file of files.toSorted((a, b) => b.size - a.size)) {
    room -= FILE_BYTES + file.path.length;
    if (room < 0) break;
    kept.push(file);
  }
  const bytes = (of: typeof files) => of.reduce((sum, { size }) => sum + size, 0);
  return {
    files: kept.toSorted((a, b) => (a.path < b.path ? -1 : 1)),
    filesLeftOut: files.length - kept.length,
    fileBytesLeftOut: bytes(files) - bytes(kept),
  };
}

/** The processes with the areas that have the most stored, of all together. */
function withinRoom(processes: readonly CapturedProcess[]): CapturedProcess[] {
  const areas = processes.flatMap((process) => process.areas);
  if (bytesOf(areas) <= AREAS_BYTES) return [...processes];
  const kept = new Set<ContentArea>();
  let room = AREAS_BYTES;
  for (const area of mostStored(areas, areas.length)) {
    room -= bytesOf([area]);
    if (room < 0) break;
    kept.add(area);
  }
  return processes.map((process) => withAreas(process, kept));
}

function withAreas(process: CapturedProcess, wanted: ReadonlySet<ContentArea>): CapturedProcess {
  const areas = process.areas.filter((area) => wanted.has(area));
  return {
    ...process,
    areas,
    areasLeftOut: process.areasLeftOut + process.areas.length - areas.length,
    bytesLeftOut: process.bytesLeftOut + mappedBytes(process.areas) - mappedBytes(areas),
  };
}

/** The `count` with the most stored; of those that have as much, the largest. */
function mostStored<T extends { readonly storedBytes: number }>(all: readonly T[], count: number): T[] {
  const size = (one: T) => ('start' in one && 'end' in one ? Number(one.end) - Number(one.start) : 0);
  return all.toSorted((a, b) => b.storedBytes - a.storedBytes || size(b) - size(a)).slice(0, count);
}

const mappedBytes = (areas: readonly ContentArea[]) => areas.reduce((sum, { start, end }) => sum + end - start, 0);

const bytesOf = (areas: readonly ContentArea[]) =>
  areas.reduce((sum, { path }) => sum + AREA_BYTES + Buffer.byteLength(path), 0);

/** Through a buffer: half of a character would be no text for other languages. */
function clip(text: string, length: number): string {
  return text.length <= length ? text : Buffer.from(text.slice(0, length)).toString();
}
