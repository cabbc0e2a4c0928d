/** When the watch told of what is worked on next, by work key: how long it takes until the work begins. */
export interface PickUps {
  /** An event asks for work on the key at once. Where one did so already, that one counts. */
  told(key: string, atMs: number): void;
  /** The work on the key begins: says after how long. */
  begun(key: string): void;
  /** Nothing is to be done for the key any more. */
  drop(key: string): void;
  forgetPod(podUid: string): void;
}

export function newPickUps(onPickedUp: (seconds: number) => void): PickUps {
  const toldAtMs = new Map<string, number>();
  return {
    told: (key, atMs) => {
      if (!toldAtMs.has(key)) toldAtMs.set(key, atMs);
    },
    begun: (key) => {
      const atMs = toldAtMs.get(key);
      if (atMs === undefined) return;
      toldAtMs.delete(key);
      onPickedUp((performance.now() - atMs) / 1000);
    },
    drop: (key) => {
      toldAtMs.delete(key);
    },
    forgetPod: (podUid) => {
      for (const key of toldAtMs.keys()) if (key.startsWith(`${podUid}/`)) toldAtMs.delete(key);
    },
  };
}
