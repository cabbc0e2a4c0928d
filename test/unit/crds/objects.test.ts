import { describe, expect, it } from 'vitest';
import { readDynamoCheckpoint } from '../../../contract/dynamo-checkpoint.ts';
import { readDynamoGraphDeployment } from '../../../contract/dynamo-graph-deployment.ts';
import { customSchema, readDefinitions } from '../../fakes/kube-api/crds.ts';
import type { Json } from '../../fakes/kube-api/resources.ts';
import { AUTO, altered, CHECKPOINT, CHECKPOINT_REF, served } from './samples.ts';

const [checkpoints, deployments] = readDefinitions().map(({ spec }) =>
  customSchema(spec.versions[0]?.schema.openAPIV3Schema ?? {}),
);
const schemaOf = ({ kind }: Json) => {
  const schema = kind === 'DynamoCheckpoint' ? checkpoints : deployments;
  if (schema === undefined) throw new Error('the definition is missing');
  return schema;
};
const readerOf = ({ kind }: Json) => (kind === 'DynamoCheckpoint' ? readDynamoCheckpoint : readDynamoGraphDeployment);
const fieldsOf = (object: Json) =>
  schemaOf(object)
    .causes(schemaOf(object).fill(object))
    .map(({ field }) => field);
const JOB = 'spec.job';
const WORKER = 'spec.services.VllmDecodeWorker';

describe('the examples of the original guide', () => {
  it.each([
    ['a standalone checkpoint', CHECKPOINT],
    ['a deployment with checkpointRef', CHECKPOINT_REF],
    ['a deployment with automatic checkpoints', AUTO],
  ])('are taken: %s', (_, object) => {
    expect(fieldsOf(object)).toEqual([]);
    expect(readerOf(object)(served(object))).toMatchObject({ result: 'read', object });
  });

  it('lose nothing of what they say', () => {
    for (const object of [CHECKPOINT, CHECKPOINT_REF, AUTO])
      expect(schemaOf(object).fill(object)).toMatchObject(object);
  });
});

describe('defaults', () => {
  const least = altered(altered(CHECKPOINT, 'spec.identity', { model: 'm', backendFramework: 'vllm' }), JOB, {
    podTemplateSpec: { spec: { containers: [{ name: 'main' }] } },
  });
  const spec = {
    identity: { model: 'm', backendFramework: 'vllm', tensorParallelSize: 1, pipelineParallelSize: 1 },
    job: {
      podTemplateSpec: { spec: { containers: [{ name: 'main' }] } },
      targetContainerName: 'main',
      sharedMemory: { size: '8Gi' },
      activeDeadlineSeconds: 3600,
    },
  };

  it('of a checkpoint are the same from the server and from our reading of what has none', () => {
    expect(schemaOf(least).fill(least)['spec']).toEqual(spec);
    expect(readDynamoCheckpoint(served(least))).toMatchObject({ result: 'read', object: { spec } });
  });

  it("of a service's checkpoint are the same from both", () => {
    const object = altered(AUTO, `${WORKER}.checkpoint`, {});
    const checkpoint = { enabled: false, mode: 'Auto', startupPolicy: 'Immediate' };
    const wanted = altered(AUTO, `${WORKER}.checkpoint`, checkpoint);
    expect(schemaOf(object).fill(object)).toEqual(wanted);
    expect(readDynamoGraphDeployment(served(object))).toMatchObject({ result: 'read', object: wanted });
  });

  it('take the place of null, and of nothing that was written', () => {
    const object = altered(altered(CHECKPOINT, `${JOB}.targetContainerName`, null), `${JOB}.sharedMemory`, {
      disabled: true,
      size: 1024,
    });
    expect(schemaOf(object).fill(object)).toMatchObject({
      spec: { job: { targetContainerName: 'main', sharedMemory: { disabled: true, size: 1024 } } },
    });
  });
});

