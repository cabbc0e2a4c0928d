import type { Condition } from '../../contract/object-meta.ts';

export interface ConditionWord {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  /** One word in CamelCase. */
  readonly reason: string;
  /** For people. */
  readonly message: string;
  /** Which generation of the object it is about. */
  readonly observedGeneration?: number | undefined;
}

/** The API server takes no longer message. */
const MAX_MESSAGE = 32_768;

/**
 * The conditions with one of them said anew. Its time is that of the last change of its status. Where it says nothing new, the result is
 * the same list: a status that is made of it is not written again.
 */
export function withCondition(
  conditions: readonly Condition[] = [],
  { type, status, reason, observedGeneration, ...word }: ConditionWord,
  now: Date,
): readonly Condition[] {
  const before = conditions.find((one) => one.type === type);
  const message = word.message.slice(0, MAX_MESSAGE);
  const isSaid = before?.reason === reason && before.message === message;
  const isSame = isSaid && before.status === status && before.observedGeneration === observedGeneration;
  if (isSame) return conditions;
  const isStill = before?.status === status && before.lastTransitionTime !== '';
  const lastTransitionTime = isStill ? before.lastTransitionTime : now.toISOString().replace(/\.\d+Z$/, 'Z');
  const about = observedGeneration === undefined ? {} : { observedGeneration };
  const said: Condition = { type, status, reason, message, lastTransitionTime, ...about };
  return before === undefined ? [...conditions, said] : conditions.map((one) => (one === before ? said : one));
}

/** Whether a condition is True. */
export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditions?.some((one) => one.type === type && one.status === 'True') ?? false;
}
