import { z } from 'zod';
import { podTemplate, sharedMemory } from './dynamo-checkpoint.ts';
import { condition, type ObjectRead, objectMeta, readObject } from './object-meta.ts';

const texts = z.record(z.string(), z.string());
const switchable = z.looseObject({ enabled: z.boolean().optional() });

/** What an automatic checkpoint's Job has other than the worker; what is absent is as of a DynamoCheckpoint. */
const jobOverrides = z.looseObject({
  activeDeadlineSeconds: z.int().min(1).optional(),
  targetContainerName: z.string().min(1).optional(),
  sharedMemory: sharedMemory.optional(),
  podTemplateSpec: podTemplate.partial().optional(),
});

const serviceCheckpoint = z.looseObject({
  enabled: z.boolean().default(false),
  mode: z.enum(['Auto', 'Manual']).default('Auto'),
  checkpointRef: z.string().optional(),
  startupPolicy: z.enum(['Immediate', 'WaitForCheckpoint']).default('Immediate'),
  // Ignored for automatic checkpoints: read as it is.
  identity: z.unknown().optional(),
  job: jobOverrides.optional(),
});

const service = z.looseObject({
  componentType: z.string().optional(),
  subComponentType: z.string().optional(),
  replicas: z.int().min(0).optional(),
  labels: texts.optional(),
  annotations: texts.optional(),
  envs: z.array(z.looseObject({ name: z.string() })).optional(),
  envFromSecret: z.string().optional(),
  resources: z.looseObject({}).optional(),
  extraPodSpec: z
    .looseObject({
      mainContainer: z
        .looseObject({
          image: z.string().optional(),
          command: z.array(z.string()).optional(),
          args: z.array(z.string()).optional(),
        })
        .optional(),
    })
    .optional(),
  gpuMemoryService: switchable.optional(),
  failover: switchable.optional(),
  checkpoint: serviceCheckpoint.optional(),
});

const checkpointOfService = z.looseObject({
  checkpointName: z.string().optional(),
  checkpointID: z.string().optional(),
  identityHash: z.string().optional(),
  ready: z.boolean().optional(),
});

const dynamoGraphDeployment = z.looseObject({
  metadata: objectMeta,
  spec: z.looseObject({
    backendFramework: z.enum(['vllm', 'sglang', 'trtllm']).optional(),
    services: z.record(z.string(), service).default({}),
  }),
  status: z
    .looseObject({
      state: z.string().optional(),
      checkpoints: z.record(z.string(), checkpointOfService).optional(),
      conditions: z.array(condition).optional(),
    })
    .optional(),
});

/** A DynamoGraphDeployment with the defaults of its checkpoints. What this version does not know of it is kept. */
export type DynamoGraphDeployment = z.infer<typeof dynamoGraphDeployment>;

/** How the API server names the kind, and its path. */
export const DYNAMO_GRAPH_DEPLOYMENT = {
  apiVersion: 'nvidia.com/v1alpha1',
  kind: 'DynamoGraphDeployment',
  group: 'nvidia.com',
  version: 'v1alpha1',
  plural: 'dynamographdeployments',
} as const;

/** Reads a DynamoGraphDeployment, whichever version of its definition is installed. */
export function readDynamoGraphDeployment(object: unknown): ObjectRead<DynamoGraphDeployment> {
  return readObject(dynamoGraphDeployment, object);
}
