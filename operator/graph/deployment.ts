import { z } from 'zod';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import { type ObjectRead, objectMeta, readObject } from '../../contract/object-meta.ts';
import { MANAGER } from './automatic.ts';
import type { Started } from './start.ts';

const deployment = z.looseObject({
  metadata: objectMeta,
  spec: z.looseObject({ replicas: z.int().default(1), template: z.looseObject({}) }),
  status: z
    .looseObject({
      observedGeneration: z.number().optional(),
      replicas: z.int().optional(),
      updatedReplicas: z.int().optional(),
      availableReplicas: z.int().optional(),
    })
    .optional(),
});

/** A Deployment of the plain rollout, or of somebody else. */
export type Deployment = z.infer<typeof deployment>;

export const DEPLOYMENTS = { group: 'apps', version: 'v1', plural: 'deployments' } as const;

export function readDeployment(object: unknown): ObjectRead<Deployment> {
  return readObject(deployment, object);
}

/** Whether this operator made it for the DynamoGraphDeployment with this uid. */
export function isOfRollout({ labels, ownerReferences = [] }: Deployment['metadata'], uid: string): boolean {
  return labels?.[LABELS.managedBy] === MANAGER && ownerReferences.some((owner) => owner.uid === uid);
}

/** How the workers of this generation were started; undefined where they were not. */
export function startedOf({ metadata }: Deployment, generation: string): Started | undefined {
  const [of, as] = (metadata.annotations?.[ANNOTATIONS.rolloutStarted] ?? '').split(' ');
  return of === generation && (as === 'cold' || as === 'restored') ? { generation, as } : undefined;
}

export const startedText = ({ generation, as }: Started) => `${generation} ${as}`;

/** Whether all of its pods are of its present template, and serve. */
export function isRolledOut({ metadata, spec, status = {} }: Deployment): boolean {
  const { observedGeneration = 0, replicas = 0, updatedReplicas = 0, availableReplicas = 0 } = status;
  const isSeen = observedGeneration >= (metadata.generation ?? 0);
  return isSeen && [replicas, updatedReplicas, availableReplicas].every((count) => count === spec.replicas);
}
