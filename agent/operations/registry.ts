import { createHash } from 'node:crypto';
import type { SnapshotError } from '../errors.ts';
import type { Outcome } from './context.ts';
import { beyondFairShare, REMEMBERED } from './fair-share.ts';
import type { JournalEntry } from './journal.ts';
import {
  type CancelEffect,
  FINAL_STATES,
  type OperationChange,
  type OperationFailure,
  type OperationKind,
  type Operations,
  type OperationTarget,
  type OperationView,
  type Progress,
} from './operation.ts';
import { viewOfEntry } from './operation-journal.ts';
import { type Caller, maySee } from './service.ts';
import type { StepTiming } from './steps.ts';

/** Watchers need not see every byte: progress is told this often at most, and when a step ends. */
const PROGRESS_EVERY_MS = 200;

const NO_PROGRESS: Progress = { bytes: 0, totalBytes: 0, bytesPerSecond: 0 };

export interface NewOperation {
  readonly id: string;
  readonly requestId: string;
  /** Tells apart requests of the same id with other contents. */
  readonly fingerprint: string;
  /** Who called; none for what an annotation asks for. */
  readonly caller?: string;
  readonly kind: OperationKind;
  readonly origin: OperationView['origin'];
  readonly target: OperationTarget;
  readonly checkpointId: string;
  readonly version: string;
  readonly traceId: string;
  /** When it was accepted, where that was in an earlier run of the agent. */
  readonly createdAtMs?: number;
}

/** Who performs an operation tells through this how it goes. */
export interface OperationHandle {
  readonly view: OperationView;
  /** Aborts when somebody cancels the operation. */
  readonly cancelled: AbortSignal;
  waiting(reason: string): void;
  started(): void;
  step(name: string, effect: CancelEffect): void;
  stepEnded(timing: StepTiming): void;
  /** Bytes of the current step so far; `totalBytes` 0 where it is not known. */
  progress(bytes: number, totalBytes: number): void;
  ended(outcome: Outcome): void;
}

/** Operations, and the way to make new ones. */
export interface Registry extends Operations {
  open(operation: NewOperation): OperationHandle;
  /**
   * The newest operation of this caller's request id, and the fingerprint of its request. Where there is none, one that nobody called
   * for by name may have the id: see OperationView.
   */
  ofRequest(
    requestId: string,
    caller: Caller,
  ): { readonly view: OperationView; readonly fingerprint: string } | undefined;
  /** Takes over what the journal knows of earlier runs. Listeners are told of those that ended only now, by their ids in `news`. */
  load(entries: readonly JournalEntry[], news?: readonly string[]): void;
}

interface Known {
  view: OperationView;
  fingerprint: string;
  readonly cancel: AbortController;
  readonly wake: Set<() => void>;
  stepBeganMs: number;
  toldProgressMs: number;
  /** Of the current step, told or not. */
  progress: Progress;
}

/** The request id of what an annotation asks for: the same pod, container and checkpoint always give the same one. */
export function annotationRequestId(podUid: string, containerId: string, checkpointId: string): string {
  return createHash('sha256').update(`${podUid}\n${containerId}\n${checkpointId}`).digest('hex').slice(0, 32);
}

export function newRegistry(now: () => number = Date.now): Registry {
  const known = new Map<string, Known>();
  const listeners: ((change: OperationChange) => void)[] = [];

  const add = (view: OperationView, fingerprint: string): Known => {
    const one: Known = {
      view,
      fingerprint,
      cancel: new AbortController(),
      wake: new Set(),
      stepBeganMs: 0,
      toldProgressMs: 0,
      progress: NO_PROGRESS,
    };
    known.set(view.id, one);
    forgetOldest(known);
    return one;
  };
  const change = (one: Known, changes: Partial<OperationView>, ended?: StepTiming) => {
    one.view = { ...one.view, ...changes, revision: one.view.revision + 1 };
    for (const listener of listeners) listener({ view: one.view, ended });
    for (const wake of one.wake) wake();
  };

  return {
    open: (operation) => {
      const { fingerprint, ...rest } = operation;
      const one = add({ ...fresh(now()), ...rest }, fingerprint);
      change(one, {});
      return handleOf(one, change, now);
    },
    get: (id) => known.get(id)?.view,
    list: () => [...known.values()].map(({ view }) => view).sort((a, b) => b.createdAtMs - a.createdAtMs),
    ofRequest: (requestId, caller) => {
      const all = [...known.values()].filter(({ view }) => view.requestId === requestId);
      const isNobodys = ({ view }: Known) => view.caller === '' && maySee(caller, view.target.namespace);
      return all.findLast(({ view }) => view.caller === caller.name) ?? all.findLast(isNobodys);
    },
    watch: (id, afterRevision, signal) => follow(known.get(id), afterRevision, signal),
    cancel: (id) => {
      const one = known.get(id);
      if (one !== undefined && !FINAL_STATES.has(one.view.state)) one.cancel.abort();
      return one?.view;
    },
    onChange: (listener) => {
      listeners.push(listener);
    },
    load: (entries, news = []) => {
      for (const entry of entries) {
        if (known.has(entry.operationId)) continue;
        const { view, fingerprint } = viewOfEntry(entry);
        const one = add(view, fingerprint);
        if (news.includes(view.id)) change(one, {});
      }
    },
  };
}

