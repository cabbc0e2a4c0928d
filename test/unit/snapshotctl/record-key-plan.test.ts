import { describe, expect, it } from 'vitest';
import { MAX_RECORD_KEYS } from '../../../contract/record-key.ts';
import {
  planRecordKey,
  type RecordKeyHolding,
  type RecordKeyStep,
  type RecordKeyWish,
} from '../../../snapshotctl/credentials/record-key-plan.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 5, 1);
const WISH: RecordKeyWish = { days: 0, rotate: false, forgetOldest: false };
const held = (changes: Partial<RecordKeyHolding> = {}): RecordKeyHolding => ({
  signing: { id: 'one', sinceMs: NOW - 10 * DAY },
  previous: [],
  count: 1,
  ...changes,
});
const next = (sinceMs: number | undefined) => held({ next: { id: 'two', sinceMs }, count: 2 });
const full = (previous: readonly string[]) => held({ previous, count: MAX_RECORD_KEYS });

describe('the record key', () => {
  it.each<[string, RecordKeyHolding | undefined, Partial<RecordKeyWish>, RecordKeyStep]>([
    ['is made where there is none', undefined, {}, { kind: 'make' }],
    ['is made once where it is to change as well', undefined, { rotate: true }, { kind: 'make' }],
    ['stays for ever by default', held(), {}, { kind: 'keep', due: undefined }],
    [
      'stays until its days are over',
      held(),
      { days: 11 },
      { kind: 'keep', due: { step: 'a new key is added', atMs: NOW + DAY } },
    ],
    ['gets a successor when its days are over', held(), { days: 10 }, { kind: 'add-next' }],
    ['gets one when asked', held(), { rotate: true }, { kind: 'add-next' }],
    [
      'goes on signing until the next one is known everywhere',
      next(NOW - HOUR + 1),
      {},
      { kind: 'keep', due: { step: 'key two signs', atMs: NOW + 1 } },
    ],
    ['gives way an hour later', next(NOW - HOUR), {}, { kind: 'promote' }],
    [
      'gets no second successor when asked again',
      next(NOW - 1),
      { rotate: true },
      expect.objectContaining({ kind: 'keep' }),
    ],
    [
      'gives way when asked again an hour later, and gets no further one',
      next(NOW - HOUR),
      { rotate: true },
      { kind: 'promote' },
    ],
    [
      'does not believe a next one whose time is to come',
      next(NOW + DAY),
      {},
      expect.objectContaining({ kind: 'keep' }),
    ],
    ['begins the hour of a next one without a time', next(undefined), {}, { kind: 'note-next' }],
    ['changes below the limit', held({ count: MAX_RECORD_KEYS - 1 }), { rotate: true }, { kind: 'add-next' }],
    [
      'forgets the oldest only when told to',
      full(['old', 'older']),
      { rotate: true, forgetOldest: true },
      { kind: 'add-next', forget: 'old' },
    ],
    [
      'is kept at the limit where nobody asks for another',
      full(['old']),
      { forgetOldest: true },
      { kind: 'keep', due: undefined },
    ],
  ])('%s', (_, holding, wish, step) => {
    expect(planRecordKey(holding, { ...WISH, ...wish }, NOW)).toEqual(step);
  });

  it.each<[string, RecordKeyHolding, Partial<RecordKeyWish>, RegExp]>([
    [
      'a former key would have to go',
      full(['old']),
      {},
      /32 keys.*--forget-oldest takes key old away, and no artifact/,
    ],
    [
      'only keys of others are there',
      full([]),
      { forgetOldest: true },
      /remove one by hand, and with it every artifact/,
    ],
  ])('is not changed at the limit, where %s', (_, holding, wish, why) => {
    const step = planRecordKey(holding, { ...WISH, rotate: true, ...wish }, NOW);
    expect(step).toEqual({ kind: 'refuse', why: expect.stringMatching(why) });
  });
});
