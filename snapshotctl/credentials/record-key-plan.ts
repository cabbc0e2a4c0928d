import { MAX_RECORD_KEYS } from '../../contract/record-key.ts';

/** Kubelet brings a changed Secret to every node within minutes, the agent looks every ten seconds: after this, all have seen it. */
export const SETTLED_MS = 3_600_000;
export const DAY_MS = 86_400_000;

/** What the Secret of the record key holds, without the keys. */
export interface RecordKeyHolding {
  /** The key that signs, and since when. */
  readonly signing: { readonly id: string; readonly sinceMs: number };
  /** The key that will sign next; without a time where nobody noted it. */
  readonly next?: { readonly id: string; readonly sinceMs: number | undefined } | undefined;
  /** Former keys in the order in which they signed, the oldest first. */
  readonly previous: readonly string[];
  /** All keys in it, also those that somebody else put there. */
  readonly count: number;
}

export interface RecordKeyWish {
  /** A key signs for so many days; 0: until somebody asks for another one. */
  readonly days: number;
  /** Somebody asks now. */
  readonly rotate: boolean;
  /** Where there is no room for another key, the oldest goes, and what it signed with it. */
  readonly forgetOldest: boolean;
}

/** What is to come, and not before when. */
export interface Due {
  readonly step: string;
  readonly atMs: number;
}

export type RecordKeyStep =
  | { readonly kind: 'make' }
  | { readonly kind: 'keep'; readonly due?: Due | undefined }
  /** A new key is accepted from now on. */
  | { readonly kind: 'add-next'; readonly forget?: string | undefined }
  /** The next key was there without a time: its hour begins now. */
  | { readonly kind: 'note-next' }
  /** The next key signs from now on, and the present one becomes a former one. */
  | { readonly kind: 'promote' }
  /** It should change and cannot. */
  | { readonly kind: 'refuse'; readonly why: string };

/** What to do now. Each change is two runs an hour apart, so that every agent accepts a key before any agent signs with it. */
export function planRecordKey(
  holding: RecordKeyHolding | undefined,
  wish: RecordKeyWish,
  nowMs: number,
): RecordKeyStep {
  if (holding === undefined) return { kind: 'make' };
  const { signing, next } = holding;
  if (next !== undefined) {
    if (next.sinceMs === undefined) return { kind: 'note-next' };
    const dueMs = next.sinceMs + SETTLED_MS;
    return nowMs >= dueMs ? { kind: 'promote' } : { kind: 'keep', due: signsNext(next.id, dueMs) };
  }
  const changesMs = signing.sinceMs + wish.days * DAY_MS;
  if (wish.rotate || (wish.days > 0 && nowMs >= changesMs)) return addNext(holding, wish);
  return { kind: 'keep', due: wish.days > 0 ? { step: 'a new key is added', atMs: changesMs } : undefined };
}

/** What comes after a key was added. */
export function signsNext(id: string, atMs: number): Due {
  return { step: `key ${id} signs`, atMs };
}

function addNext({ count, previous }: RecordKeyHolding, { forgetOldest }: RecordKeyWish): RecordKeyStep {
  if (count < MAX_RECORD_KEYS) return { kind: 'add-next' };
  const [oldest] = previous;
  if (oldest !== undefined && forgetOldest) return { kind: 'add-next', forget: oldest };
  const full = `it holds ${count} keys, as many as an agent accepts, and there is no room for another one`;
  const why =
    oldest === undefined
      ? `${full}: remove one by hand, and with it every artifact that it signed`
      : `${full}: --forget-oldest takes key ${oldest} away, and no artifact that it signed can be restored any more`;
  return { kind: 'refuse', why };
}
