/** How many ended operations are remembered: in all, and of each namespace in any case, whatever the others do. */
export const REMEMBERED = { inAll: 2_000, each: 200 } as const;

/**
 * Those to forget so that no more than `inAll` stay: the oldest of the namespaces that have the most, and never of one that has no more
 * than `each`. So nobody can push out what others may still ask for.
 */
export function beyondFairShare<T>(
  oldestFirst: readonly T[],
  namespaceOf: (one: T) => string,
  { inAll, each }: { readonly inAll: number; readonly each: number } = REMEMBERED,
): T[] {
  if (oldestFirst.length <= inAll) return [];
  const byNamespace = new Map<string, T[]>();
  for (const one of oldestFirst) {
    const group = byNamespace.get(namespaceOf(one)) ?? [];
    byNamespace.set(namespaceOf(one), group);
    group.push(one);
  }
  const groups = [...byNamespace.values()];
  const staying = (most: number) => groups.reduce((sum, { length }) => sum + Math.min(length, most), 0);
  let most = Math.min(inAll, Math.max(...groups.map(({ length }) => length)));
  while (most > each && staying(most) > inAll) most -= 1;
  return groups.flatMap((group) => group.slice(0, Math.max(0, group.length - most)));
}
