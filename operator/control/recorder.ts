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

/**
 * Events about objects of a kind. The same words about the same object have one name: a reconcile that comes this way again, or an operator
 * that was started again, says nothing new.
 */
export function newRecorder(
  events: Pick<EventWriter, 'write'>,
  { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
): Recorder {
  const write = (type: EventNote['type']) => (object: Recorded, reason: string, message: string) => {
    const { name, namespace, uid } = object.metadata;
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
