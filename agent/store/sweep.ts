import { lstat, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { idProblem } from '../../contract/ids.ts';
import { tidyAfter } from './deletion.ts';
import { hasErrno, storageFailure, storageWork } from './failure.ts';
import { namesIn, removeTree, syncDirectory } from './files.ts';
import { listIds } from './list.ts';
import { type FoundOwner, readOwner, removeFile, storageNow } from './owner.ts';
import { artifactDir, hasDirectory, readersDir, stagingRoot, type Volume } from './paths.ts';
import { activeReaders } from './readers.ts';
import { discardTree } from './staging.ts';

export interface SweepRequest {
  /** This node and its boot: of the operations that name them, those not in `liveOperations` are dead. */
  readonly node: string;
  readonly bootId: string;
  readonly liveOperations: ReadonlySet<string>;
  /** When what another node has in the making, and what nobody owns, counts as left behind. Default: a day. */
  readonly staleAfterMs?: number;
  /** When another node's silent replacement no longer keeps the old artifact from being put back. Default: two minutes. */
  readonly silentAfterMs?: number;
  readonly limits?: Partial<SweepLimits>;
  readonly signal?: AbortSignal;
}

/** One sweep looks at and removes no more than this, whatever somebody put on the volume; the next one goes on. */
interface SweepLimits {
  readonly ids: number;
  readonly entriesPerId: number;
  readonly removals: number;
  readonly actions: number;
}

interface SweepAction {
  readonly path: string;
  readonly did: 'removed' | 'put back' | 'left' | 'failed';
  readonly why: string;
}

export interface Swept {
  readonly actions: readonly SweepAction[];
  /** A limit was reached: there is more to do. */
  readonly more: boolean;
}

const LIMITS: SweepLimits = { ids: 10_000, entriesPerId: 1_000, removals: 100_000, actions: 1_000 };
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const ASIDE = /^([^@]+)@([^@]+)\.(old|deleted)$/;

interface Context {
  readonly volume: Volume;
  readonly request: SweepRequest;
  readonly staleAfterMs: number;
  readonly silentAfterMs: number;
  readonly limits: SweepLimits;
  readonly budget: { left: number };
  readonly actions: SweepAction[];
  more: boolean;
}

/** The staging directory of one checkpoint, as listed. */
interface Scene {
  readonly id: string;
  readonly root: string;
  readonly names: ReadonlySet<string>;
  readonly owners: ReadonlyMap<string, FoundOwner>;
  readonly now: number;
}

/** Puts back what a dead replacement moved aside, and removes what dead operations left. Says what it did and why. */
export async function sweep(volume: Volume, request: SweepRequest): Promise<Swept> {
  const limits = { ...LIMITS, ...request.limits };
  const context: Context = {
    volume,
    request,
    staleAfterMs: request.staleAfterMs ?? 24 * 3_600_000,
    silentAfterMs: request.silentAfterMs ?? 120_000,
    limits,
    budget: { left: limits.removals },
    actions: [],
    more: false,
  };
  const { ids, more } = await listIds(volume, limits.ids);
  context.more = more;
  for (const id of ids) {
    if (request.signal?.aborted || context.actions.length >= limits.actions)
      return { actions: context.actions, more: true };
    await attempt(context, stagingRoot(volume, id), () => sweepStaging(context, id));
    await attempt(context, join(volume.root, id, 'readers'), () => sweepReaders(context, id));
  }
  return { actions: context.actions, more: context.more || context.budget.left <= 0 };
}

/** What goes wrong with one entry is noted and does not keep the sweep from the others. */
async function attempt(context: Context, path: string, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (thrown) {
    note(context, path, 'failed', storageFailure(thrown, 'sweep').message);
  }
}

function note(context: Context, path: string, did: SweepAction['did'], why: string): void {
  if (context.actions.length < context.limits.actions) context.actions.push({ path, did, why });
  else context.more = true;
}

async function sweepStaging(context: Context, id: string): Promise<void> {
  const scene = await lookAround(context, id);
  if (scene === undefined) return;
  // Putting back first: it is the one thing here that somebody waits for.
  const order = [...scene.names].sort((a, b) => Number(b.endsWith('.old')) - Number(a.endsWith('.old')));
  for (const name of order) await attempt(context, join(scene.root, name), () => sweepEntry(context, scene, name));
}

async function lookAround(context: Context, id: string): Promise<Scene | undefined> {
  const root = stagingRoot(context.volume, id);
  if (!(await hasDirectory(context.volume.root, root))) return undefined;
  const { names, more } = await namesIn(root, context.limits.entriesPerId);
  context.more ||= more;
  if (names.length === 0) return undefined;
  const owners = new Map<string, FoundOwner>();
  for (const name of names.filter((each) => each.endsWith('.owner'))) {
    const found = await readOwner(join(root, name));
    if (found !== undefined) owners.set(name.slice(0, -'.owner'.length), found);
  }
  return { id, root, names: new Set(names), owners, now: await storageNow(root) };
}

async function sweepEntry(context: Context, scene: Scene, name: string): Promise<void> {
  const path = join(scene.root, name);
  const aside = ASIDE.exec(name);
  if (aside !== null)
    return await sweepAside(context, scene, { path, operation: aside[1] ?? '', version: aside[2] ?? '' });
  if (UUID.test(name)) return await sweepStaged(context, scene, name);
  const [stem, ending] = [name.slice(0, 36), name.slice(36)];
  if (UUID.test(stem) && ending === '.trash') {
    if (await removeTree(path, context.budget))
      note(context, path, 'removed', 'claimed for removal by an agent that did not finish');
    else context.more = true;
  } else if (UUID.test(stem) && ending === '.owner') {
    await sweepOwner(context, scene, stem);
  } else {
    note(context, path, 'left', 'no agent gives such names');
  }
}

/** An artifact in the making goes when its operation is dead, and its owner file after it. */
async function sweepStaged(context: Context, scene: Scene, uuid: string): Promise<void> {
  const path = join(scene.root, uuid);
  const found = scene.owners.get(uuid) ?? { mtimeMs: (await lstat(path)).mtimeMs, owner: undefined };
  const death = causeOfDeath(context, scene.now, found, context.staleAfterMs);
  if (death === undefined) return;
  await discard(context, path, death);
  await removeFile(`${path}.owner`);
}

/** An owner file without a directory: the agent died just before it made the one, or just after it published it. */
async function sweepOwner(context: Context, scene: Scene, uuid: string): Promise<void> {
  const found = scene.owners.get(uuid);
  if (found === undefined || scene.names.has(uuid)) return;
  // One that was never written in full belongs to nothing: it need not wait for long.
  const limitMs = found.owner === undefined ? context.silentAfterMs : context.staleAfterMs;
  const death = causeOfDeath(context, scene.now, found, limitMs);
  if (death === undefined) return;
  const path = join(scene.root, `${uuid}.owner`);
  await removeFile(path);
  note(context, path, 'removed', death);
}

interface Aside {
  readonly path: string;
  readonly operation: string;
  readonly version: string;
}

async function sweepAside(context: Context, scene: Scene, { path, operation, version }: Aside): Promise<void> {
  if (idProblem(version) !== undefined) return note(context, path, 'left', 'no agent gives such names');
  const name = { id: scene.id, version };
  const place = artifactDir(context.volume, name);
  if (path.endsWith('.old')) {
    if (isAtWork(context, scene, operation)) return note(context, path, 'left', `operation ${operation} is at work`);
    if (!(await hasDirectory(context.volume.root, place))) return await putBack(context, path, place);
  }
  const readers = await activeReaders(context.volume, name);
  if (readers.length > 0) return note(context, path, 'left', `read by ${readers.slice(0, 10).join(', ')}`);
  await discard(
    context,
    path,
    path.endsWith('.old') ? 'a newer artifact is in its place' : 'its deletion was not finished',
  );
  if (path.endsWith('.deleted') && !(await hasDirectory(context.volume.root, place)))
    await tidyAfter(context.volume, name);
}

async function putBack(context: Context, path: string, place: string): Promise<void> {
  if (!(await lstat(path)).isDirectory()) return await discard(context, path, 'it is not a directory');
  try {
    await rename(path, place);
  } catch (thrown) {
    // Its operation, or another agent's sweep, came first.
    if (hasErrno(thrown, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) return;
    throw thrown;
  }
  await syncDirectory(dirname(place));
  await syncDirectory(dirname(path));
  note(context, path, 'put back', 'its replacement was not finished');
}

async function discard(context: Context, path: string, why: string): Promise<void> {
  if (context.budget.left <= 0) {
    context.more = true;
    return;
  }
  if (await discardTree(path, context.budget)) note(context, path, 'removed', why);
}

async function sweepReaders(context: Context, id: string): Promise<void> {
  const { volume, limits } = context;
  const top = join(volume.root, id, 'readers');
  if (!(await hasDirectory(volume.root, top))) return;
  const { names, more } = await namesIn(top, limits.entriesPerId);
  context.more ||= more;
  for (const version of names.filter((each) => idProblem(each) === undefined)) {
    const directory = readersDir(volume, { id, version });
    await attempt(context, directory, () => sweepMarks(context, id, directory));
  }
}

async function sweepMarks(context: Context, id: string, directory: string): Promise<void> {
  const { volume, limits } = context;
  if (!(await hasDirectory(volume.root, directory))) return;
  const { names, more } = await namesIn(directory, limits.entriesPerId);
  context.more ||= more;
  if (names.length === 0 || !(await hasDirectory(volume.root, stagingRoot(volume, id)))) return;
  const now = await storageNow(stagingRoot(volume, id));
  for (const name of names) {
    const path = join(directory, name);
    const found = await readOwner(path);
    const death = found === undefined ? undefined : causeOfDeath(context, now, found, context.staleAfterMs);
    if (death === undefined) continue;
    await storageWork(`remove ${path}`, () => removeFile(path));
    note(context, path, 'removed', death);
  }
}

/** Whether an operation that moved something aside still lives: then it will finish what it began. */
function isAtWork(context: Context, scene: Scene, operation: string): boolean {
  for (const found of scene.owners.values()) {
    if (found.owner?.operationId !== operation) continue;
    if (causeOfDeath(context, scene.now, found, context.silentAfterMs) === undefined) return true;
  }
  return false;
}

/** Why the owner of a file is taken for dead, or undefined where it may live. */
function causeOfDeath(context: Context, now: number, found: FoundOwner, limitMs: number): string | undefined {
  const { node, bootId, liveOperations } = context.request;
  const { owner, mtimeMs } = found;
  if (owner?.node === node) {
    // Also of an earlier boot: a stopped workload's checkpoint waits to be finished.
    if (liveOperations.has(owner.operationId)) return undefined;
    return owner.bootId === bootId
      ? `operation ${owner.operationId} of this node is over`
      : `operation ${owner.operationId} belongs to an earlier boot of this node`;
  }
  const ageMs = now - mtimeMs;
  if (ageMs < limitMs) return undefined;
  const whose =
    owner === undefined ? 'nobody owns it' : `operation ${owner.operationId} of node ${owner.node} is silent`;
  return `${whose} for ${Math.round(ageMs / 1000)} s`;
}
