import { open, readFile } from 'node:fs/promises';
import { z } from 'zod';
import { beyondFairShare } from './fair-share.ts';

const text = z.string().max(4096);
const processKey = z.strictObject({ containerId: text, pid: z.int(), startTime: z.int() });

/** A line of the journal. */
export const entrySchema = z.strictObject({
  seq: z.int().positive(),
  at: z.iso.datetime(),
  bootId: text,
  operationId: text,
  kind: z.enum(['checkpoint', 'restore']),
  /** The container's main process: a restart of the container is another key, and so is another process under its PID. */
  containerKey: processKey,
  pod: z.strictObject({ namespace: text, name: text, uid: text }),
  container: text,
  checkpointId: text,
  version: text,
  step: z.exactOptional(text),
  state: z.enum([
    // A caller's operation waits for its turn, or for what is not there yet.
    'accepted',
    'started',
    'step',
    // The CUDA processes in the details are about to be locked: whoever comes after a crash brings them back.
    'cuda-held',
    // From here on a restore cannot be undone.
    'point-of-no-return',
    'succeeded',
    'failed',
    'refused',
    'unknown',
    // The restored process is the container's now, and is to be guarded.
    'armed',
    // The restored process, or its container, is gone: nothing to guard any more.
    'ended',
  ]),
  details: z.record(z.string(), z.unknown()),
});

/** One transition of one operation. */
export type JournalEntry = z.infer<typeof entrySchema>;

const OUTCOMES: readonly JournalEntry['state'][] = ['succeeded', 'failed', 'refused', 'unknown'];
/** Outcomes of earlier boots that are kept, newest first. */
const MAX_EARLIER = 1_000;

const noteSchema = z.object({ operation: z.object({ origin: z.string() }) });

/** Whether a caller asked for the operation of an entry that has its note. */
function isOfCaller({ details }: JournalEntry): boolean {
  return noteSchema.safeParse(details).data?.operation.origin === 'grpc';
}

/** Whether an entry says how its operation ended. */
export function isOutcome(entry: JournalEntry): boolean {
  return OUTCOMES.includes(entry.state);
}

/** The last entry of each operation that has no outcome. */
export function lastOfOpen(entries: readonly JournalEntry[]): JournalEntry[] {
  const open = new Map<string, JournalEntry>();
  for (const entry of entries) open.set(entry.operationId, entry);
  for (const entry of entries.filter(isOutcome)) open.delete(entry.operationId);
  return [...open.values()];
}

/**
 * What anybody may still ask for, in order. Of this boot: operations without an outcome, whole; the last outcome of each container; who
 * is to be guarded. Of earlier boots only the last outcomes: no process of theirs lives. Of both, the last outcomes of what callers asked
 * for, each namespace's share: a request that comes again must find them. The very last entry always stays, so that numbers never repeat.
 */
export function worthKeeping(entries: readonly JournalEntry[], bootId: string): JournalEntry[] {
  const mine = entries.filter((entry) => entry.bootId === bootId);
  const open = new Set(lastOfOpen(mine).map((entry) => entry.operationId));
  const outcomes = new Map<string, JournalEntry>();
  for (const entry of entries.filter(isOutcome)) outcomes.set(entry.containerKey.containerId, entry);
  const earlier = [...outcomes.values()].filter((entry) => entry.bootId !== bootId).sort((a, b) => b.seq - a.seq);
  for (const entry of earlier.slice(MAX_EARLIER)) outcomes.delete(entry.containerKey.containerId);
  const called = entries.filter((entry) => isOutcome(entry) && isOfCaller(entry));
  const tooMany = new Set(beyondFairShare(called, ({ pod }) => pod.namespace));
  const answers = called.filter((entry) => !tooMany.has(entry));
  const kept = new Set([...outcomes.values(), ...answers, ...stillArmed(mine), ...entries.slice(-1)]);
  return entries.filter((entry) => kept.has(entry) || (entry.bootId === bootId && open.has(entry.operationId)));
}

/** The last `armed` of each container that has not ended since. */
export function stillArmed(entries: readonly JournalEntry[]): JournalEntry[] {
  const armed = new Map<string, JournalEntry>();
  for (const entry of entries) {
    if (entry.state === 'armed') armed.set(entry.containerKey.containerId, entry);
    if (entry.state === 'ended') armed.delete(entry.containerKey.containerId);
  }
  return [...armed.values()];
}

/** What can be read of the journal. Half a line at the end is what a crash leaves; anything else that is no entry is kept aside. */
export async function readEntries(path: string): Promise<{ entries: JournalEntry[]; warnings: string[] }> {
  const lines = (await readIfThere(path)).split('\n');
  // Behind the last line feed there is nothing, or a line whose writing was never confirmed.
  const tail = lines.pop() ?? '';
  const entries: JournalEntry[] = [];
  const corrupt: string[] = [];
  for (const line of lines) {
    const entry = parseLine(line);
    if (entry === undefined) corrupt.push(line);
    else entries.push(entry);
  }
  const last = parseLine(tail);
  if (last !== undefined) entries.push(last);
  if (corrupt.length === 0) return { entries, warnings: [] };
  const aside = `${path}.corrupt`;
  await keepAside(aside, corrupt);
  return {
    entries,
    warnings: [`${corrupt.length} lines of the journal ${path} cannot be read: they were moved to ${aside}`],
  };
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT') return '';
    throw thrown;
  }
}

function parseLine(line: string): JournalEntry | undefined {
  try {
    const parsed = entrySchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

async function keepAside(path: string, lines: readonly string[]): Promise<void> {
  const file = await open(path, 'a', 0o600);
  try {
    await file.appendFile(lines.map((line) => `${line}\n`).join(''));
    await file.sync();
  } finally {
    await file.close();
  }
}
