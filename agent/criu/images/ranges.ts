/** Sets of addresses as sorted lists of ranges that neither overlap nor touch where it matters; `end` is the first byte behind. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** Total length in bytes. */
export function lengthOf(ranges: readonly Range[]): number {
  return ranges.reduce((sum, range) => sum + range.end - range.start, 0);
}

/** A function that says how many bytes of a range lie in `ranges` (sorted), without walking over them. */
export function measureOf(ranges: readonly Range[]): (range: Range) => number {
  const before: number[] = [];
  let sum = 0;
  for (const { start, end } of ranges) {
    before.push(sum);
    sum += end - start;
  }
  /** Bytes that lie below the address. */
  const below = (address: number): number => {
    let low = 0;
    for (let high = ranges.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((ranges[middle]?.start ?? 0) < address) low = middle + 1;
      else high = middle;
    }
    const last = ranges[low - 1];
    return last === undefined ? 0 : (before[low - 1] ?? 0) + Math.min(address, last.end) - last.start;
  };
  return ({ start, end }) => below(end) - below(start);
}

/** Sorted, with overlapping and touching ranges made one. */
export function merge(ranges: readonly Range[]): Range[] {
  const merged: Range[] = [];
  for (const range of ranges.toSorted((a, b) => a.start - b.start)) {
    const last = merged.at(-1);
    if (last !== undefined && range.start <= last.end) {
      if (range.end > last.end) merged[merged.length - 1] = { start: last.start, end: range.end };
    } else if (range.end > range.start) merged.push(range);
  }
  return merged;
}

/** What lies in both; both sorted. */
export function intersect(left: readonly Range[], right: readonly Range[]): Range[] {
  const common: Range[] = [];
  for (let i = 0, j = 0; ; ) {
    const a = left[i];
    const b = right[j];
    if (a === undefined || b === undefined) return common;
    const start = Math.max(a.start, b.start);
    const end = Math.min(a.end, b.end);
    if (start < end) common.push({ start, end });
    if (a.end <= b.end) i++;
    else j++;
  }
}

/** What lies in `ranges` but not in `without`; both sorted. */
export function subtract(ranges: readonly Range[], without: readonly Range[]): Range[] {
  const rest: Range[] = [];
  let next = 0;
  for (const range of ranges) {
    let start = range.start;
    while ((without[next]?.end ?? Number.POSITIVE_INFINITY) <= start) next++;
    for (let at = next; ; at++) {
      const hole = without[at];
      if (hole === undefined || hole.start >= range.end) break;
      if (hole.start > start) rest.push({ start, end: hole.start });
      start = Math.max(start, hole.end);
    }
    if (start < range.end) rest.push({ start, end: range.end });
  }
  return rest;
}
