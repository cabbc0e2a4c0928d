import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';
import type { Native } from '../host/native.ts';
import type { AttachedVolume } from '../store/attach.ts';
import { verifyFiles } from '../store/copy.ts';
import { deleteArtifact } from '../store/deletion.ts';
import type { RecordKeys } from '../store/key.ts';
import { listArtifacts } from '../store/list.ts';
import { type ArtifactName, locationOf, requireId } from '../store/paths.ts';
import { activeReaders, holdReader } from '../store/readers.ts';
import { type ArtifactRecord, deriveBulkKey } from '../store/record.ts';
import { BULK_PAGES } from '../store/schema.ts';
import { type Artifact, artifactState, readArtifact, readSigned } from '../store/verify.ts';
import type { AgentService, ArtifactView, Caller } from './service.ts';

/** What the calls about artifacts work with. */
export interface ArtifactCalls {
  readonly keys: RecordKeys;
  readonly node: { readonly name: string; readonly bootId: string; readonly threads: number };
  readonly native: Pick<Native, 'bulkFill'>;
  readonly log: Logger;
}

/** A volume that is attached for as long as the call takes. */
export type OpenedVolume = Pick<AttachedVolume, 'root' | 'basePath'>;

type Request<K extends keyof AgentService> = Omit<Parameters<AgentService[K]>[0], 'storage'>;

/** Names that are read at once, before it is known whose they are. */
const BATCH = 256;
const MAX_PAGE = 1_000;
/** Longer than any storage that is worth the name needs for an artifact. */
const VERIFY_MS = 24 * 3_600_000;

/**
 * One page of the artifacts that the caller may see, by id and version: at most `limit` (0: 1000) of those that follow `after`. `next` is
 * what to give as `after` for the rest, and empty where there is none.
 */
export async function listVisible(
  calls: ArtifactCalls,
  volume: OpenedVolume,
  request: Request<'listArtifacts'>,
  caller: Caller,
): Promise<{ artifacts: ArtifactView[]; next: string }> {
  const limit = Math.min(request.limit > 0 ? request.limit : MAX_PAGE, MAX_PAGE);
  const artifacts: ArtifactView[] = [];
  let after = request.after === '' ? undefined : parsePlace(request.after);
  for (;;) {
    const batch = await listArtifacts(volume, BATCH, after);
    for (const name of batch.artifacts) {
      const view = await viewOf(calls, volume, name, caller);
      if (view === undefined) continue;
      const last = artifacts.at(-1);
      // Seen only now that there is one more: the place of somebody else's artifact must not be told.
      if (artifacts.length === limit && last !== undefined) return { artifacts, next: `${last.id}/${last.version}` };
      artifacts.push(view);
    }
    after = batch.artifacts.at(-1);
    if (!batch.more || after === undefined) return { artifacts, next: '' };
  }
}

function parsePlace(after: string): ArtifactName {
  const [id = '', version = '', ...more] = after.split('/');
  if (more.length > 0 || version === '')
    throw new SnapshotError(
      'REQUEST_INVALID',
      `"${after.slice(0, 150)}" is no place in the list: use what the last page gave`,
    );
  return { id: requireId(id, 'checkpoint id'), version: requireId(version, 'artifact version') };
}

/** One artifact; what is wrong with it is in the view. Throws ARTIFACT_NOT_FOUND, also for what the caller may not see. */
export async function getVisible(
  calls: ArtifactCalls,
  volume: OpenedVolume,
  request: Request<'getArtifact'>,
  caller: Caller,
): Promise<ArtifactView> {
  const view = await viewOf(calls, volume, request, caller);
  if (view === undefined) throw notFound(request);
  return view;
}

/** The record of a complete artifact that the caller may see. Throws what is wrong with it. */
export async function recordVisible(
  calls: Pick<ArtifactCalls, 'keys'>,
  volume: OpenedVolume,
  name: ArtifactName,
  caller: Caller,
): Promise<ArtifactRecord> {
  await requireVisible(calls.keys, volume, name, caller);
  const { record } = await readArtifact(volume, { id: name.id, version: name.version, keys: calls.keys });
  // Replaced in between.
  if (!isVisible(record, caller)) throw notFound(name);
  return record;
}