function fresh(createdAtMs: number) {
  return {
    caller: '',
    state: 'queued',
    waitingFor: '',
    step: '',
    progress: NO_PROGRESS,
    cancelEffect: 'undone',
    createdAtMs,
    startedAtMs: undefined,
    endedAtMs: undefined,
    timings: [],
    figures: {},
    adopted: false,
    failure: undefined,
    revision: 0,
  } as const;
}

function handleOf(
  one: Known,
  change: (one: Known, changes: Partial<OperationView>, ended?: StepTiming) => void,
  now: () => number,
): OperationHandle {
  return {
    get view() {
      return one.view;
    },
    cancelled: one.cancel.signal,
    waiting: (reason) => {
      if (one.view.state !== 'waiting' || one.view.waitingFor !== reason)
        change(one, { state: 'waiting', waitingFor: reason });
    },
    started: () => change(one, { state: 'running', waitingFor: '', startedAtMs: now() }),
    step: (name, effect) => {
      one.stepBeganMs = now();
      one.toldProgressMs = 0;
      one.progress = NO_PROGRESS;
      change(one, { step: name, cancelEffect: effect, progress: NO_PROGRESS });
    },
    stepEnded: (timing) => change(one, { timings: [...one.view.timings, timing], progress: one.progress }, timing),
    progress: (bytes, totalBytes) => {
      const at = now();
      one.progress = further(one.progress, { bytes, totalBytes, seconds: Math.max(1, at - one.stepBeganMs) / 1000 });
      if (at - one.toldProgressMs < PROGRESS_EVERY_MS) return;
      one.toldProgressMs = at;
      change(one, { progress: one.progress });
    },
    ended: (outcome) => change(one, { ...endOf(outcome), endedAtMs: now() }),
  };
}

/** Files come and go while they are looked at, and totals are estimates: what is told never shrinks, and never passes its total. */
function further(
  before: Progress,
  seen: { readonly bytes: number; readonly totalBytes: number; readonly seconds: number },
): Progress {
  const bytes = Math.max(before.bytes, seen.bytes);
  const totalBytes = seen.totalBytes === 0 ? 0 : Math.max(seen.totalBytes, bytes);
  return { bytes, totalBytes, bytesPerSecond: Math.round(bytes / seen.seconds) };
}

/** What the end of an operation changes in its view. */
function endOf(outcome: Outcome): Partial<OperationView> {
  const { failure, result } = outcome;
  return {
    state: result === 'adopted' ? 'succeeded' : result,
    adopted: result === 'adopted',
    waitingFor: '',
    step: outcome.failedStep ?? '',
    cancelEffect: 'too-late',
    timings: outcome.timings,
    figures: outcome.figures,
    failure: failure && failureView(failure),
  };
}

function failureView(failure: SnapshotError): OperationFailure {
  const { code, message, advice, retryable, reasons } = failure;
  return { code, message, advice, retryable, reasons };
}

/** What is watched stays, and what has not ended. A map keeps the order of insertion: the first are the oldest. */
function forgetOldest(known: Map<string, Known>): void {
  if (known.size <= REMEMBERED.inAll) return;
  const ended = [...known.values()].filter(({ view, wake }) => FINAL_STATES.has(view.state) && wake.size === 0);
  for (const { view } of beyondFairShare(ended, (one) => one.view.target.namespace)) known.delete(view.id);
}

async function* follow(
  one: Known | undefined,
  afterRevision: number,
  signal: AbortSignal,
): AsyncGenerator<OperationView> {
  if (one === undefined) return;
  // The end is always shown, also to who was told of it, or has a number of an earlier run of the agent that happens to be the same.
  let seen = FINAL_STATES.has(one.view.state) ? 0 : afterRevision;
  let wake: () => void = () => undefined;
  const ring = () => wake();
  one.wake.add(ring);
  signal.addEventListener('abort', ring, { once: true });
  try {
    while (!signal.aborted) {
      const { view } = one;
      if (view.revision > seen) {
        seen = view.revision;
        yield view;
      }
      if (FINAL_STATES.has(view.state)) return;
      if (one.view.revision > seen || signal.aborted) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    one.wake.delete(ring);
    signal.removeEventListener('abort', ring);
  }
}
