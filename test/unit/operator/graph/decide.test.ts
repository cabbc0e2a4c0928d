import { describe, expect, it } from 'vitest';
import { automaticId } from '../../../../contract/identity.ts';
import { automaticName } from '../../../../operator/graph/automatic.ts';
import { generationOf } from '../../../../operator/graph/component.ts';
import { decide, type Facts, withObstacle } from '../../../../operator/graph/decide.ts';
import { autoGraph, automaticOf, checkpoint, componentOf, factsOf, refGraph, WORKER } from './samples.ts';

const REF = 'qwen3-06b-bf16';
const VERSION = 'metadata.annotations';
const ready = { phase: 'Ready', checkpointID: '3bff874d069f0ed5', jobName: 'checkpoint-job-3bff874d069f0ed5-1' };
const ref = (status: object | undefined, changes: object = {}, more: Partial<Facts> = {}) =>
  decide(factsOf(componentOf(refGraph()), status === undefined ? [] : [checkpoint({ status, ...changes })], more));
const auto = (status: object, more: object = {}, worker: object = {}, facts: Partial<Facts> = {}) => {
  const component = componentOf(autoGraph(worker as Record<string, unknown>));
  return decide(factsOf(component, [automaticOf(component, status as never, more as never)], facts));
};

describe('a service', () => {
  it.each([
    ['no checkpoint', undefined],
    ['one that is not enabled', { enabled: false, mode: 'Auto' }],
    ['one that says nothing of it', { checkpointRef: REF }],
  ])('with %s starts as it is written', (_, said) => {
    const component = componentOf(autoGraph({ checkpoint: said }));
    expect(decide(factsOf(component))).toEqual({
      ...{ component, checkpoint: undefined, make: undefined, word: undefined, start: { kind: 'cold' } },
    });
  });

  it.each([
    ['the operator has none', {}, { isEnabled: false }, 'CheckpointsDisabled'],
    ['of GMS', { 'gpuMemoryService.enabled': true }, {}, 'GMSSnapshotDisabled'],
    ['of its kind', { componentType: 'frontend' }, {}, 'WorkerKindNotSupported'],
    ['its backend is not known', { 'extraPodSpec.mainContainer.image': 'x' }, {}, 'BackendNotSupported'],
    ['its pod is none', { 'extraPodSpec.mainContainer.image': '' }, {}, 'InvalidService'],
    ['it is Manual without a reference', { 'checkpoint.mode': 'Manual' }, {}, 'CheckpointRefMissing'],
  ])('gets no checkpoint because %s, says so, and starts cold', (_, worker, facts, reason) => {
    const decision = decide(factsOf(componentOf(autoGraph(worker)), [], facts));
    expect(decision).toMatchObject({ word: { isReady: false, isTrouble: true, reason }, start: { kind: 'cold' } });
    expect(decision.make).toBeUndefined();
    expect(decision.word?.message).toContain(WORKER);
  });

  it.each([
    ['extraPodSpec.mainContainer.env', 5],
    ['extraPodSpec.mainContainer.volumeMounts', {}],
    ['extraPodSpec.volumes', {}],
    ['extraPodSpec.containers', 'none'],
    ['extraPodMetadata', { labels: 5 }],
  ])('with %s that no pod can have says where that is', (path, value) => {
    const { word, start } = decide(factsOf(componentOf(autoGraph({ [path]: value }))));
    expect(word).toMatchObject({ isTrouble: true, reason: 'InvalidService' });
    expect(word?.message).toContain(path);
    expect(start).toEqual({ kind: 'cold' });
  });

  it('that waits for what cannot be is held, and says how to go on; or starts cold where that is the policy', () => {
    const worker = { 'gpuMemoryService.enabled': true, 'checkpoint.startupPolicy': 'WaitForCheckpoint' };
    const held = decide(factsOf(componentOf(autoGraph(worker))));
    expect(held.start).toMatchObject({ kind: 'held', failure: { reason: 'GMSSnapshotDisabled' } });
    expect(held.word?.message).toMatch(/stay at zero.*dynamo-checkpoint-failed-fallback: ColdStart/);
    expect(decide(factsOf(componentOf(autoGraph(worker)), [], { failedFallback: 'ColdStart' })).start).toEqual({
      kind: 'cold',
    });
  });
});

