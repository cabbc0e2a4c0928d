import { idProblem } from './ids.ts';
import { legalName } from './operator-names.ts';

/** A Job puts its name as a label onto its pods, so it must be no longer than a label's value. */
const MAX_JOB_NAME = 63;
const MAX_OBJECT_NAME = 253;
const DNS_NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_VALUE = /^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/;

/** Name of the Job that checkpoints a pod of a manifest. */
export function podCheckpointJobName(pod: string): string {
  return `${pod}-checkpoint`;
}

/** Name of the Job that checkpoints under this id and version: as the original has it, where that is a legal name; else one that stands for it. */
export function idCheckpointJobName(checkpointId: string, version: string): string {
  return legalName(`checkpoint-job-${checkpointId}-${version}`);
}

/** Says why this cannot be the name of a Job, or undefined. */
export function jobNameProblem(name: string): string | undefined {
  return nameProblem(name, MAX_JOB_NAME);
}

/** Says why this cannot be the name of a Pod, or of most other objects, or undefined. */
export function objectNameProblem(name: string): string | undefined {
  return nameProblem(name, MAX_OBJECT_NAME);
}

function nameProblem(name: string, most: number): string | undefined {
  if (name.length > most) return `has ${name.length} characters, at most ${most} are allowed`;
  if (!/^[-a-z0-9.]*$/.test(name)) return 'has characters other than a-z 0-9 - .';
  if (!DNS_NAME.test(name)) return 'has a part between its dots that does not begin and end with a letter or digit';
  return undefined;
}

/** The id of a checkpoint for which nobody gave one. The time is in nanoseconds since the epoch. */
export function manualCheckpointId(unixNanoseconds: bigint): string {
  return `manual-snapshot-${unixNanoseconds}`;
}

/** Says why this is no checkpoint id that a pod can carry as its label, or undefined. */
export function checkpointIdProblem(id: string): string | undefined {
  const problem = idProblem(id);
  if (problem !== undefined) return problem;
  return LABEL_VALUE.test(id) ? undefined : 'must begin and end with a letter or digit, as the value of a label does';
}

/** Where an artifact is on its volume. */
export function checkpointLocation(basePath: string, checkpointId: string, version: string): string {
  return `${basePath.replace(/\/+$/, '')}/${checkpointId}/versions/${version}`;
}
