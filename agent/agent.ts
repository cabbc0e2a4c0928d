import type { Logger } from 'pino';
import type { PodView } from '../contract/pods.ts';
import { type Again, type KeyedQueue, keyedQueue } from '../kube/queue.ts';
import { SnapshotError } from './errors.ts';
import { endUnbegun, mayRetry } from './operations/attempt.ts';
import type { AgentContext, Outcome, TooEarly } from './operations/context.ts';
import type { Guards } from './operations/guards.ts';
import { historyOf } from './operations/history.ts';
import { logOutcome, operationFields } from './operations/outcome-log.ts';
import {
  cancelledOutcome,
  finalOutcome,
  newPerforming,
  PERFORMERS,
  type Performers,
  type Performing,
} from './operations/perform.ts';
import { newPickUps, type PickUps } from './operations/pick-ups.ts';
import { newQuarantine, type Quarantine } from './operations/quarantine.ts';
import type { Registry } from './operations/registry.ts';
import { isUndeclared, tellCluster } from './operations/reporter.ts';
import { newWaiting, type Waiting } from './operations/waiting.ts';
import { newWishes, targetBusy, type Wish, workKey } from './operations/wishes.ts';
import { actionFor, isAction, isWork, subjectOf, type Work } from './plan/action.ts';
import { type Decision, decide } from './plan/decide.ts';
import { backoffMs, type ContainerMemory, lookAgainMs, newMemory, sayOnce, WHOLE_POD } from './plan/memory.ts';
import type { PodSource } from './watch/source.ts';

/** An operation that failed this often on one container is given up: what fails deterministically must not loop. */
const MAX_TRIES = 5;

/** Brings pods and operations together: an event only triggers, what is to be done is decided from the current state. */
export interface Agent {
  /** Works until the signal; then takes no more work and resolves when what is under way has ended, or was cancelled after a while. */
  run(signal: AbortSignal): Promise<void>;
  /** Takes a caller's wish over. Throws TARGET_BUSY, SHUTTING_DOWN. */
  ask(wish: Wish): void;
  /** Throws as `ask` would, without taking anything. */
  requireIdle(podUid: string, container: string): void;
  /** Something that was waited for may have come. */
  lookAgain(key: string): void;
  /** Containers that have a process which does not die. */
  quarantined(): number;
}

export interface AgentParts {
  readonly pods: PodSource;
  readonly guards: Pick<Guards, 'add'>;
  readonly registry: Registry;
  readonly performers?: Performers;
  /** The first step of an operation begins this long after the event that led to it. */
  readonly onPickedUp?: (seconds: number) => void;
  /** It was too early for a container, or it no longer waits: who knows when that changes says so with `lookAgain`. */
  readonly onAwaited?: (key: string, early: TooEarly | undefined) => void;
}

export function newAgent(context: AgentContext, parts: AgentParts): Agent {
  const agent = new NodeAgent(context, parts);
  return {
    run: (signal) => agent.run(signal),
    ask: (wish) => agent.ask(wish),
    requireIdle: (podUid, container) => agent.requireIdle(workKey(podUid, container), container),
    lookAgain: (key) => agent.lookAgain(key),
    quarantined: () => agent.quarantined(),
  };
}

class NodeAgent {
  readonly #context: AgentContext;
  readonly #parts: AgentParts;
  readonly #performing: Performing;
  readonly #wishes = newWishes();
  readonly #waiting: Waiting;
  readonly #pickUps: PickUps;
  readonly #quarantine: Quarantine;
  readonly #memory = newMemory();
  /** A pod's containers are worked on independently: the key names both. */
  readonly #queue: KeyedQueue;
  #isStopping = false;

