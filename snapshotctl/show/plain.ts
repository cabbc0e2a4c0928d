import type { AgentClient } from '../../contract/agent-api/client.ts';
import type { StatusMessage, Timestamp } from '../../contract/agent-api/messages.ts';

/** Names of enums begin with the enum's. */
const ENUM =
  /^(?:OPERATION_KIND|OPERATION_STATE|OPERATION_ORIGIN|CANCEL_EFFECT|ACCESS_MODE|PROCESS_STATE|MEMORY_KIND)_([A-Z_]+)$/;
/** Fields whose values are names of enums: a pod may be called anything. */
const ENUM_FIELDS = new Set(['kind', 'state', 'origin', 'cancel_effect', 'access_mode']);
const STATUS_FIELDS = new Set(['problem', 'error']);

/**
 * A message of the agent as `-o json` and `-o yaml` show it, for all commands alike: names in camel case, times as in ISO 8601, enums as
 * `running`, errors as reason, message and mismatches. What is not set is left out. docs/snapshotctl.md promises it.
 */
export function plain(message: object, { errorOf }: Pick<AgentClient, 'errorOf'>): Record<string, unknown> {
  const entries = Object.entries(message).flatMap(([field, value]): [string, unknown][] => {
    if (value === null || value === undefined || field === 'result') return [];
    return [[camelCase(field), plainField(field, value, { errorOf })]];
  });
  // What it is comes before the lists of what it has.
  const isList = ([, value]: [string, unknown]) => Array.isArray(value);
  return Object.fromEntries([...entries.filter((entry) => !isList(entry)), ...entries.filter(isList)]);
}

function plainField(field: string, value: unknown, client: Pick<AgentClient, 'errorOf'>): unknown {
  if (typeof value === 'string') return ENUM_FIELDS.has(field) ? enumText(value) : value;
  if (Array.isArray(value)) return value.map((one) => plainField('', one, client));
  if (typeof value !== 'object' || value === null) return value;
  if (STATUS_FIELDS.has(field)) return plainError(value as StatusMessage, client);
  if (field.endsWith('_time')) return isoTime(value as Timestamp);
  return plain(value, client);
}

/** `OPERATION_STATE_RUNNING` is `running`, `CANCEL_EFFECT_TOO_LATE` is `too-late`. */
export function enumText(name: string | number): string {
  const [, own = String(name)] = ENUM.exec(String(name)) ?? [];
  return own.toLowerCase().replaceAll('_', '-');
}

export function isoTime(time: Timestamp): string {
  return new Date(time.seconds * 1000 + time.nanos / 1e6).toISOString();
}

function plainError(status: StatusMessage, { errorOf }: Pick<AgentClient, 'errorOf'>) {
  const { reason, status: code, message, advice, mismatches, retryAfterSeconds } = errorOf(status);
  return {
    reason,
    status: code,
    message,
    advice,
    mismatches,
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
  };
}

function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
