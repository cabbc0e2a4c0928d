import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type BulkIndex, readBulkIndex } from '../criu/images/bulk-index.ts';
import { readContents } from '../criu/images/contents.ts';
import { SnapshotError } from '../errors.ts';
import { copyVerified } from '../store/copy.ts';
import { type ArtifactName, locationOf } from '../store/paths.ts';
import type { ArtifactRecord } from '../store/record.ts';
import type { Artifact } from '../store/verify.ts';
import { type ArtifactCalls, type OpenedVolume, readersOf, withVisible } from './artifacts.ts';
import { gatherFiles, gatherProcesses } from './contents-room.ts';
import type { ArtifactContents, Caller } from './service.ts';

/** What an inspection works with. */
export interface InspectionCalls extends Pick<ArtifactCalls, 'keys' | 'node' | 'log'> {
  /** A directory that only this agent reaches. */
  makeWorkDir(): Promise<{ readonly path: string; remove(): Promise<void> }>;
}

const BULK_INDEX = 'memory/bulk.index';
const REMOVED = 'rootfs/removed.json';
/** What says what there is. The pages, which are nearly all of an artifact, do not. */
const TELLING = /^criu\/(inventory|pstree|files|memfd|core-\d+|mm-\d+|pagemap-(shmem-)?\d+)\.img$/;

/** Bytes of one such file, of all, and of the index, which is read line by line. A hundred times what a large workload has. */
const MAX_IMAGE = 16 << 20;
const MAX_IMAGES = 64 << 20;
const MAX_INDEX = 128 << 20;

/**
 * What is inside an artifact that the caller may see. Only copies of images are read that have the digests of the signed record. Throws
 * what is wrong with them, ARTIFACT_TOO_LARGE where they are more than is read, or CANCELLED.
 */
export async function inspectVisible(
  calls: InspectionCalls,
  volume: OpenedVolume,
  request: ArtifactName & { readonly signal: AbortSignal },
  caller: Caller,
): Promise<ArtifactContents> {
  const { id, version, signal } = request;
  return await withVisible(calls, volume, { id, version, what: 'inspect', caller }, async (artifact, operationId) => {
    const { record } = artifact;
    const { readers, problem } = await readersOf(volume, { id, version }, undefined);
    const others = readers.filter((reader) => reader !== operationId);
    const location = locationOf(volume.basePath, { id, version });
    return {
      artifact: { id, version, location, record, problem, readers: others },
      ...(await readCopies(calls, artifact, signal)),
      ...gatherFiles(record),
    };
  });
}

async function readCopies(
  calls: InspectionCalls,
  { record, directory }: Artifact,
  signal: AbortSignal,
): Promise<Pick<ArtifactContents, 'processes' | 'processesLeftOut' | 'removedPaths'>> {
  const files = tellingFiles(record);
  const work = await calls.makeWorkDir();
  try {
    await copyVerified({ from: directory, to: work.path, files, signal });
    const has = (path: string) => files.some((file) => file.path === path);
    const bulk = await indexOf(record, has(BULK_INDEX) ? join(work.path, BULK_INDEX) : undefined);
    const sizes = new Map(record.files.map(({ path, size }) => [path, size]));
    const gathered = gatherProcesses(record);
    const source = {
      dir: join(work.path, 'criu'),
      bulk,
      pagesBytes: (name: string) => sizes.get(`criu/${name}`),
      goOn: () => {
        if (signal.aborted) throw new SnapshotError('CANCELLED', 'the inspection was cancelled');
      },
    };
    await readContents(source, gathered.add);
    const removedPaths = has(REMOVED) ? await countRemoved(join(work.path, REMOVED)) : 0;
    return { ...gathered.result(), removedPaths };
  } finally {
    await work.remove();
  }
}

/** The files to be read, which the record bounds before anything is. */
function tellingFiles({ files }: ArtifactRecord): ArtifactRecord['files'] {
  const wanted = files.filter(({ path }) => TELLING.test(path) || path === BULK_INDEX || path === REMOVED);
  let left = MAX_IMAGES;
  for (const { path, size } of wanted) {
    const most = path === BULK_INDEX ? MAX_INDEX : MAX_IMAGE;
    if (size > most)
      throw new SnapshotError('ARTIFACT_TOO_LARGE', `${path} has ${size} bytes, an inspection reads ${most}`);
    if (path !== BULK_INDEX) left -= size;
  }
  if (left >= 0) return wanted;
  const most = `an inspection reads ${MAX_IMAGES} bytes of images`;
  throw new SnapshotError('ARTIFACT_TOO_LARGE', `${most}, this artifact has ${MAX_IMAGES - left}`);
}

async function indexOf({ bulk }: ArtifactRecord, path: string | undefined): Promise<BulkIndex> {
  const index = path === undefined ? { memory: new Map(), blocks: 0, bytes: 0 } : await readBulkIndex(path);
  const wanted = bulk?.blocks ?? 0;
  if (index.blocks === wanted) return index;
  throw new SnapshotError(
    'ARTIFACT_CORRUPT',
    `the index has ${index.blocks} blocks of memory, the record says ${wanted}`,
  );
}

const removedList = z.object({ removed: z.array(z.string()) });

async function countRemoved(path: string): Promise<number> {
  try {
    return removedList.parse(JSON.parse(await readFile(path, 'utf8'))).removed.length;
  } catch (cause) {
    throw new SnapshotError('ARTIFACT_CORRUPT', `${REMOVED} does not have its form`, { cause });
  }
}
