import { z } from 'zod';
import { ERRORS, type ErrorCode } from '../errors.ts';
import type { Outcome } from './context.ts';
import type { JournalEntry } from './journal.ts';
import { isOutcome } from './journal-file.ts';
import type { OperationFailure, OperationState, OperationView } from './operation.ts';

/** More reasons or figures than this are not written down. */
const MAX_REASONS = 32;
const MAX_TEXT = 4_096;

/** What the journal keeps of an operation besides its transitions, so that a later run of the agent can still tell of it. */
const noteSchema = z.object({
  requestId: z.string().default(''),
  fingerprint: z.string().default(''),
  caller: z.string().default(''),
  origin: z.enum(['annotation', 'grpc']).default('annotation'),
  traceId: z.string().default(''),
  containerId: z.string().default(''),
  createdAtMs: z.number().default(0),
  startedAtMs: z.number().optional(),
});
const endSchema = z.object({
  result: z.string().default('failed'),
  code: z.string().default(''),
  message: z.string().default(''),
  step: z.string().default(''),
  reasons: z
    .array(
      z.object({ code: z.string(), message: z.string(), found: z.string(), wanted: z.string(), advice: z.string() }),
    )
    .default([]),
  timings: z.array(z.object({ step: z.string(), seconds: z.number() })).default([]),
  figures: z.record(z.string(), z.number()).default({}),
});

export type OperationNote = z.infer<typeof noteSchema>;

/** Who asked for the operation of an entry. */
export function originOf(entry: JournalEntry): OperationView['origin'] {
  return noteSchema.safeParse(entry.details['operation'] ?? {}).data?.origin ?? 'annotation';
}

/** Details for a transition that let a later run tell of the operation. */
export function noteDetails(view: OperationView, fingerprint: string): { operation: OperationNote } {
  const { requestId, caller, origin, traceId, createdAtMs, startedAtMs, target } = view;
  const note = { requestId, fingerprint, caller, origin, traceId, createdAtMs, containerId: target.containerId };
  return { operation: { ...note, ...(startedAtMs !== undefined && { startedAtMs }) } };
}

/** Details of the last transition: how it ended, within bounds. */
export function endDetails(outcome: Outcome): Record<string, unknown> {
  const { failure, failedStep = '', timings, figures, result } = outcome;
  return {
    result,
    code: failure?.code ?? '',
    message: failure?.message.slice(0, MAX_TEXT) ?? '',
    step: failedStep,
    reasons: failure?.reasons.slice(0, MAX_REASONS) ?? [],
    timings: timings.map(({ step, seconds }) => ({ step, seconds: Number(seconds.toFixed(6)) })),
    figures,
  };
}

/** The operation that an entry of the journal tells of. One that has not ended there counts as queued: whoever recovers it says more. */
export function viewOfEntry(entry: JournalEntry): { view: OperationView; fingerprint: string } {
  const note = noteSchema.parse(entry.details['operation'] ?? {});
  const end = endSchema.safeParse(entry.details).data;
  const isOver = isOutcome(entry) && end !== undefined;
  const atMs = Date.parse(entry.at);
  const view: OperationView = {
    id: entry.operationId,
    requestId: note.requestId,
    caller: note.caller,
    kind: entry.kind,
    origin: note.origin,
    target: {
      namespace: entry.pod.namespace,
      pod: entry.pod.name,
      podUid: entry.pod.uid,
      container: entry.container,
      containerId: entry.containerKey.containerId,
    },
    checkpointId: entry.checkpointId,
    version: entry.version,
    traceId: note.traceId,
    state: isOver ? (entry.state as OperationState) : 'queued',
    waitingFor: '',
    step: isOver ? end.step : '',
    progress: { bytes: 0, totalBytes: 0, bytesPerSecond: 0 },
    cancelEffect: isOver ? 'too-late' : 'undone',
    createdAtMs: note.createdAtMs || atMs,
    startedAtMs: note.startedAtMs,
    endedAtMs: isOver ? atMs : undefined,
    timings: isOver ? end.timings : [],
    figures: isOver ? end.figures : {},
    adopted: isOver && end.result === 'adopted',
    failure: isOver && entry.state !== 'succeeded' ? failureOf(end) : undefined,
    revision: 1,
  };
  return { view, fingerprint: note.fingerprint };
}

function failureOf(end: z.infer<typeof endSchema>): OperationFailure {
  const code: ErrorCode = end.code in ERRORS ? (end.code as ErrorCode) : 'INTERNAL';
  const { advice, retryable } = ERRORS[code];
  return { code, message: end.message || advice, advice, retryable, reasons: end.reasons };
}
