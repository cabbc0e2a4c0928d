import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { newAgent } from '../../agent/agent.ts';
import { parseConfig } from '../../agent/config.ts';
import { type ErrorCode, SnapshotError } from '../../agent/errors.ts';
import type { AgentContext, OperationRequest, Outcome, TooEarly } from '../../agent/operations/context.ts';
import { type Journal, openJournal, type Transition } from '../../agent/operations/journal.ts';
import type { Performers } from '../../agent/operations/perform.ts';
import { newRegistry } from '../../agent/operations/registry.ts';
import { noReporter } from '../../agent/operations/reporter.ts';
import type { CheckpointWanted, RestoreWanted } from '../../agent/plan/decide.ts';
import type { PodSource } from '../../agent/watch/source.ts';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import type { ContainerView, PodView } from '../../contract/pods.ts';
import { memoryLog } from '../fakes/log.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

let top: string;
let journal: Journal;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'agent-'));
  journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'boot' });
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
});
afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  await journal.close();
  await rm(top, { recursive: true, force: true });
});

const container = (changes: Partial<ContainerView> = {}): ContainerView => ({
  name: 'main',
  id: 'c-main',
  state: 'running',
  attempt: 0,
  ...changes,
});
const pod = (changes: Partial<PodView> = {}): PodView => ({
  uid: 'uid',
  namespace: 'team',
  name: 'worker',
  sandboxId: 'sandbox',
  labels: { [LABELS.checkpointId]: 'ckpt', [LABELS.checkpointSource]: 'true' },
  annotations: { [ANNOTATIONS.targetContainers]: 'main' },
  containers: [container()],
  ...changes,
});
const target = (changes: Partial<PodView> = {}) => pod({ labels: { [LABELS.checkpointId]: 'ckpt' }, ...changes });

type Ended = Outcome | TooEarly;
const done: Outcome = { result: 'succeeded', timings: [{ step: 'a', seconds: 0.123456 }], figures: { bulkBytes: 7 } };
const early: TooEarly = { result: 'too-early', reason: 'not ready', code: 'QUIESCE_TIMEOUT' };
const failed = (code: ErrorCode): Outcome => ({
  result: 'failed',
  failure: new SnapshotError(code, 'no', { cause: new Error('deep') }),
  failedStep: 'fill',
  timings: [],
  figures: {},
});

/** An agent at work whose operations end as told, one answer after the other; the last one stays. */
function agentAtWork(answers: readonly (Ended | Error | Promise<Ended>)[], config = '') {
  const logged = memoryLog();
  const pods = new Map<string, PodView>();
  const attempts: { kind: string; containerId: string; operationId: string; signal: AbortSignal }[] = [];
  let tell: (uid: string, toldAtMs?: number) => void = () => undefined;
  const source: PodSource = {
    pod: (uid) => pods.get(uid),
    pods: () => pods.values(),
    staleReason: () => undefined,
    run: (changed, signal) => {
      tell = changed;
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    },
  };
  const context = {
    config: parseConfig(`nodeName: a\nstorage: { basePath: /c }\n${config}`),
    journal,
    log: logged.log,
    liveOperations: new Set<string>(),
    reporter: noReporter,
  } as unknown as AgentContext;
  const perform = async (
    kind: string,
    { wanted, operationId, signal }: OperationRequest<CheckpointWanted | RestoreWanted>,
  ) => {
    attempts.push({ kind, containerId: wanted.container.id, operationId, signal });
    expect(context.liveOperations.has(operationId)).toBe(true);
    const answer = await (answers[attempts.length - 1] ?? answers.at(-1));
    if (answer instanceof Error) throw answer;
    return answer as Ended;
  };
  const performers: Performers = {
    checkpoint: (_, request) => perform('checkpoint', request),
    restore: (_, request) => perform('restore', request),
  };
  const stop = new AbortController();
  const registry = newRegistry();
  const pickedUp: number[] = [];
  const awaited: [key: string, early: TooEarly | undefined][] = [];
  const agent = newAgent(context, {
    ...{ pods: source, guards: { add: () => undefined }, registry, performers },
    onPickedUp: (seconds) => pickedUp.push(seconds),
    onAwaited: (key, told) => awaited.push([key, told]),
  });
  const ended = agent.run(stop.signal);
  const say = async (...views: PodView[]) => {
    for (const view of views) pods.set(view.uid, view);
    for (const { uid } of views) tell(uid, performance.now());
    await vi.advanceTimersByTimeAsync(0);
  };
  const drop = async (uid: string) => {
    pods.delete(uid);
    tell(uid);
    await vi.advanceTimersByTimeAsync(0);
  };
  const { lookAgain } = agent;
  return { ...logged, attempts, say, drop, stop, ended, context, registry, pickedUp, awaited, lookAgain };
}
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const kinds = (attempts: readonly { kind: string }[]) => attempts.map(({ kind }) => kind);

