import { createHash, randomBytes } from 'node:crypto';

/** What an Event is about. Of an object without a namespace, the Event is written to the namespace `default`. */
export interface EventTarget {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  /** A part of it, e.g. `spec.containers{main}`. */
  readonly fieldPath?: string;
}

/** Something that people should see beside an object. */
export interface EventNote {
  readonly about: EventTarget;
  readonly type: 'Normal' | 'Warning';
  /** One word in CamelCase. */
  readonly reason: string;
  /** For people. Cut to 1024 bytes. */
  readonly message: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /**
   * What may be said only once about the object. Whoever says it again, a process that was started again included, says nothing new: both
   * Events have one name. Without it each is one of its own.
   */
  readonly once?: string;
}

/** A note, how often it came, and when, in milliseconds of the wall clock. */
export interface CountedNote {
  readonly name: string;
  readonly note: EventNote;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
}

const MAX_MESSAGE_BYTES = 1_024;
const MAX_NAME_LENGTH = 253;
const SUFFIX_BYTES = 8;

/**
 * A name that nobody else has, but who says the same once. It is made here, not by the server: an Event that is sent again because the
 * answer was lost must not appear twice.
 */
export function eventName({ about: { name: target, uid = '' }, once }: Pick<EventNote, 'about' | 'once'>): string {
  const bytes =
    once === undefined ? randomBytes(SUFFIX_BYTES) : createHash('sha256').update(`${uid}\n${once}`).digest();
  const suffix = bytes.toString('hex', 0, SUFFIX_BYTES);
  // What is cut must still end in a letter or digit before the dash.
  const prefix = target.slice(0, MAX_NAME_LENGTH - suffix.length - 1).replace(/[^a-z0-9]+$/, '');
  return `${prefix}-${suffix}`;
}

/** Cut to a number of bytes of UTF-8, never inside a character, with an ellipsis where something is missing. */
export function cutText(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return bytes.toString();
  const ellipsis = '…';
  let end = maxBytes - Buffer.byteLength(ellipsis);
  // Bytes 10xxxxxx continue a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return `${bytes.toString('utf8', 0, end)}${ellipsis}`;
}

export function eventNamespace({ namespace }: EventTarget): string {
  return namespace || 'default';
}

/** As core/v1 takes it (recorded). Its times have no decimals. */
export function eventObject(counted: CountedNote, source: { readonly component: string; readonly host?: string }) {
  const { about, type, reason, message, annotations } = counted.note;
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: counted.name, namespace: eventNamespace(about), ...(annotations ? { annotations } : {}) },
    involvedObject: about,
    type,
    reason,
    message: cutText(message, MAX_MESSAGE_BYTES),
    source,
    firstTimestamp: seconds(counted.firstMs),
    lastTimestamp: seconds(counted.lastMs),
    count: counted.count,
  };
}

function seconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}