describe('a service with checkpointRef', () => {
  it.each([
    ['missing', undefined, {}, 'CheckpointNotFound', true],
    ['new', {}, {}, 'CheckpointNotReady', false],
    ['pending', { phase: 'Pending' }, {}, 'CheckpointNotReady', false],
    ['in the making', { phase: 'Creating', message: '3%' }, {}, 'CheckpointNotReady', false],
    ['being deleted', ready, { 'metadata.deletionTimestamp': '2026-01-01T00:00:00Z' }, 'CheckpointDeleted', false],
    [
      'ready in another version',
      ready,
      { [VERSION]: { 'nvidia.com/snapshot-artifact-version': '2' } },
      'CheckpointNotReady',
      false,
    ],
    ['failed', { phase: 'Failed', message: 'no GPU' }, {}, 'CheckpointFailed', true],
    [
      'not supported',
      { conditions: [{ type: 'Supported', status: 'False', reason: 'BackendNotSupported', message: 'm' }] },
      {},
      'BackendNotSupported',
      true,
    ],
    ['ready', ready, {}, 'CheckpointReady', false],
  ])('that is %s', (_, status, changes, reason, isTrouble) => {
    const { make, word, checkpoint: named, start } = ref(status, changes);
    expect(make).toBeUndefined();
    expect(word).toMatchObject({ reason, isTrouble, isReady: reason === 'CheckpointReady' });
    expect(named?.name).toBe(REF);
    // Pods may come to be restored later: the webhook looks when they are made.
    expect(start).toEqual({ kind: 'candidate', checkpoint: REF, policy: 'Immediate' });
  });

  it('has the id of the one it refers to, and none while there is none', () => {
    expect(ref(ready).checkpoint).toEqual({ name: REF, id: '3bff874d069f0ed5' });
    expect(ref({}).checkpoint).toEqual({ name: REF, id: '4da999bc6c673b97' });
    expect(ref(undefined).checkpoint).toEqual({ name: REF, id: undefined });
  });

  it('says why it failed, what does not change with its progress, and how to try again', () => {
    expect(ref({ phase: 'Failed', message: 'no GPU' }).word?.message).toMatch(
      /failed: no GPU; annotate it with nvidia.com\/dynamo-checkpoint-retry/,
    );
    expect(ref({ phase: 'Creating', message: '3%' }).word).toEqual(ref({ phase: 'Creating', message: '4%' }).word);
  });

  it('that cannot be read is said', () => {
    const malformed = { result: 'malformed', meta: undefined, problem: 'spec.identity: gone' } as const;
    const { word } = decide(factsOf(componentOf(refGraph()), [], { checkpoint: () => malformed }));
    expect(word).toMatchObject({
      reason: 'CheckpointMalformed',
      message: expect.stringContaining('spec.identity: gone'),
    });
  });

  it('restores into the container that was checkpointed, in the version that is asked for', () => {
    const graph = refGraph();
    const component = componentOf(graph);
    const { checkpoint: wanted } = component.service;
    if (wanted !== undefined) wanted.startupPolicy = 'WaitForCheckpoint';
    const second = checkpoint({
      status: { ...ready, jobName: 'checkpoint-job-3bff874d069f0ed5-2' },
      [VERSION]: { 'nvidia.com/snapshot-artifact-version': '2' },
      'spec.job.targetContainerName': 'engine',
    });
    const { start } = decide(factsOf(component, [second]));
    expect(start).toEqual({ kind: 'restored', id: '3bff874d069f0ed5', version: '2', targets: ['engine'] });
  });
});

