import type { CheckpointWanted, Decision, RestoreWanted } from './decide.ts';
import { WHOLE_POD } from './memory.ts';

/** A decision that there is something to do. */
export type Action = Exclude<Decision, { kind: 'malformed' | 'nothing' }>;
/** One that leads to an operation. */
export type Work = CheckpointWanted | RestoreWanted;

export function isAction(decision: Decision): decision is Action {
  return decision.kind !== 'malformed' && decision.kind !== 'nothing';
}

export function isWork(action: Action): action is Work {
  return action.kind === 'checkpoint' || action.kind === 'restore';
}

/** Whom an action is for: a container, or the pod as a whole. */
export function subjectOf(action: Action): { readonly name: string; readonly id: string } {
  return action.kind === 'worker-failed' ? { name: WHOLE_POD, id: WHOLE_POD } : action.container;
}

/** What is to be done now for one container of a pod, or for the pod as a whole. */
export function actionFor(decisions: readonly Decision[], name: string): Action | undefined {
  return decisions.filter(isAction).find((one) => subjectOf(one).name === name);
}