  constructor(context: AgentContext, parts: AgentParts) {
    this.#context = context;
    this.#parts = parts;
    this.#performing = newPerforming(context, parts.performers ?? PERFORMERS, (one) => parts.guards.add(one));
    this.#waiting = newWaiting(parts.registry, (key) => this.#queue.add(key));
    this.#pickUps = newPickUps((seconds) => parts.onPickedUp?.(seconds));
    this.#quarantine = newQuarantine(parts.pods);
    this.#queue = keyedQueue(
      context.config.limits.parallelOperations,
      (key) => this.#work(key),
      (key, err) => context.log.error({ err, key }, 'work failed'),
    );
  }

  async run(signal: AbortSignal): Promise<void> {
    let late: NodeJS.Timeout | undefined;
    const startClock = () => {
      this.#isStopping = true;
      late ??= setTimeout(() => this.#performing.cancelAll(), this.#context.config.limits.drainSeconds * 1000);
    };
    signal.addEventListener('abort', startClock, { once: true });
    try {
      await this.#parts.pods.run((uid, toldAtMs) => this.#changed(uid, toldAtMs), signal);
    } finally {
      startClock();
      await this.#queue.drain();
      clearTimeout(late);
    }
  }

  ask(wish: Wish): void {
    const { name } = wish.wanted.container;
    const key = workKey(wish.pod.uid, name);
    this.requireIdle(key, name);
    this.#wishes.add(wish);
    wish.handle.cancelled.addEventListener('abort', () => this.#queue.add(key), { once: true });
    this.#queue.add(key);
  }

  requireIdle(key: string, container: string): void {
    if (this.#isStopping) throw new SnapshotError('SHUTTING_DOWN', 'the agent of this node is being stopped');
    const busy = this.#wishes.of(key)?.operationId ?? this.#performing.operationOf(key);
    if (busy !== undefined) throw targetBusy(container, busy);
  }

  lookAgain(key: string): void {
    this.#queue.add(key);
  }

  quarantined(): number {
    return this.#quarantine.size;
  }

  #changed(uid: string, toldAtMs: number | undefined): void {
    const pod = this.#parts.pods.pod(uid);
    if (pod === undefined) {
      this.#forget(uid);
      return;
    }
    const waiting = new Set(this.#waiting.keysOf(uid));
    for (const decision of this.#decide(pod)) {
      this.#explain(pod, decision);
      if (!isAction(decision)) continue;
      const { name, id } = subjectOf(decision);
      const key = workKey(uid, name);
      waiting.delete(key);
      // What it is too early for does not stand in the pod: a look now would find the same.
      if (isWork(decision) && this.#waiting.isFor(key, decision)) continue;
      const waitMs = this.#memory.of(uid, id).dueAt - Date.now();
      if (toldAtMs !== undefined && waitMs <= 0 && isWork(decision)) this.#pickUps.told(key, toldAtMs);
      if (waitMs > 0) this.#queue.addLater(key, waitMs);
      else this.#queue.add(key);
    }
    // Nobody asks for it any more, unless it is only that a look is under way.
    for (const key of waiting) if (this.#performing.operationOf(key) === undefined) this.#queue.add(key);
  }

  /** A pod is gone: whoever waits for it waits for nothing. */
  #forget(uid: string): void {
    this.#memory.forget(uid);
    this.#pickUps.forgetPod(uid);
    this.#waiting.endOfPod(uid, new SnapshotError('POD_GONE', 'the pod is gone'));
  }

  #decide(pod: PodView): Decision[] {
    const isHopeless = (containerId: string) => this.#memory.of(pod.uid, containerId).isHopeless;
    const history = historyOf(pod, {
      journal: this.#context.journal,
      isRunning: this.#performing.isRunning,
      isHopeless,
    });
    return decide(pod, history, this.#context.config.storage);
  }

  async #work(key: string): Promise<Again> {
    const wish = this.#wishes.of(key);
    if (wish !== undefined) return await this.#grant(key, wish);
    const [uid = '', name = ''] = key.split('/');
    const pod = this.#parts.pods.pod(uid);
    const decision = pod && actionFor(this.#decide(pod), name);
    if (pod === undefined || decision === undefined) {
      this.#waiting.end(key, new SnapshotError('CANCELLED', 'the pod does not ask for it any more'));
      this.#pickUps.drop(key);
      this.#parts.onAwaited?.(key, undefined);
      return undefined;
    }
    if (decision.kind === 'report' || decision.kind === 'worker-failed')
      return await tellCluster(this.#context, pod, decision, this.#memory);
    return await this.#attempt(key, pod, decision);
  }

  /** One attempt at what an annotation asks for. */
  async #attempt(key: string, pod: PodView, wanted: Work): Promise<Again> {
    const begun = this.#waiting.of(key, pod, wanted);
    const { operationId, traceId, begin } = begun;
    const log = this.#context.log.child(operationFields(pod, wanted, begun));
    const known = this.#memory.of(pod.uid, wanted.container.id);
    const isUnwanted = begun.isBegun() && begin().cancelled.aborted;
    const isLastTry = known.tries + 1 >= MAX_TRIES;
    this.#pickUps.begun(key);
    const request = { operationId, traceId, pod, wanted, begin, fingerprint: '', isLastTry };
    const { ended } = isUnwanted ? { ended: cancelledOutcome() } : await this.#performing.perform(key, request, log);
    if (ended.result === 'too-early') {
      this.#waiting.keep(key, begun, wanted, ended.reason);
      return this.#waitFor(key, ended, known, log);
    }
    this.#waiting.remove(key);
    this.#parts.onAwaited?.(key, undefined);
    if (ended.result === 'over') {
      log.info({ reason: ended.reason }, 'nothing is left to do');
      known.isHopeless = true;
      if (begun.isBegun()) begin().ended(finalOutcome(ended));
      return undefined;
    }
    if (isUnwanted) await endUnbegun(this.#context.journal, { ...request, handle: begin() }, ended);
    begin().ended(ended);
    this.#note(pod, wanted, ended, log);
    if (ended.failure === undefined) return undefined;
    if (isUndeclared(ended.failure)) return this.#lookLater(known);
    return this.#retry(known, { mayPass: mayRetry(ended, begin()), log });
  }

  /** One attempt at what a caller asked for: there is no other, but it waits for what is not there yet as long as the caller said. */
  async #grant(key: string, wish: Wish): Promise<Again> {
    const { handle, pod, wanted, operationId, fingerprint } = wish;
    const ids = { operationId, traceId: handle.view.traceId };
    const log = this.#context.log.child(operationFields(pod, wanted, ids));
    const request = { ...ids, pod, wanted, fingerprint, isLastTry: true, begin: () => handle };
    const attempted = handle.cancelled.aborted
      ? { ended: cancelledOutcome(), isJournalled: false }
      : await this.#performing.perform(key, request, log);
    const { ended } = attempted;
    if (ended.result === 'too-early' && Date.now() < wish.deadlineAtMs) {
      handle.waiting(ended.reason);
      const again = this.#waitFor(key, ended, this.#memory.of(pod.uid, wanted.container.id), log);
      return { afterMs: Math.min(again.afterMs, Math.max(0, wish.deadlineAtMs - Date.now())) };
    }
    this.#wishes.remove(key);
    this.#parts.onAwaited?.(key, undefined);
    const outcome = finalOutcome(ended);
    try {
      if (!attempted.isJournalled) await endUnbegun(this.#context.journal, wish, outcome);
    } finally {
      handle.ended(outcome);
      this.#note(pod, wanted, outcome, log);
      // What the pod's annotations ask for had to wait.
      this.#changed(pod.uid, undefined);
    }
    return undefined;
  }

  #waitFor(key: string, early: TooEarly, known: ContainerMemory, log: Logger): { readonly afterMs: number } {
    sayOnce(known, early.reason, () => log.info({ reason: early.reason }, 'not yet'));
    this.#parts.onAwaited?.(key, early);
    const { pollMilliseconds } = this.#context.config.watch;
    const afterMs = lookAgainMs(known.waits, { pollMs: pollMilliseconds, isHinted: early.artifact !== undefined });
    known.waits += 1;
    return { afterMs };
  }

  #note(pod: PodView, wanted: Work, outcome: Outcome, log: Logger): void {
    logOutcome(log, outcome);
    if (outcome.failure?.code === 'TARGET_QUARANTINED') this.#quarantine.add(pod.uid, wanted.container.id);
  }

  /** What is left is not up to the container: it is no failed try, and others have a turn first. */
  #lookLater(known: ContainerMemory): Again {
    const afterMs = backoffMs(MAX_TRIES);
    known.dueAt = Date.now() + afterMs;
    return { afterMs };
  }

  #retry(known: ContainerMemory, { mayPass, log }: { mayPass: boolean; log: Logger }): Again {
    known.tries += 1;
    if (!mayPass || known.tries >= MAX_TRIES) {
      known.isHopeless = true;
      log.warn({ tries: known.tries }, 'not tried again');
      return undefined;
    }
    const afterMs = backoffMs(known.tries);
    known.dueAt = Date.now() + afterMs;
    return { afterMs };
  }

  #explain(pod: PodView, decision: Decision): void {
    const { log } = this.#context;
    if (decision.kind === 'malformed')
      sayOnce(this.#memory.of(pod.uid, decision.containerId ?? WHOLE_POD), decision.reason, () =>
        log.warn({ pod: pod.name, namespace: pod.namespace, reason: decision.reason }, 'pod is not understood'),
      );
    if (decision.kind === 'nothing')
      log.trace({ pod: pod.name, container: decision.container, reason: decision.reason }, 'nothing to do');
  }
}
