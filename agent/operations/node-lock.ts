import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { LineSession } from '../host/exec.ts';
import type { Native } from '../host/native.ts';

/** Between two looks at a lock that another agent holds. */
const LOOK_MS = 100;

/**
 * Takes the node for this agent. Two agents on one node would sweep each other's staging and restore one container twice, so the second
 * waits until the first has ended: during an update both may be there for a while. Undefined where the signal ended the waiting.
 */
export async function lockNode(
  native: Pick<Native, 'lock'>,
  stateDir: string,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<LineSession | undefined> {
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  const file = join(stateDir, 'agent.lock');
  for (let looks = 0; !signal.aborted; looks += 1) {
    const session = await native.lock(file);
    if (session !== undefined) return session;
    if (looks === 0) log.warn({ file }, 'another agent of this node is still at work');
    await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
  return undefined;
}
