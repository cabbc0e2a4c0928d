import type { Logger } from 'pino';
import type { KubeClient } from '../kube/client.ts';
import type { EventWriter } from '../kube/events.ts';
import type { Metrics } from './api/metrics.ts';
import type { Caches } from './caches.ts';
import type { Config } from './config.ts';
import { watchLeases } from './control/lease-watch.ts';
import { type ArtifactDeleter, newDeletionController } from './deletion/controller.ts';

/** Something that works while this process leads. */
interface Work {
  run(signal: AbortSignal): Promise<void>;
}

export interface ControllerParts {
  readonly config: Config;
  readonly client: KubeClient;
  readonly caches: Caches;
  readonly agents: ArtifactDeleter;
  /** The image of the operator itself, where it is known. */
  readonly ownImage: string;
  readonly events: EventWriter;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** What the leader does: each of them until the signal aborts. */
export function newControllers(parts: ControllerParts): readonly Work[] {
  const { config, client, caches, agents, ownImage, events, log, metrics } = parts;
  const { cleanupImage, cleanupUser, storage } = config.checkpoint;
  const { parallel } = config.limits;
  const deletion = newDeletionController({
    config: { ...storage.pvc, cleanupImage: cleanupImage || ownImage, cleanupUser, parallel },
    ...{ client, agents, events, log, checkpoints: caches.checkpoints },
    isLeased: watchLeases(client),
    metrics: { ...metrics.control, ...metrics.deletion },
  });
  return [deletion];
}