describe('the agent', () => {
  it('checkpoints a source and restores into a target, once each, and says how it went', async () => {
    const { say, attempts, said, context } = agentAtWork([done]);
    await say(pod(), target({ uid: 'other', containers: [container({ id: 'c-other' })] }));
    expect(kinds(attempts)).toEqual(['checkpoint', 'restore']);
    expect(new Set(attempts.map(({ operationId }) => operationId)).size).toBe(2);
    expect(said('operation succeeded')).toMatchObject([
      {
        operation: 'checkpoint',
        containerId: 'c-main',
        checkpointId: 'ckpt',
        version: '1',
        result: 'succeeded',
        steps: { a: 0.1235 },
        bulkBytes: 7,
      },
      { operation: 'restore', containerId: 'c-other' },
    ]);
    expect(said('operation succeeded')[0]?.['traceId']).toMatch(/^[0-9a-f]{32}$/);
    expect(context.liveOperations.size).toBe(0);
  });

  it('works on the containers of one pod beside each other, but never twice on one', async () => {
    const { say, attempts } = agentAtWork([new Promise(() => undefined)]);
    const both = target({
      annotations: { [ANNOTATIONS.targetContainers]: 'main,side' },
      containers: [container(), container({ name: 'side', id: 'c-side' })],
    });
    await say(both);
    await say(both);
    await pass(60_000);
    expect(attempts.map(({ containerId }) => containerId)).toEqual(['c-main', 'c-side']);
  });

  it('says how long it took from the event to the beginning, of each event that began something', async () => {
    const { say, pickedUp } = agentAtWork([failed('STORAGE_FAILED'), done]);
    await say(pod({ containers: [container({ state: 'created' })] }));
    expect(pickedUp).toEqual([]);
    await say(pod());
    expect(pickedUp).toEqual([expect.toSatisfy((seconds: number) => seconds >= 0 && seconds < 60)]);
    // It is tried again by the clock, not because of this.
    await say(pod());
    await pass(1_000);
    expect(pickedUp).toHaveLength(1);
  });

  it('runs no more operations at once than allowed', async () => {
    const { say, attempts } = agentAtWork([new Promise(() => undefined)], 'limits: { parallelOperations: 2 }');
    await say(...['1', '2', '3'].map((uid) => target({ uid, containers: [container({ id: `c-${uid}` })] })));
    expect(attempts).toHaveLength(2);
  });

  it('looks at the pod as it is when its turn comes, not as it was when it was told', async () => {
    let go: (outcome: Ended) => void = () => undefined;
    const first = new Promise<Ended>((resolve) => {
      go = resolve;
    });
    const { say, drop, attempts } = agentAtWork([first, done], 'limits: { parallelOperations: 1 }');
    await say(target({ uid: '1', containers: [container({ id: 'c-1' })] }), target());
    await drop('uid');
    go(done);
    await pass(1_000);
    expect(attempts.map(({ containerId }) => containerId)).toEqual(['c-1']);
  });
});

