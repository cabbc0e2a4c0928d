import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { readBounded } from './files.ts';
import type { RecordKey, RecordKeys } from './key.ts';
import { type ArtifactName, artifactDir, hasDirectory, RECORD_FILE, type Volume } from './paths.ts';
import { type ArtifactRecord, decodeRecord, MAX_RECORD_BYTES, type SignedRecord } from './record.ts';
import { listTree } from './tree.ts';

/** A complete artifact: present, its record valid and signed, the files it lists there with their sizes, and no others. */
export interface Artifact {
  readonly directory: string;
  readonly record: ArtifactRecord;
  /** The key that signed the record; the bulk key is derived from it. */
  readonly key: RecordKey;
}

export type ArtifactState =
  | { readonly state: 'absent' }
  | { readonly state: 'complete'; readonly artifact: Artifact }
  /** `record` is there where the record itself was good, but not what it describes. */
  | { readonly state: 'problem'; readonly problem: SnapshotError; readonly record?: ArtifactRecord };

export interface ArtifactQuery extends ArtifactName {
  readonly keys: RecordKeys;
  /** Where the artifact is open already (a reader's hold); else its place on the volume. */
  readonly directory?: string;
}

/** What is at an artifact's place. Throws only where that cannot be told: the storage fails, or the way there is unsafe. */
export async function artifactState(volume: Volume, query: ArtifactQuery): Promise<ArtifactState> {
  const place = artifactDir(volume, query);
  const directory = query.directory ?? place;
  return await storageWork(`look at ${place}`, async () => {
    if (query.directory === undefined && !(await hasDirectory(volume.root, place))) return { state: 'absent' };
    let record: ArtifactRecord | undefined;
    try {
      const signed = await readRecord(directory, query);
      record = signed.record;
      await requireFiles(directory, record);
      return { state: 'complete', artifact: { directory, record, key: signed.key } };
    } catch (thrown) {
      const problem = asProblem(thrown, place);
      return record === undefined ? { state: 'problem', problem } : { state: 'problem', problem, record };
    }
  });
}

/**
 * The signed record of what lies at an artifact's place, whether its files are whole or not. Throws where there is none, or none
 * that this agent can believe.
 */
export async function readSigned(volume: Volume, query: ArtifactQuery): Promise<ArtifactRecord> {
  const place = artifactDir(volume, query);
  return await storageWork(`look at ${place}`, async () => {
    const isThere = query.directory !== undefined || (await hasDirectory(volume.root, place));
    if (!isThere)
      throw new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${query.id}, version ${query.version}`);
    return (await readRecord(query.directory ?? place, query)).record;
  });
}

/** The artifact, or the reason why it cannot be used. `namespace`: the one that must have made it. */
export async function readArtifact(volume: Volume, query: ArtifactQuery & { namespace?: string }): Promise<Artifact> {
  const found = await artifactState(volume, query);
  if (found.state === 'problem') throw found.problem;
  if (found.state === 'absent') {
    throw new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${query.id}, version ${query.version}`);
  }
  if (query.namespace !== undefined) requireNamespace(found.artifact.record, query.namespace);
  return found.artifact;
}

/** Throws ARTIFACT_FOREIGN where another namespace made the artifact. Which one, those of this namespace do not hear. */
export function requireNamespace(record: ArtifactRecord, namespace: string): void {
  if (record.source.namespace === namespace) return;
  const artifact = `artifact ${record.checkpointId}, version ${record.version},`;
  throw new SnapshotError('ARTIFACT_FOREIGN', `${artifact} belongs to another namespace than ${namespace}`);
}

/** Reads the record in `directory`, which must be the one of the artifact `query` names: a signed record can be copied elsewhere. */
async function readRecord(directory: string, query: ArtifactQuery): Promise<SignedRecord> {
  const content = await readBounded(join(directory, RECORD_FILE), MAX_RECORD_BYTES, 'ARTIFACT_UNSAFE').catch(
    (thrown: unknown) => {
      if (!hasErrno(thrown, 'ENOENT')) throw thrown;
      throw new SnapshotError('ARTIFACT_NOT_FOUND', `${query.id}, version ${query.version}, has no completion record`);
    },
  );
  if (content === undefined)
    throw new SnapshotError('ARTIFACT_CORRUPT', `the record has more than ${MAX_RECORD_BYTES} bytes`);
  const signed = decodeRecord(asText(content), query.keys);
  const { checkpointId, version } = signed.record;
  if (checkpointId === query.id && version === query.version) return signed;
  throw new SnapshotError('ARTIFACT_CORRUPT', `the record is that of ${checkpointId}, version ${version}`);
}

function asText(content: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content);
  } catch (cause) {
    throw new SnapshotError('ARTIFACT_CORRUPT', 'the record is not UTF-8', { cause });
  }
}

async function requireFiles(directory: string, record: ArtifactRecord): Promise<void> {
  const { files } = await listTree(directory);
  for (const { path, size } of record.files) {
    const found = files.get(path);
    if (found === undefined) throw new SnapshotError('ARTIFACT_CORRUPT', `${path} is missing`);
    if (found !== size)
      throw new SnapshotError('ARTIFACT_CORRUPT', `${path} has ${found} bytes, the record says ${size}`);
  }
  if (files.size === record.files.length) return;
  const listed = new Set(record.files.map((entry) => entry.path));
  const extra = [...files.keys()].filter((path) => !listed.has(path));
  throw new SnapshotError('ARTIFACT_CORRUPT', `${extra[0]} is not in the record (${extra.length} such files)`);
}

/** What was found wrong with an artifact; a failing storage says nothing about the artifact and is thrown on. */
function asProblem(thrown: unknown, place: string): SnapshotError {
  if (thrown instanceof SnapshotError && thrown.code.startsWith('ARTIFACT_')) {
    return new SnapshotError(thrown.code, `${place}: ${thrown.message}`, { cause: thrown, reasons: thrown.reasons });
  }
  // It was listed a moment ago: somebody is removing or replacing it.
  if (!hasErrno(thrown, 'ENOENT')) throw thrown;
  return new SnapshotError('ARTIFACT_NOT_FOUND', `${place} changed while it was looked at`, { cause: thrown });
}
