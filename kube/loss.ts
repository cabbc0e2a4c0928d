import type { KubeError, LocalReason } from './error.ts';

/** Why a watch, or the list before it, came to an end before its time. Few words: they are the values of a metric's label. */
export type LossReason =
  /** What is to be resumed is too old for the server. */
  | 'gone'
  /** The connection broke. */
  | 'reset'
  /** The server was silent for too long. */
  | 'timeout'
  | 'unauthorized'
  | 'forbidden'
  | 'throttled'
  /** Status 5xx. */
  | 'server-error'
  /** Another status 4xx. */
  | 'refused'
  | 'unreachable'
  | 'malformed'
  /** More than is read at once: a page of a list, or one event. */
  | 'too-large'
  /** Our own credentials cannot be read. */
  | 'credentials'
  /** The server ended the stream cleanly, but long before it should have. */
  | 'ended';

/** A server that fails this often in a row may fail because of what is resumed (a bad resourceVersion is a 500, not a 400). */
const FAILURES_BEFORE_LIST = 5;

const LOCAL: Readonly<Record<LocalReason, LossReason>> = {
  Credentials: 'credentials',
  Unreachable: 'unreachable',
  Reset: 'reset',
  TimedOut: 'timeout',
  Silent: 'timeout',
  Malformed: 'malformed',
  TooLarge: 'too-large',
  Ended: 'ended',
};

export function lossReason({ status, reason }: KubeError): LossReason {
  if (status === 410 || reason === 'Expired' || reason === 'Gone') return 'gone';
  if (status === 401) return 'unauthorized';
  if (status === 403) return 'forbidden';
  if (status === 429) return 'throttled';
  if (status >= 500) return 'server-error';
  if (status >= 400) return 'refused';
  return isLocal(reason) ? LOCAL[reason] : 'malformed';
}

/**
 * Whether the state must be listed anew. After a broken connection the watch resumes where it was; after anything that puts in doubt
 * what it is resumed from, or that what came was understood, only a list is sure to leave no event out.
 */
export function isListNeeded(reason: LossReason, failures: number): boolean {
  if (['gone', 'malformed', 'too-large', 'refused'].includes(reason)) return true;
  return reason === 'server-error' && failures >= FAILURES_BEFORE_LIST;
}

function isLocal(reason: string): reason is LocalReason {
  return Object.hasOwn(LOCAL, reason);
}
