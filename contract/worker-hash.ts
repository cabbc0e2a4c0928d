import { createHash } from 'node:crypto';
import { LABELS } from './keys.ts';

/** A pod template as somebody wrote it: what is in it is theirs. */
export interface HashedTemplate {
  readonly metadata?: { readonly labels?: Readonly<Record<string, string>> | undefined } | undefined;
  readonly spec?: unknown;
}

const DIGITS = 16;
/** Given to a single pod, not to its kind. */
const ASSIGNED = new Set(['nodeName']);

/**
 * Which generation of workers a pod template stands for: the value of its label `nvidia.com/dynamo-worker-hash` where it has one, else 16
 * hex digits of the SHA-256 of the template's `spec` as canonical JSON: no blanks, keys of maps in the order of their UTF-16 code units,
 * lists as they are, what is null left out.
 *
 * The whole spec enters, as it was written, apart from `nodeName`; resources and placement too, as they decide on which GPUs the checkpoint
 * is made. `metadata` does not enter: labels and annotations (`kubectl rollout restart` writes one) change no process. Neither does what
 * the API server fills in, or shaping adds, if the template is hashed before. That a tag means another image now is not seen here: the
 * agent compares images at a restore.
 */
export function workerHash(template: HashedTemplate): string {
  const label = template.metadata?.labels?.[LABELS.workerHash];
  if (label) return label;
  const spec = Object.entries(template.spec ?? {}).filter(([key]) => !ASSIGNED.has(key));
  return canonicalHash(Object.fromEntries(spec));
}

/** 16 hex digits that are the same for the same JSON, in whatever order its maps were written. */
export function canonicalHash(value: unknown): string {
  return createHash('sha256').update(canonical(value)).digest('hex').slice(0, DIGITS);
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((one) => canonical(one ?? null)).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined && member !== null)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`);
  return `{${members.join(',')}}`;
}
