import { afterEach, describe, expect, it, vi } from 'vitest';
import { SnapshotError } from '../../../agent/errors.ts';
import { runSteps, type Step } from '../../../agent/operations/steps.ts';
import { memoryLog } from '../../fakes/log.ts';

afterEach(() => {
  vi.useRealTimers();
});

function setting(changes: Partial<Parameters<typeof runSteps>[1]> = {}) {
  const stop = new AbortController();
  const logged = memoryLog();
  const told: string[] = [];
  const context = {
    signal: stop.signal,
    log: logged.log,
    defaultDeadlineMs: 5_000,
    onStep: (name: string) => {
      told.push(name);
    },
    ...changes,
  };
  return { context, stop, told, logged };
}

/** Steps that write down what is done and undone. */
function recorded(...names: string[]) {
  const did: string[] = [];
  const steps: (Step & { run: Step['run'] })[] = names.map((name) => ({
    name,
    run: async () => {
      did.push(name);
    },
    undo: async () => {
      did.push(`undo ${name}`);
    },
  }));
  return { did, steps };
}
const failing = (name: string, error: unknown, did: string[] = []): Step => ({
  name,
  run: () => {
    did.push(name);
    return Promise.reject(error);
  },
  undo: async () => {
    did.push(`undo ${name}`);
  },
});
const untilAborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });

describe('steps', () => {
  it('run in order, one after the other, each announced before it begins, and nothing is undone', async () => {
    const { did, steps } = recorded('a', 'b', 'c');
    const { context, told } = setting();
    const result = await runSteps(steps, context);
    expect(did).toEqual(['a', 'b', 'c']);
    expect(told).toEqual(['a', 'b', 'c']);
    expect(result).toMatchObject({ failure: undefined, failedStep: undefined });
    expect(result.timings.map(({ step }) => step)).toEqual(['a', 'b', 'c', 'unaccounted']);
  });

  it('do not begin before the announcement is done', async () => {
    const { did, steps } = recorded('a');
    const onStep = async () => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      did.push('announced');
    };
    await runSteps(steps, setting({ onStep }).context);
    expect(did).toEqual(['announced', 'a']);
  });

  it('take times that add up to the wall time, with what nobody accounts for', async () => {
    const wait = (ms: number) => async () => {
      await new Promise((resolve) => setTimeout(resolve, ms));
    };
    const steps = [
      { name: 'a', run: wait(20) },
      { name: 'b', run: wait(10) },
    ];
    const seen: string[] = [];
    const began = performance.now();
    const { timings } = await runSteps(steps, setting({ onTiming: ({ step }) => void seen.push(step) }).context);
    const wall = (performance.now() - began) / 1000;
    const sum = timings.reduce((total, { seconds }) => total + seconds, 0);
    expect(sum).toBeGreaterThan(0.029);
    expect(sum).toBeLessThanOrEqual(wall);
    expect(wall - sum).toBeLessThan(0.01);
    expect(seen).toEqual(['a', 'b']);
  });

  it('begin their account with what was done before the first of them', async () => {
    const before = [{ step: 'resolve', seconds: 0.5 }];
    const { timings } = await runSteps(recorded('a').steps, setting({ before }).context);
    expect(timings.map(({ step }) => step)).toEqual(['resolve', 'a', 'unaccounted']);
  });

  it('are undone in reverse order from the one that failed, and later ones never begin', async () => {
    const { did, steps } = recorded('a', 'b', 'c');
    const error = new SnapshotError('DUMP_FAILED', 'no');
    const [a, , c] = steps as [Step, Step, Step];
    const result = await runSteps([a, failing('b', error, did), c], setting().context);
    expect(did).toEqual(['a', 'b', 'undo b', 'undo a']);
    expect(result).toMatchObject({ failure: error, failedStep: 'b' });
    expect(result.timings.map(({ step }) => step)).toEqual(['a', 'b', 'unaccounted']);
  });

  it('are undone although undoing another failed, which is logged', async () => {
    const { did, steps } = recorded('a');
    const broken: Step = { name: 'b', run: async () => undefined, undo: () => Promise.reject(new Error('stuck')) };
    const error = new SnapshotError('FILL_FAILED', 'no');
    const { context, logged } = setting();
    const result = await runSteps([...steps, broken, failing('c', error, did)], context);
    expect(did).toEqual(['a', 'c', 'undo c', 'undo a']);
    expect(result.failure).toBe(error);
    expect(logged.said('undo failed')).toMatchObject([{ step: 'b', err: { message: 'stuck' } }]);
  });

  it.each([
    ['an Error', new TypeError('oops'), 'oops'],
    ['something thrown', 'text', 'text'],
  ])('give %s back as INTERNAL, with its message', async (_, thrown, message) => {
    const { failure } = await runSteps([failing('a', thrown)], setting().context);
    expect(failure).toMatchObject({ code: 'INTERNAL', message, cause: thrown });
  });

  it('count a failed announcement as the failure of the step, which does not begin', async () => {
    const { did, steps } = recorded('a');
    const result = await runSteps(steps, setting({ onStep: () => Promise.reject(new Error('disk')) }).context);
    expect(result).toMatchObject({ failedStep: 'a', failure: { message: 'disk' } });
    expect(did).toEqual(['undo a']);
  });

  it('that throw at once, rather than reject, are failures too', async () => {
    const thrower: Step = {
      name: 'a',
      run: () => {
        throw new SnapshotError('RESTORE_FAILED', 'at once');
      },
    };
    expect((await runSteps([thrower], setting().context)).failure).toMatchObject({ code: 'RESTORE_FAILED' });
  });
});

