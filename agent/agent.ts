import { randomBytes, randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { LABELS } from '../contract/keys.ts';
import type { PodView } from '../contract/pods.ts';
import { asSnapshotError, type SnapshotError } from './errors.ts';
import { checkpoint } from './operations/checkpoint.ts';
import type { AgentContext, Outcome, TooEarly } from './operations/context.ts';
import type { Guards } from './operations/guards.ts';
import { restoreContainer } from './operations/restore.ts';
import { type CheckpointWanted, type Decision, decide, type History, type RestoreWanted } from './plan/decide.ts';
import { type ContainerMemory, newMemory } from './plan/memory.ts';
import { type Again, keyedQueue } from './plan/queue.ts';
import type { PodSource } from './watch/cri.ts';

/** Failures that may pass are tried again after this, doubled each time up to the limit. */
const RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;
/** An operation that failed this often on one container is given up: what fails deterministically must not loop. */
const MAX_TRIES = 5;
/** What is waited for is looked for less and less often, up to this: each look costs a few processes. */
const MAX_WAIT_MS = 2_000;
const WAIT_GROWTH = 1.25;

type Work = CheckpointWanted | RestoreWanted;

/** Brings pods and operations together: an event only triggers, what is to be done is decided from the current state. */
export interface Agent {
  /** Works until the signal; then takes no more work and resolves when what is under way has ended, or was cancelled after a while. */
  run(signal: AbortSignal): Promise<void>;
}

/** What the agent does to a container; each call is one attempt. */
export interface Operations {
  readonly checkpoint: typeof checkpoint;
  readonly restore: typeof restoreContainer;
}

export function newAgent(
  context: AgentContext,
  pods: PodSource,
  guards: Pick<Guards, 'add'>,
  operations: Operations = { checkpoint, restore: restoreContainer },
): Agent {
  const { config, journal, log } = context;
  const running = new Set<string>();
  const memory = newMemory();
  const cancel = new AbortController();

  /** One attempt for each container; but one that was restored may be checkpointed when its pod becomes a source. */
  const historyFor =
    (pod: PodView): History =>
    (containerId) => {
      if (running.has(containerId)) return 'running';
      if (memory.of(pod.uid, containerId).isHopeless) return 'ended';
      const outcome = journal.outcomeOf(containerId);
      if (outcome === undefined || outcome.details['retry'] === true) return 'none';
      const isSource = pod.labels[LABELS.checkpointSource] === 'true';
      return isSource && outcome.kind === 'restore' && outcome.state === 'succeeded' ? 'none' : 'ended';
    };

  /** A pod's containers are worked on independently: the key names both. */
  const queue = keyedQueue(config.limits.parallelOperations, work, (key, err) =>
    log.error({ err, key }, 'work failed'),
  );

  async function work(key: string): Promise<Again> {
    const [uid = '', name = ''] = key.split('/');
    const pod = pods.pod(uid);
    if (pod === undefined) return undefined;
    const wanted = decide(pod, historyFor(pod)).find(
      (decision): decision is Work =>
        (decision.kind === 'checkpoint' || decision.kind === 'restore') && decision.container.name === name,
    );
    if (wanted === undefined) return undefined;
    running.add(wanted.container.id);
    try {
      return await attempt(pod, wanted);
    } finally {
      running.delete(wanted.container.id);
    }
  }

  async function attempt(pod: PodView, wanted: Work): Promise<Again> {
    const operationId = randomUUID();
    const traceId = randomBytes(16).toString('hex');
    const fields = operationFields(pod, wanted, operationId, traceId);
    const opLog = log.child(fields);
    const known = memory.of(pod.uid, wanted.container.id);
    const isLastTry = known.tries + 1 >= MAX_TRIES;
    const request = { operationId, traceId, pod, isLastTry, signal: cancel.signal };
    const opContext = { ...context, log: opLog };
    let ended: Outcome | TooEarly;
    context.liveOperations.add(operationId);
    try {
      ended =
        wanted.kind === 'checkpoint'
          ? await operations.checkpoint(opContext, { ...request, wanted })
          : await operations.restore(opContext, { ...request, wanted }, (restored) => guards.add(restored));
    } catch (error) {
      ended = { result: 'failed', failure: asSnapshotError(error), failedStep: 'reach', timings: [], figures: {} };
    } finally {
      context.liveOperations.delete(operationId);
    }
    if (ended.result === 'too-early') {
      sayOnce(known, ended.reason, () => opLog.info({ reason: ended.reason }, 'not yet'));
      const afterMs = Math.min(MAX_WAIT_MS, config.watch.pollMilliseconds * WAIT_GROWTH ** known.waits);
      known.waits += 1;
      return { afterMs };
    }
    report(opLog, ended);
    return ended.failure === undefined ? undefined : retry(known, ended.failure, opLog);
  }

  /** Reasons for waiting are said when they change, not at every look. */
  function sayOnce(known: ContainerMemory, reason: string, say: () => void): void {
    if (known.said === reason) return;
    known.said = reason;
    say();
  }

  function retry(known: ContainerMemory, failure: SnapshotError, opLog: Logger): Again {
    known.tries += 1;
    if (!failure.retryable || known.tries >= MAX_TRIES) {
      known.isHopeless = true;
      opLog.warn({ tries: known.tries }, 'not tried again');
      return undefined;
    }
    const afterMs = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** (known.tries - 1));
    known.dueAt = Date.now() + afterMs;
    return { afterMs };
  }

  function changed(uid: string): void {
    const pod = pods.pod(uid);
    if (pod === undefined) {
      memory.forget(uid);
      return;
    }
    for (const decision of decide(pod, historyFor(pod))) {
      explain(pod, decision);
      if (decision.kind !== 'checkpoint' && decision.kind !== 'restore') continue;
      const { id, name } = decision.container;
      const waitMs = memory.of(uid, id).dueAt - Date.now();
      if (waitMs > 0) queue.addLater(`${uid}/${name}`, waitMs);
      else queue.add(`${uid}/${name}`);
    }
  }

  function explain(pod: PodView, decision: Decision): void {
    if (decision.kind === 'malformed')
      sayOnce(memory.of(pod.uid, ''), decision.reason, () =>
        log.warn({ pod: pod.name, namespace: pod.namespace, reason: decision.reason }, 'pod is not understood'),
      );
    if (decision.kind === 'nothing')
      log.trace({ pod: pod.name, container: decision.container, reason: decision.reason }, 'nothing to do');
  }

  return {
    run: async (signal) => {
      let late: NodeJS.Timeout | undefined;
      const startClock = () => {
        late ??= setTimeout(() => cancel.abort(), config.limits.drainSeconds * 1000);
      };
      signal.addEventListener('abort', startClock, { once: true });
      try {
        await pods.run(changed, signal);
      } finally {
        startClock();
        await queue.drain();
        clearTimeout(late);
      }
    },
  };
}

function operationFields(pod: PodView, wanted: Work, operationId: string, traceId: string) {
  return {
    operation: wanted.kind,
    operationId,
    traceId,
    namespace: pod.namespace,
    pod: pod.name,
    container: wanted.container.name,
    containerId: wanted.container.id,
    checkpointId: wanted.checkpointId,
    version: wanted.version,
  };
}

function report(log: Logger, outcome: Outcome): void {
  const seconds = outcome.timings.reduce((sum, timing) => sum + timing.seconds, 0);
  const steps = Object.fromEntries(outcome.timings.map(({ step, seconds: taken }) => [step, Number(taken.toFixed(4))]));
  const fields = { result: outcome.result, seconds: Number(seconds.toFixed(4)), steps, ...outcome.figures };
  if (outcome.failure === undefined) {
    log.info(fields, 'operation succeeded');
    return;
  }
  const { code, message, advice, reasons, cause } = outcome.failure;
  log.error(
    {
      ...fields,
      code,
      step: outcome.failedStep,
      problem: message,
      advice,
      reasons,
      cause: cause instanceof Error ? cause.message : undefined,
    },
    'operation failed',
  );
}
