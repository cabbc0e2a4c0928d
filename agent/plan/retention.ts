/** What retention knows of one artifact on a volume. Times are the storage's own, in milliseconds since the epoch. */
export interface KeptArtifact {
  readonly id: string;
  readonly version: string;
  /** The namespace that made it, as its signed record says. */
  readonly namespace: string;
  readonly bytes: number;
  readonly createdMs: number;
  /** When it was last restored; the time of its creation where it never was. */
  readonly lastUsedMs: number;
  /** Somebody reads it, or makes an artifact of the same id, on any node. */
  readonly isBusy: boolean;
}

/** What may be kept. Zero switches a rule off. */
export interface RetentionRules {
  /** How long an artifact is kept after its creation or its last restore, whichever is later. */
  readonly ttlSeconds: number;
  readonly maxArtifactsPerNamespace: number;
  readonly maxBytesPerNamespace: number;
  /** Above `highPercent` of the volume in use, artifacts go until no more than `lowPercent` is. */
  readonly highPercent: number;
  readonly lowPercent: number;
  /** The newest version of an id is kept at least this long after its creation or its last restore. */
  readonly minAgeSeconds: number;
}

export interface VolumeSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

export type DeletionReason = 'ttl' | 'count' | 'bytes' | 'watermark';

export interface ChosenDeletion<A extends KeptArtifact = KeptArtifact> {
  readonly artifact: A;
  readonly reason: DeletionReason;
}

/** Whether any rule is on: without one nothing is ever deleted. */
export function hasRules(rules: RetentionRules): boolean {
  const { ttlSeconds, maxArtifactsPerNamespace, maxBytesPerNamespace, highPercent } = rules;
  return ttlSeconds > 0 || maxArtifactsPerNamespace > 0 || maxBytesPerNamespace > 0 || highPercent > 0;
}

/** Whether more of the volume is in use than `percent` of it. */
export function isAbove({ freeBytes, totalBytes }: VolumeSpace, percent: number): boolean {
  return (totalBytes - freeBytes) * 100 > totalBytes * percent;
}

/**
 * What is to be deleted and why, in the order in which to do it. Each rule takes the least recently used first and counts what the
 * rules before it have chosen as gone. What is busy, and the young newest version of an id, is never chosen, but it counts.
 */
export function chooseDeletions<A extends KeptArtifact>(
  artifacts: readonly A[],
  rules: RetentionRules,
  nowMs: number,
  volume: VolumeSpace,
): ChosenDeletion<A>[] {
  const kept = new Set(artifacts.toSorted(byLastUse));
  const spared = new Set<KeptArtifact>(sparedOf(artifacts, rules, nowMs));
  const chosen: ChosenDeletion<A>[] = [];
  const choose = (reason: DeletionReason) => (artifact: A) => {
    kept.delete(artifact);
    chosen.push({ artifact, reason });
  };
  const free = () => [...kept].filter((artifact) => !spared.has(artifact));

  const { ttlSeconds } = rules;
  if (ttlSeconds > 0)
    free()
      .filter(({ lastUsedMs }) => nowMs - lastUsedMs >= ttlSeconds * 1000)
      .forEach(choose('ttl'));
  for (const namespace of new Set(artifacts.map((artifact) => artifact.namespace))) {
    const own = { all: [...kept].filter(isOf(namespace)), free: free().filter(isOf(namespace)) };
    overCount(own, rules.maxArtifactsPerNamespace).forEach(choose('count'));
  }
  for (const namespace of new Set(artifacts.map((artifact) => artifact.namespace))) {
    const own = { all: [...kept].filter(isOf(namespace)), free: free().filter(isOf(namespace)) };
    overBytes(own, rules.maxBytesPerNamespace).forEach(choose('bytes'));
  }
  const goneBytes = bytesOf(chosen.map(({ artifact }) => artifact));
  const left = { ...volume, freeBytes: volume.freeBytes + goneBytes };
  overWatermark({ all: [...kept], free: free() }, rules, left).forEach(choose('watermark'));
  return chosen;
}

/** What a rule looks at, least recently used first: all that counts, and the part of it that may go. */
interface Candidates<A> {
  readonly all: readonly A[];
  readonly free: readonly A[];
}

/** By last use; names decide between equals, so that every node comes to the same order. */
function byLastUse(a: KeptArtifact, b: KeptArtifact): number {
  if (a.lastUsedMs !== b.lastUsedMs) return a.lastUsedMs - b.lastUsedMs;
  const [left, right] = [`${a.id}/${a.version}`, `${b.id}/${b.version}`];
  return left < right ? -1 : Number(left > right);
}

/** What no rule may take. */
function sparedOf(artifacts: readonly KeptArtifact[], rules: RetentionRules, nowMs: number): KeptArtifact[] {
  const newest = new Map<string, number>();
  for (const { id, createdMs } of artifacts) newest.set(id, Math.max(newest.get(id) ?? createdMs, createdMs));
  return artifacts.filter(
    ({ id, createdMs, lastUsedMs, isBusy }) =>
      isBusy || (newest.get(id) === createdMs && nowMs - lastUsedMs < rules.minAgeSeconds * 1000),
  );
}

const isOf =
  (namespace: string) =>
  (artifact: KeptArtifact): boolean =>
    artifact.namespace === namespace;

const bytesOf = (artifacts: readonly KeptArtifact[]) => artifacts.reduce((sum, { bytes }) => sum + bytes, 0);

function overCount<A extends KeptArtifact>({ all, free }: Candidates<A>, limit: number): readonly A[] {
  return limit > 0 ? free.slice(0, Math.max(0, all.length - limit)) : [];
}

function overBytes<A extends KeptArtifact>({ all, free }: Candidates<A>, limit: number): readonly A[] {
  return limit > 0 ? enoughOf(free, bytesOf(all) - limit) : [];
}

/**
 * Where even all artifacts together are too small to bring the volume to the high mark, something else fills it: deleting every
 * checkpoint would lose them and help nobody, so that none is chosen.
 */
function overWatermark<A extends KeptArtifact>(
  { all, free }: Candidates<A>,
  { highPercent, lowPercent }: RetentionRules,
  space: VolumeSpace,
): readonly A[] {
  if (highPercent <= 0 || !isAbove(space, highPercent)) return [];
  if (isAbove({ ...space, freeBytes: space.freeBytes + bytesOf(all) }, highPercent)) return [];
  const usedBytes = space.totalBytes - space.freeBytes;
  return enoughOf(free, usedBytes - Math.floor((space.totalBytes * lowPercent) / 100));
}

/** The first of them that together have at least so many bytes; empty ones help nothing. */
function enoughOf<A extends KeptArtifact>(artifacts: readonly A[], bytes: number): readonly A[] {
  const chosen: A[] = [];
  let left = bytes;
  for (const artifact of artifacts) {
    if (left <= 0) break;
    if (artifact.bytes === 0) continue;
    chosen.push(artifact);
    left -= artifact.bytes;
  }
  return chosen;
}
