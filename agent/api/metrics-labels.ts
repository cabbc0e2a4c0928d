import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** What every value that is not expected counts as: a label must not grow without bounds. */
export const OTHER = 'other';

/** Lets the given values through, and counts all others as `other`. */
export function closedLabel(values: Iterable<string>): (value: string) => string {
  const known = new Set(values);
  return (value) => (known.has(value) ? value : OTHER);
}

/**
 * For names that other rooms define (steps, reasons): lets the first `limit` different values of that form through, and counts what comes
 * after them as `other`. Not for values that come from outside: they could use up the room.
 */
export function boundedLabel(form: RegExp, limit: number): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= limit || !form.test(value)) return OTHER;
    seen.add(value);
    return value;
  };
}

/** A clock that was set back, or a figure that is none, counts as 0: the library throws at it, and metrics never fail what they measure. */
export function amount(value: number): number {
  return Number.isFinite(value) && value > 0 ? value : 0;
}

/** Makes metrics in one registry. */
export function metricMaker(registry: Registry) {
  const registers = [registry];
  return {
    counter: <L extends string = never>(name: string, help: string, labels: readonly L[] = []): Counter<L> =>
      new Counter<L>({ name, help, labelNames: [...labels], registers }),

    /** Without a value until it is set: the library shows 0, which looks like a full volume. */
    gauge: <L extends string = never>(name: string, help: string, labels: readonly L[] = []): Gauge<L> => {
      const gauge = new Gauge<L>({ name, help, labelNames: [...labels], registers });
      if (labels.length === 0) gauge.remove();
      return gauge;
    },

    /** Its values are read at each scrape; it has none where `read` returns undefined or fails. */
    polled: <L extends string = never>(
      name: string,
      help: string,
      labels: readonly L[],
      read: () => readonly { readonly labels: Readonly<Record<L, string>>; readonly value: number }[] | undefined,
    ): Gauge<L> =>
      new Gauge<L>({
        name,
        help,
        labelNames: [...labels],
        registers,
        collect() {
          this.reset();
          if (labels.length === 0) this.remove();
          for (const { labels: of, value } of attempt(read) ?? []) this.set(of, value);
        },
      }),

    histogram: <L extends string = never>(
      name: string,
      help: string,
      buckets: readonly number[],
      labels: readonly L[] = [],
    ): Histogram<L> => new Histogram<L>({ name, help, buckets: [...buckets], labelNames: [...labels], registers }),
  };
}

export type MetricMaker = ReturnType<typeof metricMaker>;

/** One reading that fails must not cost all the others. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