describe('what is wrong', () => {
  it.each<[object: Json, path: string, value: unknown, at?: string]>([
    [CHECKPOINT, 'spec', undefined],
    [CHECKPOINT, 'spec.identity', undefined],
    [CHECKPOINT, 'spec.identity.model', undefined],
    [CHECKPOINT, 'spec.identity.model', ''],
    [CHECKPOINT, 'spec.identity.backendFramework', 'tgi'],
    [CHECKPOINT, 'spec.identity.tensorParallelSize', 0],
    [CHECKPOINT, 'spec.identity.pipelineParallelSize', 1.5],
    [CHECKPOINT, 'spec.identity.maxModelLen', '4096'],
    [CHECKPOINT, 'spec.identity.extraParameters', { a: 1 }, 'spec.identity.extraParameters.a'],
    [CHECKPOINT, JOB, undefined],
    [CHECKPOINT, `${JOB}.podTemplateSpec`, undefined],
    [CHECKPOINT, `${JOB}.podTemplateSpec.spec`, undefined],
    [CHECKPOINT, `${JOB}.podTemplateSpec.spec.containers`, []],
    [CHECKPOINT, `${JOB}.podTemplateSpec.spec.containers`, [{}], `${JOB}.podTemplateSpec.spec.containers.0.name`],
    [CHECKPOINT, `${JOB}.targetContainerName`, 'Main_1'],
    [CHECKPOINT, `${JOB}.targetContainerName`, 'a'.repeat(64)],
    [CHECKPOINT, `${JOB}.activeDeadlineSeconds`, 0],
    [CHECKPOINT, `${JOB}.sharedMemory.size`, 1.5],
    [CHECKPOINT, 'status.phase', 'Done'],
    [CHECKPOINT, 'status.conditions', [{ type: 'A', status: 'Yes' }], 'status.conditions.0.status'],
    [AUTO, `${WORKER}.replicas`, -1],
    [AUTO, `${WORKER}.checkpoint.mode`, 'auto'],
    [AUTO, `${WORKER}.checkpoint.enabled`, 'true'],
    [AUTO, `${WORKER}.checkpoint.startupPolicy`, 'Wait'],
    [AUTO, `${WORKER}.checkpoint.job.activeDeadlineSeconds`, 0],
    [AUTO, `${WORKER}.extraPodSpec.mainContainer.command`, 'serve'],
    [AUTO, `${WORKER}.envs`, [{ value: 'a' }], `${WORKER}.envs.0.name`],
  ])('is refused by the server, and said by our reading: %#: %s', (object, path, value, at = path) => {
    const bad = altered(object, path, value);
    expect(fieldsOf(bad)).toContain(at);
    const read = readerOf(bad)(served(bad));
    expect(read).toMatchObject({ result: 'malformed', meta: { name: (object['metadata'] as Json)['name'], uid: 'u' } });
    expect(read.result === 'malformed' && read.problem).toContain(`${at}: `);
  });

  it('is said with its path and what is wrong with it', () => {
    const bad = altered(altered(CHECKPOINT, 'spec.identity.tensorParallelSize', 0), `${JOB}.targetContainerName`, 'A');
    expect(readDynamoCheckpoint(served(bad))).toMatchObject({
      problem:
        'spec.identity.tensorParallelSize: Too small: expected number to be >=1; spec.job.targetContainerName: is no name of a container',
    });
    expect(readDynamoCheckpoint(null)).toEqual({
      result: 'malformed',
      meta: undefined,
      problem: 'the object: Invalid input: expected object, received null',
    });
  });

  it('is two conditions or containers of one name', () => {
    const condition = {
      type: 'A',
      status: 'True',
      reason: 'B',
      message: '',
      lastTransitionTime: '2026-01-29T10:05:00Z',
    };
    expect(fieldsOf(altered(CHECKPOINT, 'status.conditions', [condition]))).toEqual([]);
    expect(fieldsOf(altered(CHECKPOINT, 'status.conditions', [condition, condition]))).toEqual(['status.conditions']);
    const path = `${JOB}.podTemplateSpec.spec.containers`;
    expect(fieldsOf(altered(CHECKPOINT, path, [{ name: 'main' }, { name: 'main' }]))).toEqual([path]);
  });
});

describe('what nobody knows here', () => {
  it('is kept where another version may have more to say, and dropped where not', () => {
    const path = `${JOB}.podTemplateSpec.spec.newField`;
    const object = altered(altered(CHECKPOINT, path, { a: [1] }), 'spec.identity.novelty', 'x');
    const filled = schemaOf(object).fill(object);
    expect(filled).toMatchObject({ spec: { job: { podTemplateSpec: { spec: { newField: { a: [1] } } } } } });
    expect((filled['spec'] as Json)['identity']).not.toHaveProperty('novelty');
    expect(readDynamoCheckpoint(served(object))).toMatchObject({ object: { spec: { identity: { novelty: 'x' } } } });
  });

  it.each(['spec.newField', `${WORKER}.newField`, `${WORKER}.extraPodSpec.newField`, 'status.newField'])(
    'of a deployment is kept: %s',
    (path) => {
      const object = altered(AUTO, path, { a: 1 });
      expect(schemaOf(object).fill(object)).toMatchObject(object);
      expect(readDynamoGraphDeployment(served(object))).toMatchObject({ object });
    },
  );
});

describe('spec.identity', () => {
  const schema = schemaOf(CHECKPOINT);
  const before = schema.fill(CHECKPOINT);

  it('cannot be changed', () => {
    const after = schema.fill(altered(CHECKPOINT, 'spec.identity.dtype', 'fp8'));
    expect(schema.causes(after, before)).toMatchObject([{ field: 'spec.identity' }]);
  });

  it('can be written again, with its defaults or without', () => {
    const again = altered(before, 'spec.identity.tensorParallelSize', undefined);
    expect(schema.causes(schema.fill(again), before)).toEqual([]);
    const other = schema.fill(altered(CHECKPOINT, `${JOB}.activeDeadlineSeconds`, 60));
    expect(schema.causes(other, before)).toEqual([]);
  });
});
