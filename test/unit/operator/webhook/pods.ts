import { type DynamoCheckpoint, readDynamoCheckpoint } from '../../../../contract/dynamo-checkpoint.ts';
import type { ObjectRead } from '../../../../contract/object-meta.ts';
import type { Pod } from '../../../../kube/objects.ts';
import type { AdmissionRequest } from '../../../../operator/webhook/admission-review.ts';
import type { AdmissionOptions, Known } from '../../../../operator/webhook/admit.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { AGENT_MOUNT, PROFILE } from '../../contract/pods.ts';
import { altered, CHECKPOINT, served } from '../../crds/samples.ts';

export const CANDIDATE = {
  'nvidia.com/dynamo-checkpoint-restore-candidate': 'true',
  'nvidia.com/dynamo-checkpoint-name': 'qwen3-06b-bf16',
};
export const OWNER = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'worker-1', uid: 'rs', controller: true };

/** A worker's pod as the API server sends it. */
export function candidatePod(changes: Readonly<Record<string, unknown>> = {}): Json {
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...{ generateName: 'worker-', namespace: 'team', creationTimestamp: null },
      ...{ labels: { app: 'worker' }, annotations: CANDIDATE, ownerReferences: [OWNER] },
    },
    spec: {
      containers: [
        { name: 'sidecar', image: 'sidecar:1' },
        { name: 'main', image: 'worker:1', command: ['serve'], args: ['--fast'], ports: [{ containerPort: 8000 }] },
      ],
    },
  } as Json;
  return Object.entries(changes).reduce((made, [path, value]) => altered(made, path, value), pod);
}

/** A question about it. */
export function question(object: unknown = candidatePod(), more: Partial<AdmissionRequest> = {}): AdmissionRequest {
  return {
    ...{ uid: 'u-1', resource: { group: '', version: 'v1', resource: 'pods' }, operation: 'CREATE' },
    ...{ namespace: 'team', object, dryRun: false, ...more },
  };
}

/** The checkpoint that it is a candidate for, ready. */
export function readyCheckpoint(changes: Readonly<Record<string, unknown>> = {}): ObjectRead<DynamoCheckpoint> {
  const ready: Json = { ...served(CHECKPOINT), status: { phase: 'Ready', checkpointID: 'ckpt' } };
  return readDynamoCheckpoint(
    Object.entries(changes).reduce((made, [path, value]) => altered(made, path, value), ready),
  );
}

export const OPTIONS: AdmissionOptions = {
  enabled: true,
  namespaces: [],
  seccompProfile: PROFILE,
  placeholder: 'standby',
};

/** What the caches have. */
export function knowing(more: Partial<Known> & { readonly read?: ObjectRead<DynamoCheckpoint> } = {}): Known {
  const { read = readyCheckpoint(), ...known } = more;
  return {
    isSynced: true,
    checkpoint: (key) => (key === 'team/qwen3-06b-bf16' ? read : undefined),
    storage: () => ({ source: AGENT_MOUNT }),
    ...known,
  };
}

/** As shaping takes it. */
export type PlainPod = Pod & { readonly spec: NonNullable<Pod['spec']> };
