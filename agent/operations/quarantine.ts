import type { ContainerView, PodView } from '../../contract/pods.ts';

/** Containers with a process that could not be ended: they hold their devices until somebody sees to them. */
export interface Quarantine {
  add(podUid: string, containerId: string): void;
  /** How many of them are still there. */
  readonly size: number;
}

export function newQuarantine(pods: { pod(uid: string): PodView | undefined }): Quarantine {
  const held = new Map<string, string>();
  const isThere = (podUid: string, containerId: string) => {
    const container: ContainerView | undefined = pods.pod(podUid)?.containers.find(({ id }) => id === containerId);
    return container !== undefined && container.state !== 'exited';
  };
  return {
    add: (podUid, containerId) => {
      held.set(containerId, podUid);
    },
    get size() {
      for (const [containerId, podUid] of held) if (!isThere(podUid, containerId)) held.delete(containerId);
      return held.size;
    },
  };
}