describe('a container that is not ready', () => {
  it('is asked again at the pace of polling, then less and less often, and that is said once for each reason', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const { say, attempts, said } = agentAtWork([early, early, { ...early, reason: 'other' }, early, done]);
    await say(pod());
    for (const [index, wait] of [500, 625, 781, 976].entries()) {
      await pass(wait - 1);
      expect(attempts).toHaveLength(index + 1);
      await pass(1);
      expect(attempts).toHaveLength(index + 2);
    }
    expect(said('not yet').map(({ reason }) => reason)).toEqual(['not ready', 'other', 'not ready']);
    expect(said('operation succeeded')).toHaveLength(1);
  });

  it('is not asked sooner because something happens to its pod', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const { say, attempts, pickedUp } = agentAtWork([early, done]);
    await say(pod());
    for (let n = 0; n < 4; n++) {
      await pass(100);
      await say(pod({ annotations: { ...pod().annotations, note: `${n}` } }));
    }
    expect(attempts).toHaveLength(1);
    await pass(100);
    expect(attempts).toHaveLength(2);
    expect(pickedUp).toHaveLength(1);
  });

  it('is asked at once when somebody says that what it waits for has come, and seldom otherwise', async () => {
    const artifact = { id: 'ckpt', version: '1' };
    const { say, attempts, awaited, lookAgain } = agentAtWork([{ ...early, artifact }, { ...early, artifact }, done]);
    await say(target());
    expect(awaited).toEqual([['uid/main', { ...early, artifact }]]);
    await pass(23_000);
    expect(attempts).toHaveLength(1);
    await pass(7_000);
    expect(attempts).toHaveLength(2);
    lookAgain('uid/main');
    await pass(0);
    expect(attempts).toHaveLength(3);
    expect(awaited.at(-1)).toEqual(['uid/main', undefined]);
  });

  it('begins anew at once when its pod asks for something else', async () => {
    const { say, attempts, registry } = agentAtWork([early, done]);
    await say(target());
    await say(target({ labels: { [LABELS.checkpointId]: 'other' } }));
    expect(attempts).toHaveLength(2);
    expect(registry.list().map(({ checkpointId, state, failure }) => [checkpointId, state, failure?.code])).toEqual(
      expect.arrayContaining([
        ['ckpt', 'failed', 'CANCELLED'],
        ['other', 'succeeded', undefined],
      ]),
    );
  });

  it('is not waited for any longer when somebody cancels that, at once', async () => {
    const { say, attempts, registry } = agentAtWork([{ ...early, artifact: { id: 'ckpt', version: '1' } }]);
    await say(target());
    const [waiting] = registry.list();
    registry.cancel(waiting?.id ?? '');
    await pass(0);
    await vi.waitFor(() =>
      expect(registry.list()).toMatchObject([{ state: 'failed', failure: { code: 'CANCELLED' } }]),
    );
    await pass(60_000);
    expect(attempts).toHaveLength(1);
  });

  it('is not waited for any longer when its pod asks for nothing', async () => {
    const { say, attempts, registry, awaited } = agentAtWork([early]);
    await say(pod());
    await say(pod({ labels: {} }));
    expect(registry.list()).toMatchObject([{ state: 'failed', failure: { code: 'CANCELLED' } }]);
    expect(awaited.at(-1)).toEqual(['uid/main', undefined]);
    await pass(60_000);
    expect(attempts).toHaveLength(1);
  });

  it('is not asked any more when it is gone', async () => {
    const { say, drop, attempts } = agentAtWork([early]);
    await say(pod());
    await drop('uid');
    await pass(10_000);
    expect(attempts).toHaveLength(1);
  });
});

describe('a failure that may pass', () => {
  it('is tried again after one second, doubled each time, and given up in the end', async () => {
    const { say, attempts, said } = agentAtWork([failed('RUNTIME_UNAVAILABLE')]);
    await say(pod());
    for (const [n, wait] of [1_000, 2_000, 4_000, 8_000].entries()) {
      await pass(wait - 1);
      expect(attempts).toHaveLength(n + 1);
      await pass(1);
      expect(attempts).toHaveLength(n + 2);
    }
    await pass(3_600_000);
    await say(pod());
    expect(attempts).toHaveLength(5);
    expect(said('operation failed')).toHaveLength(5);
    expect(said('operation failed')[0]).toMatchObject({
      code: 'RUNTIME_UNAVAILABLE',
      step: 'fill',
      problem: 'no',
      cause: 'deep',
    });
    expect(said('not tried again')).toMatchObject([{ tries: 5 }]);
  });

  it('is not tried sooner because something happens to the pod', async () => {
    const { say, attempts } = agentAtWork([failed('STORAGE_FAILED'), failed('STORAGE_FAILED'), done]);
    await say(pod());
    for (let n = 0; n < 9; n++) {
      await pass(100);
      await say(pod());
    }
    expect(attempts).toHaveLength(1);
    await pass(100);
    expect(attempts).toHaveLength(2);
  });

  it('that was thrown before anything was written down is one too', async () => {
    const { say, attempts, said } = agentAtWork([new SnapshotError('STORAGE_NOT_ATTACHED', 'no'), done]);
    await say(pod());
    await pass(1_000);
    expect(attempts).toHaveLength(2);
    expect(said('operation failed')).toMatchObject([{ code: 'STORAGE_NOT_ATTACHED', step: 'reach' }]);
    expect(said('operation succeeded')).toHaveLength(1);
  });

  it('of one container takes no try from the next of the same name', async () => {
    const { say, attempts } = agentAtWork([failed('CONTAINER_GONE')]);
    await say(pod());
    await pass(60_000);
    await say(pod({ containers: [container({ id: 'c-2', attempt: 1 })] }));
    await pass(60_000);
    const tries = (id: string) => attempts.filter(({ containerId }) => containerId === id).length;
    expect([tries('c-main'), tries('c-2')]).toEqual([5, 5]);
  });
});

describe('a failure that does not pass', () => {
  it.each<[string, Ended | Error]>([
    ['told', failed('DUMP_FAILED')],
    ['thrown', new SnapshotError('STORAGE_UNSAFE', 'planted')],
    ['thrown by a defect', new TypeError('oops')],
  ])('is not tried again: %s', async (_, answer) => {
    const { say, attempts, said } = agentAtWork([answer]);
    await say(pod());
    await pass(600_000);
    await say(pod());
    expect(attempts).toHaveLength(1);
    expect(said('operation failed')).toHaveLength(1);
    expect(said('not tried again')).toHaveLength(1);
  });
});

