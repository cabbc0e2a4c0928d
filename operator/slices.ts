import { namespaceStorage } from '../contract/agent-storage.ts';
import { ShapingError } from '../contract/shaping-error.ts';
import type { Caches } from './caches.ts';
import type { CheckpointConfig } from './checkpoint/controller.ts';
import type { Config } from './config.ts';
import type { StorageAnswer } from './webhook/admit.ts';

/*
 * What each room is told of the configuration.
 */

/** Where artifacts are: on the claim of the pods, or, where none is named, on that of the agents. */
export function storageConfig({ checkpoint: { storage } }: Config): CheckpointConfig['storage'] {
  return { pvc: storage.pvc.pvcName === '' ? undefined : storage.pvc };
}

/** The profile that pods run under; undefined leaves what they say. */
export function seccompProfile({ checkpoint: { seccomp } }: Config): string | undefined {
  return seccomp.disabled ? undefined : seccomp.profile;
}

/** Where the artifacts of a namespace are, from what is known already: a pod waits for the answer. */
export function knownStorage(config: Config, sets: Pick<Caches['agentSets'], 'indexed'>) {
  const { pvc } = storageConfig(config);
  return (namespace: string): StorageAnswer => {
    if (pvc !== undefined) return { source: { accessMode: 'podMount', claim: pvc.pvcName, basePath: pvc.basePath } };
    try {
      const there = sets.indexed('namespace', namespace).map(({ value }) => value);
      return { source: namespaceStorage(there, namespace) };
    } catch (error) {
      if (error instanceof ShapingError) return { problem: error.message };
      throw error;
    }
  };
}
