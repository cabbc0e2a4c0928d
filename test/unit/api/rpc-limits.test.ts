import { describe, expect, it } from 'vitest';
import { type Limits, newGate } from '../../../agent/api/limits.ts';

const LIMITS: Limits = {
  ...{ maxMessageBytes: 1, maxConnections: 1, maxCallMs: 1 },
  ...{ maxConcurrentCalls: 3, maxConcurrentCallsPerCaller: 2, maxStreams: 3, maxStreamsPerCaller: 2 },
  ...{ callsPerSecond: 2, burst: 4 },
};

function gateAt(limits: Partial<Limits> = {}) {
  let atMs = 0;
  const gate = newGate({ ...LIMITS, ...limits }, () => atMs);
  return {
    enter: gate.enter,
    /** How many calls get in now, each of which is over at once. */
    passing: (caller: string, tries: number) =>
      Array.from({ length: tries }, () => {
        try {
          gate.enter(caller, 'call')();
          return 1;
        } catch {
          return 0;
        }
      }).reduce<number>((sum, one) => sum + one, 0),
    later: (ms: number) => {
      atMs += ms;
    },
  };
}

describe('the rate of one caller', () => {
  it('is a burst, then so many in a second, and never more than a burst', () => {
    const gate = gateAt();
    expect(gate.passing('a', 10)).toBe(4);
    gate.later(1_000);
    expect(gate.passing('a', 10)).toBe(2);
    gate.later(3_600_000);
    expect(gate.passing('a', 10)).toBe(4);
  });

  it('is not that of another', () => {
    const gate = gateAt();
    gate.passing('a', 10);
    expect(gate.passing('b', 10)).toBe(4);
  });

  it('is remembered while thousands of others come by', () => {
    const gate = gateAt();
    gate.passing('a', 10);
    for (let index = 0; index < 3_000; index += 1) gate.passing(`other-${index}`, 1);
    expect(gate.passing('a', 10)).toBe(0);
  });
});

describe('what is under way', () => {
  it('counts for its caller, for all, and by its kind', () => {
    const gate = gateAt({ burst: 100 });
    gate.enter('a', 'call');
    const leave = gate.enter('a', 'call');
    expect(() => gate.enter('a', 'call')).toThrow('a has 2 calls under way');
    gate.enter('a', 'stream');
    gate.enter('b', 'call');
    expect(() => gate.enter('b', 'call')).toThrow('there are 3 calls under way');
    leave();
    leave();
    gate.enter('b', 'call');
    expect(() => gate.enter('c', 'call')).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
  });

  it('is remembered while thousands of others come by', () => {
    const gate = gateAt({ burst: 1, callsPerSecond: 1_000_000 });
    const leave = [gate.enter('a', 'stream')];
    gate.later(1);
    leave.push(gate.enter('a', 'stream'));
    gate.later(1_000);
    for (let index = 0; index < 3_000; index += 1) gate.passing(`other-${index}`, 1);
    gate.later(1_000);
    expect(() => gate.enter('a', 'stream')).toThrow('a has 2 open streams');
  });
});