describe('a service with an automatic checkpoint', () => {
  it('has the id of its generation, and the DynamoCheckpoint of that name is made once', () => {
    const component = componentOf(autoGraph());
    const { name, id } = automaticName(component);
    const { namespace, name: dgdName, uid: dgdUID } = component.graph.metadata;
    const workerHash = generationOf(component);
    expect(id).toBe(automaticId({ namespace, dgdName, dgdUID, componentName: WORKER, workerHash }));
    expect(id).toHaveLength(32);
    const decision = decide(factsOf(component, [], { finalizers: ['example.com/f'] }));
    expect(decision).toMatchObject({
      checkpoint: { name: `checkpoint-${id}`, id },
      word: { reason: 'CheckpointCreating', isTrouble: false },
      start: { kind: 'candidate', checkpoint: `checkpoint-${id}` },
      make: {
        metadata: {
          ...{ name, namespace: 'team', finalizers: ['example.com/f'] },
          labels: { 'nvidia.com/snapshot-checkpoint-id': id, 'nvidia.com/dynamo-worker-hash': workerHash },
          annotations: { 'nvidia.com/dynamo-auto-checkpoint': 'true' },
          ownerReferences: [{ kind: 'DynamoGraphDeployment', name: dgdName, uid: dgdUID, controller: true }],
        },
        spec: {
          identity: {
            ...{ model: 'team/vllm-auto-demo', backendFramework: 'vllm' },
            extraParameters: { dgdUID, component: WORKER, checkpointID: id },
          },
          job: { targetContainerName: 'main', podTemplateSpec: { spec: { containers: [{ name: 'main' }] } } },
        },
      },
    });
    expect(auto({}).make).toBeUndefined();
  });

  it('is of the vector of the protocol', () => {
    const graph = autoGraph(
      { labels: { 'nvidia.com/dynamo-worker-hash': 'abcd1234' } },
      { 'metadata.name': 'vllm-auto-demo' },
    );
    const moved = { ...graph, metadata: { ...graph.metadata, namespace: 'ns', uid: 'uid-1' } };
    expect(automaticName(componentOf(moved)).id).toBe('f16f886e01830d6f95cde8217fdc6aff');
  });

  it('takes from the service what its Job has other than the worker, and its policy of deletion', () => {
    const job = {
      activeDeadlineSeconds: 60,
      targetContainerName: 'engine',
      sharedMemory: { size: '1Gi' },
      podTemplateSpec: { metadata: { labels: { a: 'b' } }, spec: { containers: [{ name: 'engine', image: 'i' }] } },
    };
    const annotations = { 'nvidia.com/dynamo-checkpoint-deletion-policy': 'Retain', kept: 'yes' };
    const { make } = decide(factsOf(componentOf(autoGraph({ 'checkpoint.job': job, annotations }))));
    expect(make?.metadata).toMatchObject({ annotations: { 'nvidia.com/dynamo-checkpoint-deletion-policy': 'Retain' } });
    expect(make?.['spec']).toMatchObject({
      job: {
        ...{ activeDeadlineSeconds: 60, targetContainerName: 'engine', sharedMemory: { size: '1Gi' } },
        podTemplateSpec: {
          metadata: { labels: { a: 'b', 'nvidia.com/dynamo-component': WORKER }, annotations: { kept: 'yes' } },
          spec: { containers: [{ name: 'engine', image: 'i' }] },
        },
      },
    });
    // What speaks to the operator is not for the pod.
    expect(JSON.stringify(make?.['spec'])).not.toContain('deletion-policy');
  });

  it.each([
    ['in the making', { phase: 'Creating' }, {}, 'CheckpointNotReady'],
    ['ready', { phase: 'Ready' }, {}, 'CheckpointReady'],
    ['failed', { phase: 'Failed' }, {}, 'CheckpointFailed'],
    ['of somebody else', {}, { 'metadata.ownerReferences': undefined }, 'CheckpointForeign'],
    ['of another id', { checkpointID: 'other', phase: 'Ready' }, {}, 'CheckpointForeign'],
  ])('that is %s', (_, status, changes, reason) => {
    const { word, make, checkpoint: named } = auto(status, changes);
    expect({ reason: word?.reason, make }).toEqual({ reason, make: undefined });
    expect(named?.id).toHaveLength(32);
  });

  it('that cannot be read is another’s where it says no owner, and its own where it does', () => {
    const component = componentOf(autoGraph());
    const { metadata } = automaticOf(component);
    const malformed = (meta: typeof metadata | undefined) =>
      decide(factsOf(component, [], { checkpoint: () => ({ result: 'malformed', meta, problem: 'p' }) })).word?.reason;
    expect([malformed(metadata), malformed(undefined)]).toEqual(['CheckpointMalformed', 'CheckpointForeign']);
  });
});