describe('a step that takes too long', () => {
  it('sees its signal abort and ends with STEP_TIMEOUT, whatever it throws itself', async () => {
    let reason: unknown;
    const slow: Step = {
      name: 'slow',
      deadlineMs: 10,
      run: async (signal) => {
        await untilAborted(signal).catch((seen: unknown) => {
          reason = seen;
        });
        throw new Error('killed');
      },
    };
    const { failure, failedStep } = await runSteps([slow], setting().context);
    expect(failure).toMatchObject({ code: 'STEP_TIMEOUT', message: 'slow took longer than 0.01 s' });
    expect(failedStep).toBe('slow');
    expect(reason).toBe(failure);
  });

  it('fails even where it ends well after its deadline', async () => {
    const slow: Step = { name: 'slow', deadlineMs: 10, run: (signal) => untilAborted(signal).catch(() => undefined) };
    expect((await runSteps([slow], setting().context)).failure).toMatchObject({ code: 'STEP_TIMEOUT' });
  });

  it('has the deadline of the list where it has none of its own', async () => {
    const slow: Step = { name: 'slow', run: untilAborted };
    const { failure } = await runSteps([slow], setting({ defaultDeadlineMs: 10 }).context);
    expect(failure).toMatchObject({ code: 'STEP_TIMEOUT' });
  });

  it('and does not hear its signal is left behind after a while, and undone; its later failure hurts nobody', async () => {
    vi.useFakeTimers();
    const { did, steps } = recorded('a');
    let fail: (error: Error) => void = () => undefined;
    const deaf: Step = {
      name: 'deaf',
      deadlineMs: 1_000,
      run: () => new Promise((_, reject) => (fail = reject)),
      undo: async () => {
        did.push('undo deaf');
      },
    };
    const running = runSteps([...steps, deaf], setting().context);
    await vi.advanceTimersByTimeAsync(15_999);
    expect(did).toEqual(['a']);
    await vi.advanceTimersByTimeAsync(1);
    expect((await running).failure).toMatchObject({ code: 'STEP_TIMEOUT' });
    expect(did).toEqual(['a', 'undo deaf', 'undo a']);
    expect(vi.getTimerCount()).toBe(0);
    fail(new Error('late'));
    await vi.advanceTimersByTimeAsync(0);
  });

  it('leaves no timer behind when it ends in time', async () => {
    vi.useFakeTimers();
    await runSteps(recorded('a', 'b').steps, setting().context);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a cancelled operation', () => {
  it('does not begin at all where it was cancelled before', async () => {
    const { did, steps } = recorded('a');
    const { context, stop } = setting();
    stop.abort();
    const result = await runSteps(steps, context);
    expect(result).toMatchObject({ failedStep: 'a', failure: { code: 'CANCELLED' } });
    expect(did).toEqual(['undo a']);
  });

  it.each([
    ['only says that it was cancelled', new SnapshotError('CANCELLED', 'criu was cancelled'), 'LEASE_LOST'],
    ['says nothing of use', new Error('killed'), 'LEASE_LOST'],
    ['says what became of it', new SnapshotError('DUMP_FAILED', 'the dump failed'), 'DUMP_FAILED'],
  ])('with a reason ends with that, where the step %s', async (_, thrown, code) => {
    const stop = new AbortController();
    const step: Step = {
      name: 'a',
      run: async (signal) => {
        setTimeout(() => stop.abort(new SnapshotError('LEASE_LOST', 'it was taken over')), 5);
        await untilAborted(signal).catch(() => undefined);
        throw thrown;
      },
    };
    expect((await runSteps([step], setting({ signal: stop.signal }).context)).failure).toMatchObject({ code });
  });

  it('aborts the step that runs, and undoes', async () => {
    const { did, steps } = recorded('a', 'c');
    const { context, stop } = setting();
    const waits: Step = {
      name: 'b',
      run: async (signal) => {
        setTimeout(() => stop.abort(), 5);
        await untilAborted(signal).catch(() => {
          throw new SnapshotError('CANCELLED', 'heard it');
        });
      },
    };
    const result = await runSteps([steps[0] as Step, waits, steps[1] as Step], context);
    expect(result).toMatchObject({ failedStep: 'b', failure: { code: 'CANCELLED', message: 'heard it' } });
    expect(did).toEqual(['a', 'undo a']);
  });

  it('is CANCELLED even where the step throws the bare reason of its signal', async () => {
    const { context, stop } = setting();
    const waits: Step = {
      name: 'a',
      run: (signal) => {
        setTimeout(() => stop.abort(), 5);
        return untilAborted(signal);
      },
    };
    expect((await runSteps([waits], context)).failure).toMatchObject({ code: 'CANCELLED' });
  });

  it('is heard by a step that began while the cancellation came', async () => {
    const stop = new AbortController();
    const onStep = async () => {
      await Promise.resolve();
      stop.abort();
    };
    let isHeard = false;
    const step: Step = {
      name: 'a',
      deadlineMs: 1_000,
      run: async (signal) => {
        isHeard = signal.aborted;
      },
    };
    const result = await runSteps([step], setting({ onStep, signal: stop.signal }).context);
    expect(isHeard || result.failure?.code === 'CANCELLED').toBe(true);
  });

  it('does not begin the next step after one that would not be disturbed', async () => {
    const { did, steps } = recorded('b');
    const { context, stop } = setting();
    const deaf: Step = {
      name: 'a',
      run: async () => {
        stop.abort();
      },
    };
    expect(await runSteps([deaf, ...steps], context)).toMatchObject({
      failedStep: 'b',
      failure: { code: 'CANCELLED', message: 'cancelled before b' },
    });
    expect(did).toEqual(['undo b']);
  });

  it('does not go on to steps that it is too late in where that was not said before', async () => {
    const { did, steps } = recorded('late', 'later');
    const { context, stop } = setting();
    const deaf: Step = {
      name: 'a',
      run: async () => {
        stop.abort();
      },
    };
    const late = steps.map((step) => ({ ...step, cancel: 'too-late' as const }));
    expect(await runSteps([deaf, ...late], context)).toMatchObject({
      failedStep: 'late',
      failure: { code: 'CANCELLED', message: 'cancelled before late' },
    });
    expect(did).toEqual(['undo late']);
  });

  it('goes on to its end once it was said to be too late', async () => {
    const { did, steps } = recorded('late', 'later');
    const { context, stop, told } = setting();
    const onStep = (name: string) => {
      told.push(name);
      stop.abort();
    };
    const late = steps.map((step) => ({ ...step, cancel: 'too-late' as const }));
    expect((await runSteps(late, { ...context, onStep })).failure).toBeUndefined();
    expect([did, told]).toEqual([
      ['late', 'later'],
      ['late', 'later'],
    ]);
  });

  it('leaves no listener on the signal it was given, however many steps there were', async () => {
    const { context, stop } = setting();
    let listening = 0;
    const { signal } = stop;
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
    vi.spyOn(signal, 'addEventListener').mockImplementation((...given: Parameters<typeof add>) => {
      listening++;
      add(...given);
    });
    vi.spyOn(signal, 'removeEventListener').mockImplementation((...given: Parameters<typeof remove>) => {
      listening--;
      remove(...given);
    });
    await runSteps(recorded('a', 'b', 'c').steps, context);
    expect(signal.addEventListener).toHaveBeenCalled();
    expect(listening).toBe(0);
  });
});
