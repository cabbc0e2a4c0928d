import { refusal, type Status } from './answer.ts';
import { KubeError } from './error.ts';

export type ChangeType = 'ADDED' | 'MODIFIED' | 'DELETED';

export type WatchEvent =
  /** `resourceVersion`: where a watch goes on after this event. */
  | { readonly type: ChangeType; readonly object: unknown; readonly resourceVersion: string }
  /** Nothing changed up to there. */
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string }
  /** The server ends the watch. Recorded for what is too old: status 200, then this with 410. */
  | { readonly type: 'ERROR'; readonly error: KubeError };

/** Reads a line of a watch. Throws KubeError Malformed for what is no event of a kind that we know: it may be a change we would lose. */
export function parseWatchEvent(path: string, line: string): WatchEvent {
  const { type, object } = parseLine(path, line);
  if (type === 'ERROR') return { type, error: refusal(`watch of ${path}`, (object ?? {}) as Status) };
  if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED' && type !== 'BOOKMARK')
    throw malformed(path, `an event of type ${JSON.stringify(type)?.slice(0, 50)}`);
  const resourceVersion = resourceVersionOf(object);
  if (resourceVersion === undefined) throw malformed(path, `a ${type} event without a resourceVersion`);
  return type === 'BOOKMARK' ? { type, resourceVersion } : { type, object, resourceVersion };
}

/** Undefined where the object, or the list, has none. */
export function resourceVersionOf(object: unknown): string | undefined {
  const { metadata } = (object ?? {}) as { readonly metadata?: { readonly resourceVersion?: unknown } | null };
  const version = metadata?.resourceVersion;
  return typeof version === 'string' && version !== '' ? version : undefined;
}

function parseLine(path: string, line: string): { readonly type?: unknown; readonly object?: unknown } {
  try {
    return (JSON.parse(line) as object | null) ?? {};
  } catch (cause) {
    throw malformed(path, 'a line that is not JSON', cause);
  }
}

function malformed(path: string, what: string, cause?: unknown): KubeError {
  return new KubeError(`watch of ${path}: ${what}`, { reason: 'Malformed', cause });
}
