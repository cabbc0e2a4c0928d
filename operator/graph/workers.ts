import { ShapingError } from '../../contract/shaping-error.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
import type { Component } from './component.ts';
import { type Facts, type ServiceDecision, withObstacle } from './decide.ts';
import type { Deployment } from './deployment.ts';
import { deploymentName, type Shaping, type Wish, wishOf } from './rollout.ts';
import { type Applied, applyWish, type RolloutParts } from './rollout-writer.ts';

/** Where the artifacts of a namespace are, or why there is no place now. */
export type StorageFound =
  | { readonly result: 'ready'; readonly storage: StorageSource }
  | { readonly result: 'not-ready'; readonly problem: string };

export interface WorkerParts extends RolloutParts {
  readonly shaping: Shaping;
  readonly storage: () => Promise<StorageFound>;
}

/** What came of the Deployment of one service. `decision`: as it is now, which is worse than it was where something stood in the way. */
export interface RolledOut {
  readonly decision: ServiceDecision;
  readonly applied: Applied;
}

/** Brings the Deployment of a service to where its decision wants it. Throws KubeError. */
export async function rollOut(
  parts: WorkerParts,
  {
    facts,
    decision,
    current,
  }: { readonly facts: Facts; readonly decision: ServiceDecision; readonly current: Deployment | undefined },
  signal: AbortSignal,
): Promise<RolledOut> {
  const { component } = decision;
  const prepared = await prepare(parts, facts, decision);
  if ('problem' in prepared)
    return {
      decision,
      applied: { result: 'refused', problem: `Deployment ${deploymentName(component)}: ${prepared.problem}` },
    };
  const applied = await applyWish(parts, { component, wish: prepared.wish, current }, signal);
  return { decision: prepared.decision, applied };
}

type Prepared = { readonly decision: ServiceDecision; readonly wish: Wish } | { readonly problem: string };

/** A pod that cannot be shaped for a restore is not a reason to change what runs. */
async function prepare(parts: WorkerParts, facts: Facts, decision: ServiceDecision): Promise<Prepared> {
  const { component, start } = decision;
  const { shaping } = parts;
  if (start.kind !== 'restored') return wished(component, decision, shaping);
  const found = await parts.storage();
  if (found.result === 'not-ready') {
    const obstacle = {
      reason: 'StorageNotReady',
      message: `service ${component.name} cannot be restored: ${found.problem}`,
    };
    return wished(component, withObstacle(facts, decision, { ...obstacle, isFinal: false }), shaping);
  }
  const shaped = wished(component, decision, shaping, found.storage);
  if (!('problem' in shaped)) return shaped;
  const obstacle = {
    reason: 'PodNotRestorable',
    message: `service ${component.name} cannot be restored: ${shaped.problem}`,
  };
  return wished(component, withObstacle(facts, decision, { ...obstacle, isFinal: true }), shaping);
}

function wished(component: Component, decision: ServiceDecision, shaping: Shaping, storage?: StorageSource): Prepared {
  try {
    return { decision, wish: wishOf(component, decision.start, shaping, storage) };
  } catch (error) {
    if (error instanceof ShapingError) return { problem: error.message };
    throw error;
  }
}