const notFound = ({ id, version }: ArtifactName) =>
  new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${id}, version ${version}`);

/** The artifact as it shows to this caller; undefined where there is none for them. */
async function viewOf(
  { keys }: ArtifactCalls,
  volume: OpenedVolume,
  { id, version }: ArtifactName,
  caller: Caller,
): Promise<ArtifactView | undefined> {
  // First only the record: another namespace's files are not looked at.
  if (caller.namespaces !== 'all' && (await ownRecord(keys, volume, { id, version }, caller)) === undefined)
    return undefined;
  const found = await artifactState(volume, { id, version, keys });
  if (found.state === 'absent') return undefined;
  const record = found.state === 'complete' ? found.artifact.record : found.record;
  // Replaced in between.
  if (!isVisible(record, caller)) return undefined;
  return {
    id,
    version,
    location: locationOf(volume.basePath, { id, version }),
    record,
    ...(await readersOf(volume, { id, version }, found.state === 'problem' ? found.problem : undefined)),
  };
}

/** Who reads it; a link planted where the marks are must not hide the artifact, and is shown as what is wrong with it. */
export async function readersOf(
  volume: OpenedVolume,
  name: ArtifactName,
  problem: SnapshotError | undefined,
): Promise<Pick<ArtifactView, 'readers' | 'problem'>> {
  try {
    return { readers: await activeReaders(volume, name), problem };
  } catch (thrown) {
    if (thrown instanceof SnapshotError && thrown.code === 'STORAGE_UNSAFE')
      return { readers: [], problem: problem ?? thrown };
    throw thrown;
  }
}

/** What has no record that can be believed belongs to nobody: only who may see all sees it. */
function isVisible(record: ArtifactRecord | undefined, { namespaces }: Caller): boolean {
  return namespaces === 'all' || (record !== undefined && namespaces.has(record.source.namespace));
}

async function ownRecord(
  keys: RecordKeys,
  volume: OpenedVolume,
  name: ArtifactName,
  caller: Caller,
): Promise<ArtifactRecord | undefined> {
  try {
    const record = await readSigned(volume, { ...name, keys });
    return isVisible(record, caller) ? record : undefined;
  } catch (thrown) {
    const isAbout =
      thrown instanceof SnapshotError && (thrown.code.startsWith('ARTIFACT_') || thrown.code === 'STORAGE_UNSAFE');
    if (isAbout) return undefined;
    throw thrown;
  }
}

/**
 * The namespace that must have made the artifact; undefined where the caller may see all. Throws ARTIFACT_NOT_FOUND where it is not there
 * for this caller.
 */
async function requireVisible(
  keys: RecordKeys,
  volume: OpenedVolume,
  name: ArtifactName,
  caller: Caller,
): Promise<string | undefined> {
  requireId(name.id, 'checkpoint id');
  requireId(name.version, 'artifact version');
  if (caller.namespaces === 'all') return undefined;
  const record = await ownRecord(keys, volume, name, caller);
  if (record === undefined) throw notFound(name);
  return record.source.namespace;
}

/**
 * Works on an artifact that the caller may see, with a mark that keeps others from deleting it. This does not count as a use. Throws what
 * is wrong with its record or the sizes of its files.
 */
export async function withVisible<T>(
  calls: Pick<ArtifactCalls, 'keys' | 'node' | 'log'>,
  volume: OpenedVolume,
  { id, version, what, caller }: ArtifactName & { readonly what: 'verify' | 'inspect'; readonly caller: Caller },
  work: (artifact: Artifact, operationId: string) => Promise<T>,
): Promise<T> {
  const { keys, node } = calls;
  await requireVisible(keys, volume, { id, version }, caller);
  const operationId = `${what}-${randomUUID()}`;
  const operation = { node: node.name, bootId: node.bootId, operationId };
  const hold = await holdReader(volume, { id, version, operation, isUse: false });
  try {
    const artifact = await readArtifact(volume, { id, version, keys, directory: hold.directory });
    // Replaced in between.
    if (!isVisible(artifact.record, caller)) throw notFound({ id, version });
    return await work(artifact, operationId);
  } finally {
    await hold.stop().catch((err: unknown) => calls.log.warn({ err }, 'the artifact is still marked as read'));
  }
}

/** Reads all of an artifact, and compares every digest and every tag. Throws what is wrong with it, or CANCELLED. */
export async function verifyVisible(
  calls: ArtifactCalls,
  volume: OpenedVolume,
  request: Request<'verifyArtifact'> & { readonly signal: AbortSignal },
  caller: Caller,
): Promise<{ files: number; bytes: number; seconds: number }> {
  const { id, version, signal } = request;
  const began = performance.now();
  return await withVisible(calls, volume, { id, version, what: 'verify', caller }, async (artifact) => {
    const { directory, record } = artifact;
    const { files } = record;
    await verifyFiles(
      directory,
      files.filter(({ path }) => path !== BULK_PAGES),
      signal,
    );
    if (record.bulk !== null) await verifyBulk(calls, artifact, directory, signal);
    if (signal.aborted) throw new SnapshotError('CANCELLED', 'the verification was cancelled');
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    return { files: files.length, bytes, seconds: (performance.now() - began) / 1000 };
  });
}

/** The bulk pages have a tag for each block instead of a digest. */
async function verifyBulk(
  { native, node }: ArtifactCalls,
  { record, key }: Artifact,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const { bulk } = record;
  if (bulk === null) return;
  const found = await native.bulkFill({
    bulk: join(directory, BULK_PAGES),
    index: join(directory, 'memory/bulk.index'),
    key: Buffer.from(deriveBulkKey(key, bulk.salt)),
    threads: node.threads,
    processes: 'verify-only',
    deadlineMs: VERIFY_MS,
    signal,
  });
  if (found.blocks === bulk.blocks) return;
  throw new SnapshotError(
    'ARTIFACT_CORRUPT',
    `the index has ${found.blocks} blocks of memory, the record says ${bulk.blocks}`,
  );
}

/**
 * Deletes an artifact, waiting for readers on any node for up to `waitSeconds`. Throws ARTIFACT_NOT_FOUND, also for what the caller may not
 * see, ARTIFACT_BUSY with the readers' names where they stay, and CANCELLED. Who may see all may also delete what nobody can read.
 */
export async function deleteVisible(
  calls: ArtifactCalls,
  volume: OpenedVolume,
  request: Request<'deleteArtifact'> & { readonly signal: AbortSignal },
  caller: Caller,
): Promise<void> {
  const { id, version, signal } = request;
  const { keys } = calls;
  const namespace = await requireVisible(keys, volume, request, caller);
  await deleteArtifact(volume, {
    id,
    version,
    keys,
    operationId: `delete-${randomUUID()}`,
    waitMs: request.waitSeconds * 1000,
    signal,
    ...(namespace === undefined ? {} : { namespace }),
  });
  calls.log.info({ checkpointId: id, version, caller: caller.name }, 'artifact deleted');
}
