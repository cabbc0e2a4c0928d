import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { storageFailure, storageWork } from './failure.ts';
import { namesIn } from './files.ts';
import type { RecordKeys } from './key.ts';
import { listArtifacts } from './list.ts';
import { readOwner, storageNow } from './owner.ts';
import {
  type ArtifactName,
  artifactDir,
  hasDirectory,
  houseDir,
  makeDirectory,
  RECORD_FILE,
  stagingRoot,
  type Volume,
} from './paths.ts';
import { forEachOf } from './pool.ts';
import { activeReaders, lastUse } from './readers.ts';
import type { ArtifactRecord } from './record.ts';
import { readSigned } from './verify.ts';

/** One artifact whose record an agent of ours signed, its files whole or not. Times are the storage's own. */
export interface SurveyedArtifact extends ArtifactName {
  readonly namespace: string;
  /** The operation that made it: tells it from a later one of the same name. */
  readonly operationId: string;
  readonly bytes: number;
  readonly createdMs: number;
  readonly lastUsedMs: number;
  /** Somebody reads it, or has an artifact of the same id in the making, on any node. */
  readonly isBusy: boolean;
}

export interface Survey {
  /** By id and version. */
  readonly artifacts: readonly SurveyedArtifact[];
  /** What lies where artifacts lie, and cannot be told to be ours. */
  readonly unreadable: readonly { readonly name: ArtifactName; readonly problem: SnapshotError }[];
  readonly nowMs: number;
  /** There are others that were not looked at. */
  readonly more: boolean;
}

export interface SurveyRequest {
  readonly keys: RecordKeys;
  /** Readers and writers that have been silent for longer do not count. */
  readonly silentAfterMs: number;
  readonly limit: number;
  readonly signal?: AbortSignal;
}

/** How many records are read at once: the storage's latencies overlap. */
const AT_ONCE = 8;
const MAX_STAGED = 10_000;

/** Reads the record of everything on a volume, and who is at work on it. Only the storage itself failing ends it. */
export async function surveyArtifacts(volume: Volume, request: SurveyRequest): Promise<Survey> {
  return await storageWork(`survey ${volume.root}`, async () => {
    await makeDirectory(volume.root, houseDir(volume));
    const nowMs = await storageNow(houseDir(volume));
    const { artifacts: names, more } = await listArtifacts(volume, request.limit);
    const artifacts: SurveyedArtifact[] = [];
    const unreadable: Survey['unreadable'][number][] = [];
    await forEachOf(names, AT_ONCE, async (name) => {
      if (request.signal?.aborted) throw new SnapshotError('CANCELLED', 'the survey was cancelled');
      try {
        artifacts.push(await lookAt(volume, name, { ...request, nowMs }));
      } catch (thrown) {
        if (!(await isThere(volume, name))) return;
        unreadable.push({ name, problem: storageFailure(thrown, `look at ${name.id}, version ${name.version}`) });
      }
    });
    const order = new Map(names.map((name, place) => [`${name.id}/${name.version}`, place]));
    const place = ({ id, version }: ArtifactName) => order.get(`${id}/${version}`) ?? 0;
    return {
      artifacts: artifacts.toSorted((a, b) => place(a) - place(b)),
      unreadable: unreadable.toSorted((a, b) => place(a.name) - place(b.name)),
      nowMs,
      more,
    };
  });
}

/** Who is at work is asked first: a reader that comes later is seen by the deletion itself. */
async function lookAt(
  volume: Volume,
  name: ArtifactName,
  request: SurveyRequest & { readonly nowMs: number },
): Promise<SurveyedArtifact> {
  const isWritten = await isBeingWritten(volume, name.id, request);
  const readers = await activeReaders(volume, name, request.silentAfterMs);
  const record = await readSigned(volume, { ...name, keys: request.keys });
  const { mtimeMs: createdMs } = await lstat(join(artifactDir(volume, name), RECORD_FILE));
  return {
    id: name.id,
    version: name.version,
    namespace: record.source.namespace,
    operationId: record.operationId,
    bytes: bytesOf(record),
    createdMs,
    lastUsedMs: Math.max(createdMs, (await lastUse(volume, name)) ?? createdMs),
    isBusy: isWritten || readers.length > 0,
  };
}

/** What an artifact takes on the volume, without its record. */
function bytesOf(record: ArtifactRecord): number {
  return record.files.reduce((sum, { size }) => sum + size, 0);
}

/** Whether an operation has an artifact of this id in the making: which version is in nobody's reach to know. */
async function isBeingWritten(
  volume: Volume,
  id: string,
  { nowMs, silentAfterMs }: { readonly nowMs: number; readonly silentAfterMs: number },
): Promise<boolean> {
  const root = stagingRoot(volume, id);
  if (!(await hasDirectory(volume.root, root))) return false;
  const { names } = await namesIn(root, MAX_STAGED);
  for (const name of names.filter((each) => each.endsWith('.owner'))) {
    const owner = await readOwner(join(root, name));
    if (owner !== undefined && nowMs - owner.mtimeMs < silentAfterMs) return true;
  }
  return false;
}

async function isThere(volume: Volume, name: ArtifactName): Promise<boolean> {
  return await hasDirectory(volume.root, artifactDir(volume, name)).catch(() => true);
}