describe('WaitForCheckpoint', () => {
  const WAIT = { 'checkpoint.startupPolicy': 'WaitForCheckpoint' };
  const FALLBACK = 'nvidia.com/dynamo-checkpoint-failed-fallback';
  const failed = { phase: 'Failed', message: 'no GPU' };
  const cases: [string, object, object, Partial<Facts>, string][] = [
    ['nothing is there', {}, {}, {}, 'held'],
    ['ready', { phase: 'Ready' }, {}, {}, 'restored'],
    ['failed', failed, {}, {}, 'held'],
    ['failed, the operator falls back', failed, {}, { failedFallback: 'ColdStart' }, 'candidate'],
    ['failed, the service falls back', failed, { annotations: { [FALLBACK]: 'ColdStart' } }, {}, 'candidate'],
    [
      'failed, the service waits',
      failed,
      { annotations: { [FALLBACK]: 'Wait' } },
      { failedFallback: 'ColdStart' },
      'held',
    ],
    ['failed, the service says nothing known', failed, { annotations: { [FALLBACK]: 'x' } }, {}, 'held'],
  ];
  it.each(cases)('with a checkpoint: %s', (_, status, worker, facts, kind) => {
    expect(auto(status, {}, { ...WAIT, ...worker }, facts).start.kind).toBe(kind);
  });

  it('takes the fallback of the whole object where the service has none', () => {
    const component = componentOf(autoGraph(WAIT, { 'metadata.annotations': { [FALLBACK]: 'ColdStart' } }));
    expect(decide(factsOf(component, [automaticOf(component, failed)])).start.kind).toBe('candidate');
    const annotations = { [FALLBACK]: 'Wait' };
    const own = componentOf(
      autoGraph({ ...WAIT, annotations }, { 'metadata.annotations': { [FALLBACK]: 'ColdStart' } }),
    );
    expect(decide(factsOf(own, [automaticOf(own, failed)])).start.kind).toBe('held');
  });

  it.each([
    ['cold', { phase: 'Ready' }, 'candidate'],
    ['cold', failed, 'candidate'],
    ['cold', {}, 'candidate'],
    ['restored', { phase: 'Ready' }, 'restored'],
    ['restored', failed, 'kept'],
    ['restored', {}, 'kept'],
  ] as const)('leaves workers that were started %s: %j', (as, status, kind) => {
    expect(auto(status, {}, WAIT, { started: { generation: 'g', as } }).start.kind).toBe(kind);
  });

  it('says what to do while it holds workers, and where they are not ours does not claim that it does', () => {
    const message = auto(failed, {}, WAIT).word?.message ?? '';
    expect(message).toContain('no GPU');
    expect(message).toContain('stay at zero');
    expect(message).toContain('nvidia.com/dynamo-checkpoint-retry: "1"');
    expect(message).toContain(`${FALLBACK}: ColdStart`);
    expect(auto(failed, {}, WAIT, { isRolledOutHere: false }).word?.message).not.toContain('stay at zero');
    expect(auto(failed, {}, WAIT, { failedFallback: 'ColdStart' }).word?.message).not.toContain('stay at zero');
  });

  it.each([
    [true, 'ColdStart', 'candidate'],
    [true, 'Wait', 'held'],
    [false, 'ColdStart', 'held'],
  ] as const)('meets an obstacle that is final (%s) with fallback %s', (isFinal, failedFallback, kind) => {
    const component = componentOf(autoGraph(WAIT));
    const facts = factsOf(component, [automaticOf(component, { phase: 'Ready' })], { failedFallback });
    const {
      word,
      start,
      checkpoint: named,
    } = withObstacle(facts, decide(facts), { reason: 'R', message: 'm', isFinal });
    expect({ kind: start.kind, reason: word?.reason, name: named?.name }).toMatchObject({ kind, reason: 'R' });
    expect(named).toEqual(decide(facts).checkpoint);
  });
});
