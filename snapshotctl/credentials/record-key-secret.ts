import { randomBytes } from 'node:crypto';
import {
  MIN_RECORD_KEY_BYTES,
  RECORD_KEY_ENDING,
  type RecordKey,
  recordKeyOf,
  SIGNING_KEY_FILE,
} from '../../contract/record-key.ts';
import type { RecordKeyHolding, RecordKeyStep } from './record-key-plan.ts';
import {
  dataOf,
  foreign,
  isEmpty,
  isoTime,
  NOTES,
  noteOf,
  type SecretContent,
  type SecretData,
  type SecretObject,
  timeOf,
} from './secret.ts';

const nextFile = (id: string) => `next-${id}${RECORD_KEY_ENDING}`;
const previousFile = (id: string) => `previous-${id}${RECORD_KEY_ENDING}`;
const ROLE = /^(next|previous)-(.*)\.key$/;

/**
 * What the Secret holds; undefined where it is not there or empty. Keys that somebody else put there are counted, and stay. Throws
 * CommandError where it holds something else than keys, or where a name does not fit its key.
 */
export function readRecordKeys(name: string, secret: SecretObject | undefined): RecordKeyHolding | undefined {
  const data = dataOf(secret);
  if (isEmpty(data)) return undefined;
  const keys = Object.entries(data).map(([file, content]) => ({ file, ...readKey(name, file, content) }));
  const signing = keys.find(({ file }) => file === SIGNING_KEY_FILE);
  if (signing === undefined) throw foreign(name, `has no ${SIGNING_KEY_FILE}`);
  const next = keys.filter(({ role }) => role === 'next');
  if (next.length > 1) throw foreign(name, `has ${next.length} next keys instead of one`);
  if (next[0]?.id === signing.id)
    throw foreign(name, `has key ${signing.id} twice, as the signing and as the next one`);
  const former = new Set(keys.filter(({ role }) => role === 'previous').map(({ id }) => id));
  const since = timeOf(secret, 'signsSince') ?? Date.parse(secret?.metadata.creationTimestamp ?? '');
  return {
    signing: { id: signing.id, sinceMs: Number.isNaN(since) ? 0 : since },
    next: next[0] && { id: next[0].id, sinceMs: timeOf(secret, 'nextSince') },
    previous: listOf(secret).filter((id) => former.has(id)),
    count: keys.length,
  };
}

function readKey(name: string, file: string, content: Buffer): { readonly id: string; readonly role: string } {
  if (!file.endsWith(RECORD_KEY_ENDING)) throw foreign(name, `holds ${file}, which is no record key`);
  const key = recordKeyOf(content);
  if (typeof key === 'string') throw foreign(name, `holds ${file}, which ${key}`);
  const [, role = '', id] = ROLE.exec(file) ?? [];
  if (id !== undefined && id !== key.id) throw foreign(name, `holds key ${key.id} under the name ${file}`);
  return { id: key.id, role };
}

const listOf = (secret: SecretObject | undefined) => (noteOf(secret, 'previousKeys') ?? '').split(',').filter(Boolean);

/** The content after a step that changes something, and the key that it is about. */
export function nextRecordKeys(
  secret: SecretObject | undefined,
  step: Extract<RecordKeyStep, { kind: 'make' | 'add-next' | 'note-next' | 'promote' }>,
  nowMs: number,
): { readonly content: SecretContent; readonly id: string } {
  const data = dataOf(secret);
  const now = isoTime(nowMs);
  if (step.kind === 'make') {
    const key = newKey();
    return result({ [SIGNING_KEY_FILE]: textOf(key) }, { [NOTES.signsSince]: now }, key.id);
  }
  if (step.kind === 'add-next') {
    const key = newKey();
    const added = without({ ...data, [nextFile(key.id)]: textOf(key) }, step.forget && previousFile(step.forget));
    const kept = listOf(secret).filter((id) => id !== step.forget);
    return result(added, { [NOTES.nextSince]: now, [NOTES.previousKeys]: asList(kept) }, key.id);
  }
  const [file = '', content = Buffer.alloc(0)] =
    Object.entries(data).find(([one]) => ROLE.exec(one)?.[1] === 'next') ?? [];
  const id = ROLE.exec(file)?.[2] ?? '';
  if (step.kind === 'note-next') return result(data, { [NOTES.nextSince]: now }, id);
  const former = data[SIGNING_KEY_FILE] ?? Buffer.alloc(0);
  const formerKey = recordKeyOf(former) as RecordKey;
  const promoted = { ...without(data, file), [SIGNING_KEY_FILE]: content, [previousFile(formerKey.id)]: former };
  const notes = {
    [NOTES.signsSince]: now,
    [NOTES.nextSince]: undefined,
    [NOTES.previousKeys]: asList([...listOf(secret).filter((one) => one !== formerKey.id), formerKey.id]),
  };
  return result(promoted, notes, id);
}

function result(data: SecretData, notes: SecretContent['annotations'], id: string) {
  const annotations = { [NOTES.credential]: 'record-key', ...notes };
  return { content: { data, annotations, type: 'Opaque' as const }, id };
}

const asList = (ids: readonly string[]) => (ids.length > 0 ? ids.join(',') : undefined);

function without(data: SecretData, file: string | undefined): SecretData {
  return Object.fromEntries(Object.entries(data).filter(([name]) => name !== file));
}

function newKey(): RecordKey {
  return recordKeyOf(randomBytes(MIN_RECORD_KEY_BYTES)) as RecordKey;
}

/** Hexadecimal, as the agent itself writes one: a person can look at it without harm to the terminal. */
const textOf = ({ secret }: RecordKey) => Buffer.from(`${secret.toString('hex')}\n`);
