import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { idProblem } from '../../contract/ids.ts';
import { Directory, hasCode } from './directory.ts';
import { usersOf } from './users.ts';

export interface CleanRequest {
  /** Where the volume is mounted. */
  readonly basePath: string;
  readonly checkpointId: string;
  /** Artifacts that another namespace made stay. */
  readonly namespace: string;
  /** How long restores that read an artifact are waited for. */
  readonly waitMs: number;
  readonly silentMs?: number;
  readonly pollMs?: number;
  readonly say: (line: string) => void;
}

/** `kept`: versions of other namespaces. */
export type Cleaned =
  | { readonly result: 'clean'; readonly kept: readonly string[] }
  | { readonly result: 'in-use'; readonly users: readonly string[] };

const POLL_MS = 1_000;
const MAX_RECORD_BYTES = 8 << 20;

/**
 * Removes `<base>/<id>`. Artifacts are moved aside first, so that no new reader finds them, and put back where one came in before. Nothing
 * outside of `<base>/<id>` is touched, and no link followed. Once something lies aside under its last name a sweep or the next try finishes.
 */
export async function clean(request: CleanRequest): Promise<Cleaned> {
  const problem = idProblem(request.checkpointId);
  if (problem !== undefined) throw new RangeError(`the checkpoint id ${problem}`);
  const base = await Directory.mounted(request.basePath);
  try {
    const checkpoint = await base.open(request.checkpointId);
    if (checkpoint === undefined) return { result: 'clean', kept: [] };
    try {
      const cleaned = await cleanCheckpoint(checkpoint, request);
      if (cleaned.result === 'in-use' || cleaned.kept.length > 0) return cleaned;
    } finally {
      await checkpoint.close();
    }
    await base.remove(request.checkpointId);
    await base.sync();
    return { result: 'clean', kept: [] };
  } finally {
    await base.close();
  }
}

async function cleanCheckpoint(checkpoint: Directory, request: CleanRequest): Promise<Cleaned> {
  const versions = await made(checkpoint, 'versions');
  try {
    const staging = await made(versions, 'tmp');
    try {
      const { own, kept } = await sorted(versions, request);
      const users = await emptied({ checkpoint, versions, staging }, own, request);
      if (users.length > 0) return { result: 'in-use', users };
      // Where nothing is kept, the whole checkpoint is removed afterwards.
      if (kept.length > 0)
        for (const name of await staging.names()) if (name.endsWith('.deleted')) await staging.remove(name);
      return { result: 'clean', kept };
    } finally {
      await staging.close();
    }
  } finally {
    await versions.close();
  }
}

interface Places {
  readonly checkpoint: Directory;
  readonly versions: Directory;
  readonly staging: Directory;
}

/** Moves artifacts aside while nobody uses them. Returns who still does when the time is over: then all are in their places. */
async function emptied(places: Places, own: readonly string[], request: CleanRequest): Promise<readonly string[]> {
  const { checkpoint, versions, staging } = places;
  const { waitMs, silentMs, pollMs = POLL_MS, say } = request;
  const deadline = performance.now() + waitMs;
  for (;;) {
    const before = await usersOf(checkpoint, staging, silentMs);
    const users = before.length > 0 ? before : await movedAside(places, own, silentMs);
    if (users.length === 0) break;
    say(`waiting for ${users.slice(0, 10).join(', ')}`);
    if (performance.now() >= deadline) return users;
    await sleep(pollMs);
  }
  // Durable before the first file goes: no half of an artifact may ever come back.
  await Promise.all([versions.sync(), staging.sync()]);
  return [];
}

async function movedAside({ checkpoint, versions, staging }: Places, own: readonly string[], silentMs?: number) {
  const operation = randomUUID();
  const aside = own.map((version) => ({ version, as: `${operation}@${version}.deleted` }));
  for (const { version, as } of aside) await versions.move(version, staging, as);
  const users = await usersOf(checkpoint, staging, silentMs);
  if (users.length > 0) for (const { version, as } of aside) await staging.move(as, versions, version);
  return users;
}

/** The artifacts that may be removed, and those that another namespace made. */
async function sorted(versions: Directory, { namespace, say }: CleanRequest) {
  const own: string[] = [];
  const kept: string[] = [];
  for (const version of await versions.names()) {
    if (version === 'tmp' || idProblem(version) !== undefined) continue;
    const maker = await makerOf(versions, version);
    if (maker === undefined || maker === namespace) own.push(version);
    else kept.push(version);
  }
  for (const version of kept) say(`version ${version} is kept: its record is of another namespace`);
  return { own, kept };
}

/** The namespace that made an artifact, as its record says; undefined where there is none that can be read. */
async function makerOf(versions: Directory, version: string): Promise<string | undefined> {
  if ((await versions.look(version))?.isDirectory() !== true) return undefined;
  const artifact = await versions.open(version);
  if (artifact === undefined) return undefined;
  try {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const handle = await open(artifact.path('manifest.yaml'), flags);
    try {
      const found = await handle.stat();
      if (!found.isFile() || found.size > MAX_RECORD_BYTES) return undefined;
      const record = parse(await handle.readFile('utf8'), { maxAliasCount: 0, logLevel: 'silent' }) as unknown;
      const maker = (record as { source?: { namespace?: unknown } } | null)?.source?.namespace;
      return typeof maker === 'string' ? maker : undefined;
    } finally {
      await handle.close();
    }
  } catch (error) {
    // Torn, or never written: nobody can restore it.
    if (hasCode(error, 'ENOENT', 'ELOOP', 'ENXIO') || (error instanceof Error && error.name.startsWith('YAML')))
      return undefined;
    throw error;
  } finally {
    await artifact.close();
  }
}

async function made(parent: Directory, name: string): Promise<Directory> {
  await mkdir(parent.path(name), { mode: 0o700 }).catch((error: unknown) => {
    if (!hasCode(error, 'EEXIST')) throw error;
  });
  const directory = await parent.open(name);
  if (directory === undefined) throw new Error(`${name} was removed just now`);
  return directory;
}
