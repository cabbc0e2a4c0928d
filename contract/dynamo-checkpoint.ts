import { z } from 'zod';
import { condition, type ObjectRead, objectMeta, readObject } from './object-meta.ts';

/** A pod template. The API server knows what else may be in it. */
export const podTemplate = z.looseObject({
  metadata: z
    .looseObject({
      labels: z.record(z.string(), z.string()).optional(),
      annotations: z.record(z.string(), z.string()).optional(),
    })
    .optional(),
  spec: z.looseObject({
    containers: z.array(z.looseObject({ name: z.string(), image: z.string().optional() })).min(1),
  }),
});

/** The tmpfs at /dev/shm. `size` is a quantity of Kubernetes. */
export const sharedMemory = z.looseObject({
  disabled: z.boolean().optional(),
  size: z.union([z.int(), z.string()]).optional(),
});

const container = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'is no name of a container');

const identity = z.looseObject({
  model: z.string().min(1),
  backendFramework: z.enum(['vllm', 'sglang', 'trtllm']),
  dynamoVersion: z.string().optional(),
  tensorParallelSize: z.int().min(1).default(1),
  pipelineParallelSize: z.int().min(1).default(1),
  dtype: z.string().optional(),
  maxModelLen: z.int().min(1).optional(),
  extraParameters: z.record(z.string(), z.string()).optional(),
});

const job = z.looseObject({
  podTemplateSpec: podTemplate,
  targetContainerName: container.default('main'),
  sharedMemory: sharedMemory.extend({ size: sharedMemory.shape.size.default('8Gi') }).prefault({}),
  activeDeadlineSeconds: z.int().min(1).default(3600),
});

const phase = z.enum(['Pending', 'Creating', 'Ready', 'Failed']);

const status = z.looseObject({
  // Somebody may have written an empty one.
  phase: z.union([phase, z.literal('')]).optional(),
  checkpointID: z.string().optional(),
  identityHash: z.string().optional(),
  jobName: z.string().optional(),
  createdAt: z.string().optional(),
  message: z.string().optional(),
  conditions: z.array(condition).optional(),
});

const dynamoCheckpoint = z.looseObject({
  metadata: objectMeta,
  spec: z.looseObject({
    identity,
    job,
    gpuMemoryService: z.looseObject({ enabled: z.boolean().optional() }).optional(),
  }),
  status: status.optional(),
});

/** A DynamoCheckpoint with its defaults. What this version does not know of it is kept. */
export type DynamoCheckpoint = z.infer<typeof dynamoCheckpoint>;

/** How the API server names the kind, and its path. */
export const DYNAMO_CHECKPOINT = {
  apiVersion: 'nvidia.com/v1alpha1',
  kind: 'DynamoCheckpoint',
  group: 'nvidia.com',
  version: 'v1alpha1',
  plural: 'dynamocheckpoints',
} as const;

/** Reads a DynamoCheckpoint, whichever version of its definition is installed. */
export function readDynamoCheckpoint(object: unknown): ObjectRead<DynamoCheckpoint> {
  return readObject(dynamoCheckpoint, object);
}
