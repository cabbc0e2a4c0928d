import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ChosenDeletion,
  chooseDeletions,
  hasRules,
  isAbove,
  type KeptArtifact,
  type RetentionRules,
  type VolumeSpace,
} from '../../../agent/plan/retention.ts';

const OFF: RetentionRules = {
  ttlSeconds: 0,
  maxArtifactsPerNamespace: 0,
  maxBytesPerNamespace: 0,
  highPercent: 0,
  lowPercent: 0,
  minAgeSeconds: 0,
};
const NOW = 1_000_000_000;
const EMPTY: VolumeSpace = { freeBytes: 1_000, totalBytes: 1_000 };

function kept(version: string, changes: Partial<KeptArtifact> & { ageSeconds?: number } = {}): KeptArtifact {
  const { ageSeconds = 100, ...rest } = changes;
  const at = NOW - ageSeconds * 1000;
  return { id: 'a', version, namespace: 'team', bytes: 10, createdMs: at, lastUsedMs: at, isBusy: false, ...rest };
}
const said = (chosen: readonly ChosenDeletion[]) =>
  chosen.map(({ artifact, reason }) => `${artifact.version} ${reason}`);
const choose = (artifacts: readonly KeptArtifact[], rules: Partial<RetentionRules>, space = EMPTY) =>
  said(chooseDeletions(artifacts, { ...OFF, ...rules }, NOW, space));

describe('retention', () => {
  it('deletes nothing where no rule is on', () => {
    expect(choose([kept('1', { ageSeconds: 1e6 })], {}, { freeBytes: 0, totalBytes: 1_000 })).toEqual([]);
    expect(hasRules(OFF)).toBe(false);
  });

  it.each(['ttlSeconds', 'maxArtifactsPerNamespace', 'maxBytesPerNamespace', 'highPercent'] as const)(
    'has a rule where %s is set',
    (key) => expect(hasRules({ ...OFF, [key]: 1 })).toBe(true),
  );

  it('counts the time to live from the last use, to the second', () => {
    const used = kept('used', { ageSeconds: 500, lastUsedMs: NOW - 99_999 });
    expect(choose([used, kept('due'), kept('young', { ageSeconds: 99 })], { ttlSeconds: 100 })).toEqual(['due ttl']);
  });

  it('keeps so many of each namespace, the most recently used ones', () => {
    const other = kept('other', { namespace: 'other', ageSeconds: 900 });
    const artifacts = [kept('2', { ageSeconds: 2 }), kept('3', { ageSeconds: 3 }), other, kept('1', { ageSeconds: 1 })];
    expect(choose(artifacts, { maxArtifactsPerNamespace: 1 })).toEqual(['3 count', '2 count']);
  });

  it('keeps so many bytes of each namespace, and deletes no more than needed', () => {
    const artifacts = [1, 2, 3].map((age) => kept(`${age}`, { ageSeconds: age, bytes: 40 }));
    expect(choose(artifacts, { maxBytesPerNamespace: 80 })).toEqual(['3 bytes']);
    expect(choose(artifacts, { maxBytesPerNamespace: 79 })).toEqual(['3 bytes', '2 bytes']);
    expect(choose(artifacts, { maxBytesPerNamespace: 120 })).toEqual([]);
  });

  it('goes from above the high mark down to the low mark, over all namespaces', () => {
    const artifacts = [1, 2, 3, 4].map((age) =>
      kept(`${age}`, { ageSeconds: age, bytes: 100, namespace: age % 2 === 0 ? 'even' : 'odd' }),
    );
    const marks = { highPercent: 80, lowPercent: 65 };
    expect(choose(artifacts, marks, { totalBytes: 1_000, freeBytes: 200 })).toEqual([]);
    expect(choose(artifacts, marks, { totalBytes: 1_000, freeBytes: 199 })).toEqual(['4 watermark', '3 watermark']);
  });

  it('deletes nothing for the marks where artifacts are not what fills the volume', () => {
    const artifacts = [kept('1', { bytes: 100 }), kept('2', { bytes: 50 })];
    expect(choose(artifacts, { highPercent: 80, lowPercent: 70 }, { totalBytes: 1_000, freeBytes: 40 })).toEqual([]);
    expect(choose(artifacts, { highPercent: 80, lowPercent: 70 }, { totalBytes: 1_000, freeBytes: 50 })).toHaveLength(
      2,
    );
  });

  it('counts what an earlier rule takes as gone', () => {
    const artifacts = [kept('old', { ageSeconds: 1_000 }), kept('1', { ageSeconds: 1 }), kept('2', { ageSeconds: 2 })];
    expect(choose(artifacts, { ttlSeconds: 900, maxArtifactsPerNamespace: 2, maxBytesPerNamespace: 20 })).toEqual([
      'old ttl',
    ]);
  });

  it('counts what must stay, and takes others for it', () => {
    const busy = kept('busy', { ageSeconds: 900, isBusy: true });
    expect(choose([busy, kept('1')], { maxArtifactsPerNamespace: 1, ttlSeconds: 800 })).toEqual(['1 count']);
  });

  it('keeps the newest version of an id for its minimum age, and only that one', () => {
    const newest = kept('2', { ageSeconds: 50 });
    const rules = { maxArtifactsPerNamespace: 1, ttlSeconds: 1, minAgeSeconds: 60 };
    expect(choose([kept('1', { ageSeconds: 55 }), newest], rules)).toEqual(['1 ttl']);
    expect(choose([newest], { ...rules, minAgeSeconds: 50 })).toEqual(['2 ttl']);
  });

  it('is above a mark only beyond it', () => {
    expect(isAbove({ totalBytes: 100, freeBytes: 20 }, 80)).toBe(false);
    expect(isAbove({ totalBytes: 100, freeBytes: 19 }, 80)).toBe(true);
    expect(isAbove({ totalBytes: 0, freeBytes: 0 }, 80)).toBe(false);
  });
});

