import type { EventNote } from '../../kube/event-object.ts';
import type { EventWriter } from '../../kube/events.ts';

/** What an Event can be about. */
interface Recorded {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly uid: string };
}

/** Says beside objects of one kind what became of them. It returns at once and never throws. */
export interface Recorder {
  normal(object: Recorded, reason: string, message: string): void;
  warning(object: Recorded, reason: string, message: string): void;
}

/** Less than Events are kept. What waits for long says so at each look, and would take the place of what others have to say. */
const AGAIN_MS = 600_000;
const MAX_SAID = 5_000;

/**
 * Events about objects of a kind. The same words about the same object have one name: a reconcile that comes this way again, or an operator
 * that was started again, says nothing new.
 */
export function newRecorder(
  events: Pick<EventWriter, 'write'>,
  { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
  clock: () => number = () => performance.now(),
): Recorder {
  const isNews = newMemory(clock);
  const write = (type: EventNote['type']) => (object: Recorded, reason: string, message: string) => {
    const { name, namespace, uid } = object.metadata;
    if (!isNews(`${uid}\n${type}\n${reason}\n${message}`)) return;
    events.write({
      about: { apiVersion, kind, name, namespace, uid },
      type,
      reason,
      message,
      once: `${reason}\n${message}`,
    });
  };
  return { normal: write('Normal'), warning: write('Warning') };
}

/** Whether something was not said for a while; the oldest is forgotten first. */
function newMemory(clock: () => number): (text: string) => boolean {
  const saidAt = new Map<string, number>();
  return (text) => {
    const now = clock();
    if (now - (saidAt.get(text) ?? Number.NEGATIVE_INFINITY) < AGAIN_MS) return false;
    saidAt.delete(text);
    saidAt.set(text, now);
    const [oldest] = saidAt.keys();
    if (saidAt.size > MAX_SAID && oldest !== undefined) saidAt.delete(oldest);
    return true;
  };
}
