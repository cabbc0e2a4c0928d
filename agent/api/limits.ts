import { SnapshotError } from '../errors.ts';

/** What is counted is counted for each listener: whoever comes over TCP cannot take the unix socket's share. */
export interface Limits {
  /** Largest request, in bytes. */
  readonly maxMessageBytes: number;
  readonly maxConnections: number;
  /** Calls at once, without streams. */
  readonly maxConcurrentCalls: number;
  readonly maxConcurrentCallsPerCaller: number;
  /** Streams at once (watches, reflection). */
  readonly maxStreams: number;
  readonly maxStreamsPerCaller: number;
  /** Calls that one caller may begin in a second, in the long run. */
  readonly callsPerSecond: number;
  /** Calls that one caller may begin at once after it was quiet. */
  readonly burst: number;
  /** A call that is not a stream is given up after this time, whatever deadline its caller set. */
  readonly maxCallMs: number;
}

export type CallKind = 'call' | 'stream';

export interface Gate {
  /** Lets a call in and returns how it goes out again. Throws LIMIT_EXCEEDED, which says which limit. */
  enter(caller: string, kind: CallKind): () => void;
}

interface Visitor {
  tokens: number;
  filledMs: number;
  readonly inside: Record<CallKind, number>;
}

/** Callers that are remembered before the idle ones are forgotten: who is new has a full bucket too. */
const MAX_VISITORS = 1_000;
const WHAT = { call: 'calls under way', stream: 'open streams' } as const;

export function newGate(limits: Limits, now: () => number = () => performance.now()): Gate {
  const total: Record<CallKind, number> = { call: 0, stream: 0 };
  const most = { call: limits.maxConcurrentCalls, stream: limits.maxStreams };
  const mostEach = { call: limits.maxConcurrentCallsPerCaller, stream: limits.maxStreamsPerCaller };
  const visitors = new Map<string, Visitor>();

  const fill = (visitor: Visitor, atMs: number) => {
    const gained = ((atMs - visitor.filledMs) / 1000) * limits.callsPerSecond;
    visitor.tokens = Math.min(limits.burst, visitor.tokens + gained);
    visitor.filledMs = atMs;
  };
  const forgetIdle = (atMs: number) => {
    for (const [name, each] of visitors) {
      fill(each, atMs);
      if (each.tokens >= limits.burst && each.inside.call + each.inside.stream === 0) visitors.delete(name);
    }
  };
  const visitorOf = (caller: string): Visitor => {
    const atMs = now();
    if (visitors.size >= MAX_VISITORS && !visitors.has(caller)) forgetIdle(atMs);
    const visitor = visitors.get(caller) ?? { tokens: limits.burst, filledMs: atMs, inside: { call: 0, stream: 0 } };
    visitors.set(caller, visitor);
    fill(visitor, atMs);
    return visitor;
  };

  return {
    enter: (caller, kind) => {
      const visitor = visitorOf(caller);
      if (visitor.tokens < 1)
        throw new SnapshotError('LIMIT_EXCEEDED', `${caller} begins more than ${limits.callsPerSecond} calls a second`);
      visitor.tokens -= 1;
      if (visitor.inside[kind] >= mostEach[kind])
        throw new SnapshotError('LIMIT_EXCEEDED', `${caller} has ${mostEach[kind]} ${WHAT[kind]}, which is the most`);
      if (total[kind] >= most[kind])
        throw new SnapshotError('LIMIT_EXCEEDED', `there are ${most[kind]} ${WHAT[kind]}, which is the most`);
      total[kind] += 1;
      visitor.inside[kind] += 1;
      let isInside = true;
      return () => {
        if (!isInside) return;
        isInside = false;
        total[kind] -= 1;
        visitor.inside[kind] -= 1;
      };
    },
  };
}