describe('whatever lies on the volume, retention', () => {
  const artifact = fc.record({
    id: fc.constantFrom('a', 'b', 'c'),
    version: fc.string({ minLength: 1, maxLength: 3, unit: fc.constantFrom('0', '1', '2', '3') }),
    namespace: fc.constantFrom('x', 'y'),
    bytes: fc.nat(100),
    createdMs: fc.integer({ min: NOW - 200_000, max: NOW + 1_000 }),
    usedAfterMs: fc.nat(100_000),
    isBusy: fc.boolean(),
  });
  const artifacts = fc
    .uniqueArray(artifact, { maxLength: 15, selector: ({ id, version }) => `${id}/${version}` })
    .map((all) =>
      all.map(({ usedAfterMs, ...rest }): KeptArtifact => ({ ...rest, lastUsedMs: rest.createdMs + usedAfterMs })),
    );
  const limit = (max: number) => fc.oneof(fc.constant(0), fc.integer({ min: 1, max }));
  const rules = fc
    .record({
      ttlSeconds: limit(200),
      maxArtifactsPerNamespace: limit(8),
      maxBytesPerNamespace: limit(500),
      highPercent: limit(99),
      lowPercent: fc.nat(99),
      minAgeSeconds: limit(200),
    })
    .map((all): RetentionRules => ({ ...all, lowPercent: Math.min(all.lowPercent, all.highPercent) }));
  const space = fc
    .tuple(fc.integer({ min: 1, max: 3_000 }), fc.integer({ min: -500, max: 3_000 }))
    .map(([totalBytes, freeBytes]): VolumeSpace => ({ totalBytes, freeBytes: Math.min(freeBytes, totalBytes) }));
  const holds = (
    check: (all: {
      artifacts: KeptArtifact[];
      rules: RetentionRules;
      space: VolumeSpace;
      chosen: ChosenDeletion[];
      left: KeptArtifact[];
    }) => void,
  ) =>
    fc.assert(
      fc.property(artifacts, rules, space, (given, limits, volume) => {
        const chosen = chooseDeletions(given, limits, NOW, volume);
        const gone = new Set(chosen.map((one) => one.artifact));
        const left = given.filter((one) => !gone.has(one));
        check({ artifacts: given, rules: limits, space: volume, chosen, left });
      }),
      { numRuns: 1_000 },
    );
  const bytesOf = (all: readonly KeptArtifact[]) => all.reduce((sum, { bytes }) => sum + bytes, 0);
  const isSpared = (one: KeptArtifact, all: readonly KeptArtifact[], { minAgeSeconds }: RetentionRules) =>
    one.isBusy ||
    (NOW - one.lastUsedMs < minAgeSeconds * 1000 &&
      all.every((other) => other.id !== one.id || other.createdMs <= one.createdMs));

  it('never takes what is busy, nor a young newest version, and nothing twice', () => {
    holds(({ artifacts: all, rules: limits, chosen }) => {
      expect(chosen.filter(({ artifact: one }) => isSpared(one, all, limits))).toEqual([]);
      expect(new Set(chosen.map((one) => one.artifact)).size).toBe(chosen.length);
    });
  });

  it('leaves nothing beyond a limit but what must stay', () => {
    holds(({ artifacts: all, rules: limits, left }) => {
      const free = left.filter((one) => !isSpared(one, all, limits));
      const { ttlSeconds, maxArtifactsPerNamespace: most, maxBytesPerNamespace: mostBytes } = limits;
      if (ttlSeconds > 0) expect(free.every((one) => NOW - one.lastUsedMs < ttlSeconds * 1000)).toBe(true);
      for (const namespace of ['x', 'y']) {
        const own = left.filter((one) => one.namespace === namespace);
        const ownFree = free.filter((one) => one.namespace === namespace);
        if (most > 0 && own.length > most) expect(ownFree).toEqual([]);
        if (mostBytes > 0 && bytesOf(own) > mostBytes) expect(bytesOf(ownFree)).toBe(0);
      }
    });
  });

  it('takes nothing that is used later than what it leaves, by one rule', () => {
    holds(({ artifacts: all, rules: limits, chosen, left }) => {
      for (const { artifact: one, reason } of chosen) {
        const rivals = left
          .filter((other) => reason === 'watermark' || other.namespace === one.namespace)
          .filter((other) => !isSpared(other, all, limits) && other.bytes > 0);
        expect(rivals.every((other) => other.lastUsedMs >= one.lastUsedMs)).toBe(true);
      }
    });
  });

  it('takes for the marks only what is needed to come below the low one', () => {
    holds(({ rules: limits, space: volume, chosen }) => {
      const taken = chosen.filter(({ reason }) => reason === 'watermark').map((one) => one.artifact);
      if (taken.length === 0) return;
      const before = chosen.slice(0, -1).map((one) => one.artifact);
      const withoutLast = { ...volume, freeBytes: volume.freeBytes + bytesOf(before) };
      expect(isAbove(withoutLast, limits.lowPercent)).toBe(true);
    });
  });

  it('comes to the same choice on every node, in whatever order the volume lists', () => {
    fc.assert(
      fc.property(artifacts, rules, space, (given, limits, volume) => {
        const other = chooseDeletions(given.toReversed(), limits, NOW, volume);
        const names = (chosen: readonly ChosenDeletion[]) =>
          chosen.map(({ artifact: { id, version }, reason }) => `${id}/${version} ${reason}`).sort();
        expect(names(other)).toEqual(names(chooseDeletions(given, limits, NOW, volume)));
      }),
    );
  });
});