describe('a pod that is not understood', () => {
  it('is said once for each reason, and not worked on', async () => {
    const { say, attempts, said } = agentAtWork([done]);
    const broken = pod({ annotations: {} });
    for (let n = 0; n < 3; n++) await say(broken);
    await say(pod({ annotations: { [ANNOTATIONS.targetContainers]: 'a,a' } }));
    expect(said('pod is not understood').map(({ reason }) => reason)).toEqual([
      expect.stringContaining('missing or blank'),
      expect.stringContaining('names a container twice'),
    ]);
    expect(attempts).toEqual([]);
    await say(pod());
    expect(attempts).toHaveLength(1);
  });
});

describe('a pod that is gone', () => {
  it.each<[string, readonly (Ended | Error)[]]>([
    ['waited', [early]],
    ['failed, and was to be tried again', [failed('STORAGE_FAILED')]],
    ['failed for good', [failed('DUMP_FAILED')]],
    ['succeeded', [done]],
  ])('leaves nothing behind, where its operation %s', async (_, answers) => {
    const { say, drop } = agentAtWork(answers);
    const ask = async () => {
      const view = pod();
      await say(view);
      return [view, ...view.containers].map((one) => new WeakRef<object>(one));
    };
    const kept = await ask();
    await drop('uid');
    await pass(60_000);
    collectGarbage();
    expect(kept.filter((one) => one.deref() !== undefined)).toEqual([]);
  });
});

describe('an agent that starts again', () => {
  const ended = (state: Transition['state'], changes: Partial<Transition> = {}): Transition => ({
    operationId: 'before',
    kind: 'checkpoint',
    containerKey: { containerId: 'c-main', pid: 10, startTime: 20 },
    pod: { namespace: 'team', name: 'worker', uid: 'uid' },
    container: 'main',
    checkpointId: 'ckpt',
    version: '1',
    state,
    details: { retry: false },
    ...changes,
  });

  it.each(['succeeded', 'failed', 'refused', 'unknown'] as const)(
    'gives no second attempt to a container whose first one is written down as %s',
    async (state) => {
      await journal.append(ended(state));
      await journal.close();
      journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'another boot' });
      const { say, attempts } = agentAtWork([done]);
      await say(pod(), target({ uid: 'target' }));
      expect(attempts).toEqual([]);
      await say(pod({ containers: [container({ id: 'c-2', attempt: 1 })] }));
      expect(attempts).toHaveLength(1);
    },
  );

  it('tries again what failed in a way that may pass', async () => {
    await journal.append(ended('failed', { details: { retry: true } }));
    const { say, attempts } = agentAtWork([done]);
    await say(pod());
    expect(attempts).toHaveLength(1);
  });

  it('checkpoints a container that it restored, once its pod is a source, but not one whose restore failed', async () => {
    for (const [state, count] of [
      ['succeeded', 1],
      ['failed', 0],
    ] as const) {
      await journal.append(ended(state, { kind: 'restore' }));
      const { say, attempts } = agentAtWork([done]);
      await say(pod());
      expect(attempts).toHaveLength(count);
    }
  });
});

describe('an agent that stops', () => {
  it('takes no more work, and waits for what is under way', async () => {
    let go: (outcome: Ended) => void = () => undefined;
    const first = new Promise<Ended>((resolve) => {
      go = resolve;
    });
    const { say, stop, ended, attempts } = agentAtWork([first]);
    await say(pod());
    stop.abort();
    let isOver = false;
    void ended.then(() => {
      isOver = true;
    });
    await say(target({ uid: 'late', containers: [container({ id: 'c-late' })] }));
    await pass(299_000);
    expect([isOver, attempts.length, attempts[0]?.signal.aborted]).toEqual([false, 1, false]);
    go(done);
    await ended;
    expect(attempts[0]?.signal.aborted).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('cancels what is not done in time', async () => {
    const { say, stop, attempts } = agentAtWork([new Promise(() => undefined)], 'limits: { drainSeconds: 7 }');
    await say(pod());
    stop.abort();
    await pass(6_999);
    expect(attempts[0]?.signal.aborted).toBe(false);
    await pass(1);
    expect(attempts[0]?.signal.aborted).toBe(true);
  });

  it('does not come back to what failed meanwhile', async () => {
    const { say, stop, ended, attempts } = agentAtWork([failed('STORAGE_FAILED')]);
    await say(pod());
    stop.abort();
    await pass(60_000);
    await ended;
    expect(attempts).toHaveLength(1);
  });
});
