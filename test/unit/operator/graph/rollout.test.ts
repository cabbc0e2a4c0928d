import { describe, expect, it } from 'vitest';
import type { DynamoGraphDeployment } from '../../../../contract/dynamo-graph-deployment.ts';
import { automaticCheckpoint } from '../../../../operator/graph/automatic.ts';
import { generationOf, selectorLabels } from '../../../../operator/graph/component.ts';
import { isOfRollout, isRolledOut, startedOf } from '../../../../operator/graph/deployment.ts';
import {
  deploymentName,
  deploymentObject,
  serviceName,
  serviceObject,
  wishMarks,
  wishOf,
} from '../../../../operator/graph/rollout.ts';
import type { Start } from '../../../../operator/graph/start.ts';
import { autoGraph, componentOf, deployment, WORKER } from './samples.ts';
import { SHAPING } from './shaping.ts';

const STORAGE = { accessMode: 'podMount', basePath: '/checkpoints', claim: 'snapshot-pvc' } as const;
const CANDIDATE = { kind: 'candidate', checkpoint: 'checkpoint-1', policy: 'Immediate' } as const;
const RESTORED = { kind: 'restored', id: 'abc', version: '2', targets: ['main'] } as const;
const worker = componentOf(autoGraph());
const frontend = componentOf(autoGraph(), 'Frontend');
const wish = (start: Start, component = worker) => wishOf(component, start, SHAPING, STORAGE);

describe('the wish for a Deployment', () => {
  it('of a service without a checkpoint is its pod, and nothing of checkpoints', () => {
    const { template, replicas, started, name } = wish({ kind: 'cold' }, frontend);
    expect({ replicas, name, as: started?.as }).toEqual({ replicas: 1, name: 'vllm-auto-demo-frontend', as: 'cold' });
    expect(JSON.stringify(template)).not.toMatch(/snapshot|checkpoint|NCCL|shared-memory/);
    expect(template?.spec.containers).toMatchObject([
      { name: 'main', image: 'registry.example.com/dynamo/vllm-runtime:1.0.0' },
    ]);
  });

  it('of a candidate is stamped, and otherwise the worker as its checkpoint is made', () => {
    const { template, started } = wish(CANDIDATE);
    expect(template?.metadata.annotations).toEqual({
      'nvidia.com/dynamo-checkpoint-restore-candidate': 'true',
      'nvidia.com/dynamo-checkpoint-name': 'checkpoint-1',
      'nvidia.com/dynamo-checkpoint-startup-policy': 'Immediate',
    });
    expect(template?.metadata.labels?.['nvidia.com/dynamo-worker-hash']).toBe(generationOf(worker));
    expect(template?.metadata.labels).not.toHaveProperty(['nvidia.com/snapshot-checkpoint-id']);
    expect(template?.spec.containers[0]?.env).toContainEqual({ name: 'NCCL_P2P_DISABLE', value: expect.any(String) });
    expect(template?.spec.containers[0]?.command).toBeUndefined();
    expect(started).toEqual({ generation: generationOf(worker), as: 'cold' });
  });

  it.each([
    ['nothing', {}, { medium: 'Memory', sizeLimit: '8Gi' }],
    ['the service', { sharedMemory: { size: '1Gi' } }, { medium: 'Memory', sizeLimit: '1Gi' }],
    [
      'its Job',
      { sharedMemory: { size: '1Gi' }, 'checkpoint.job.sharedMemory': { size: '2Gi' } },
      { sizeLimit: '2Gi' },
    ],
    ['none', { sharedMemory: { disabled: true } }, undefined],
  ])('of a worker with a checkpoint has the shared memory of its Job: as said by %s', (_, worker, emptyDir) => {
    const component = componentOf(autoGraph(worker));
    const volumes = wish(CANDIDATE, component).template?.spec.volumes;
    const found = volumes?.find((volume) => volume.name === 'shared-memory')?.emptyDir;
    if (emptyDir === undefined) expect(found).toBeUndefined();
    else expect(found).toMatchObject(emptyDir);
    const { size } = (automaticCheckpoint(component, 'vllm')['spec'] as { job: { sharedMemory: { size: string } } }).job
      .sharedMemory;
    if (emptyDir !== undefined) expect(size).toBe(found?.sizeLimit);
  });

  it('of restored workers is shaped by the contract', () => {
    const { template, replicas, started } = wish(RESTORED);
    expect({ replicas, as: started?.as }).toEqual({ replicas: 1, as: 'restored' });
    expect(template).toMatchObject({
      metadata: {
        labels: { 'nvidia.com/snapshot-checkpoint-id': 'abc', 'nvidia.com/snapshot-is-restore-target': 'true' },
        annotations: {
          'nvidia.com/snapshot-target-containers': 'main',
          'nvidia.com/snapshot-artifact-version': '2',
          'nvidia.com/snapshot-storage-base-path': '/checkpoints',
        },
      },
      spec: {
        containers: [{ command: ['/usr/local/bin/snapshot-standby'], volumeMounts: expect.any(Array) }],
        securityContext: { seccompProfile: { localhostProfile: 'profiles/block-iouring.json' } },
      },
    });
    expect(template?.metadata.annotations).not.toHaveProperty(['nvidia.com/dynamo-checkpoint-restore-candidate']);
  });

  it('of held workers has none of them, and does not say that they were started', () => {
    const { replicas, started, template } = wish(
      { kind: 'held', failure: undefined },
      componentOf(autoGraph({ replicas: 3 })),
    );
    expect({ replicas, started, isPod: template !== undefined }).toEqual({
      replicas: 0,
      started: undefined,
      isPod: true,
    });
  });

  it('of kept workers leaves their template, and scales them', () => {
    const { replicas, template, started } = wish({ kind: 'kept' }, componentOf(autoGraph({ replicas: 3 })));
    expect({ replicas, template, as: started?.as }).toEqual({ replicas: 3, template: undefined, as: 'restored' });
    expect(Object.keys(wishMarks(wish({ kind: 'kept' })))).toEqual(['nvidia.com/snapshot-rollout-started']);
  });

  it('cannot be made of what stands in the way of a restore, or without storage', () => {
    const bad = componentOf(autoGraph({ 'extraPodSpec.volumes': [{ name: 'checkpoint-storage', emptyDir: {} }] }));
    expect(() => wish(RESTORED, bad)).toThrow('checkpoint-storage');
    expect(() => wishOf(worker, RESTORED, SHAPING)).toThrow('not known');
    expect(() => wish(RESTORED, componentOf(autoGraph({ 'extraPodSpec.mainContainer.image': '' })))).toThrow(
      'no image',
    );
  });

  it('keeps what speaks to the operator out of pods', () => {
    const annotations = { 'nvidia.com/dynamo-checkpoint-failed-fallback': 'Wait', kept: 'yes' };
    const { template } = wish({ kind: 'cold' }, componentOf(autoGraph({ annotations })));
    expect(template?.metadata.annotations).toEqual({ kept: 'yes' });
  });

  it('has a basis that changes with what is asked for, and not with what this operator makes of it', () => {
    const of = (changes: Readonly<Record<string, unknown>>, start: Start = CANDIDATE, shaping = SHAPING) =>
      wishOf(componentOf(autoGraph(changes)), start, shaping, STORAGE).basis;
    const base = of({});
    expect(of({ replicas: 5 })).toBe(base);
    expect(of({ annotations: { 'nvidia.com/dynamo-checkpoint-failed-fallback': 'Wait' } })).toBe(base);
    expect(of({}, CANDIDATE, { seccompProfile: undefined, placeholder: 'sleep' })).toBe(base);
    const failure = { reason: 'R', message: 'm' };
    expect(of({}, { kind: 'held', failure })).toBe(of({}, { kind: 'held', failure: undefined }));
    const others = [
      of({ labels: { a: 'b' } }),
      of({ annotations: { a: 'b' } }),
      of({ componentType: 'decode' }),
      of({ dynamoNamespace: 'other' }),
      of({ sharedMemory: { size: '1Gi' } }),
      of({ 'checkpoint.job.sharedMemory': { disabled: true } }),
      of({ 'extraPodSpec.mainContainer.image': 'vllm:2' }),
      of({}, { ...CANDIDATE, policy: 'WaitForCheckpoint' }),
      of({}, { kind: 'cold' }),
      of({}, RESTORED),
      of({}, { ...RESTORED, version: '3' }),
      of({}, RESTORED, { ...SHAPING, placeholder: 'sleep' }),
    ];
    expect(new Set([base, ...others]).size).toBe(1 + others.length);
  });
});

describe('the Deployment', () => {
  it('is owned, labelled, and selects by what never changes', () => {
    const made = deploymentObject(worker, wish(CANDIDATE));
    expect(made).toMatchObject({
      ...{ apiVersion: 'apps/v1', kind: 'Deployment' },
      metadata: {
        ...{ name: 'vllm-auto-demo-vllmdecodeworker', namespace: 'team' },
        labels: { 'app.kubernetes.io/managed-by': 'snapshot-operator', 'nvidia.com/dynamo-component': WORKER },
        annotations: { 'nvidia.com/snapshot-rollout-started': `${generationOf(worker)} cold` },
        ownerReferences: [{ kind: 'DynamoGraphDeployment', name: 'vllm-auto-demo', uid: 'u', controller: true }],
      },
      spec: { replicas: 1, selector: { matchLabels: selectorLabels(worker) } },
    });
    const held = deploymentObject(worker, wish({ kind: 'held', failure: undefined }));
    expect(Object.keys(held.metadata['annotations'] as object)).toEqual(['nvidia.com/snapshot-rollout-applied']);
  });

  it.each([
    ['a', ['B', 'c'], 'B', 'a-b'],
    ['a', ['worker', 'Worker'], 'worker', 'a-worker'],
    ['a', ['worker', 'Worker'], 'Worker', expect.stringMatching(/^a-worker-[0-9a-f]{10}$/)],
    ['a.b', ['c'], 'c', expect.stringMatching(/^a-b-c-[0-9a-f]{10}$/)],
    ['a'.repeat(70), ['c'], 'c', expect.stringMatching(/^[a-z0-9-]{1,63}$/)],
  ])('of object %s with services %j is called for %s: %s', (graphName, services, name, called) => {
    const { metadata, spec } = autoGraph();
    const graph = {
      metadata: { ...metadata, name: graphName },
      spec: { ...spec, services: Object.fromEntries(services.map((one) => [one, {}])) },
    } as DynamoGraphDeployment;
    expect(deploymentName({ graph, name, service: {} })).toEqual(called);
  });

  it('says how its generation was started, and of no other', () => {
    const said = (text: string | undefined) =>
      startedOf(
        deployment('d', text === undefined ? {} : { annotations: { 'nvidia.com/snapshot-rollout-started': text } }),
        'g',
      );
    expect([
      said('g cold')?.as,
      said('g restored')?.as,
      said('h cold'),
      said('g what'),
      said('g'),
      said(undefined),
    ]).toEqual([...['cold', 'restored'], ...[undefined, undefined, undefined, undefined]]);
  });

  it('is ours by label and owner together', () => {
    const labels = { 'app.kubernetes.io/managed-by': 'snapshot-operator' };
    const ownerReferences = [{ apiVersion: 'v', kind: 'K', name: 'n', uid: 'u' }];
    const of = (metadata: object) => isOfRollout(deployment('d', metadata as never).metadata, 'u');
    expect([of({ labels, ownerReferences }), of({ labels }), of({ ownerReferences })]).toEqual([true, false, false]);
  });

  it.each([
    [true, { observedGeneration: 2, replicas: 2, updatedReplicas: 2, availableReplicas: 2 }],
    [false, { observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2 }],
    [false, { observedGeneration: 2, replicas: 3, updatedReplicas: 2, availableReplicas: 2 }],
    [false, { observedGeneration: 2, replicas: 2, updatedReplicas: 1, availableReplicas: 2 }],
    [false, { observedGeneration: 2, replicas: 2, updatedReplicas: 2 }],
    [false, undefined],
  ])('is rolled out (%s) with status %j', (is, status) => {
    const spec = { replicas: 2, template: {} };
    expect(isRolledOut(deployment('d', { generation: 2 }, { spec, ...(status && { status }) }))).toBe(is);
  });
});

describe('the Service', () => {
  it('is for frontends alone', () => {
    expect(serviceObject(worker)).toBeUndefined();
    expect(serviceObject(frontend)).toMatchObject({
      metadata: { name: 'vllm-auto-demo-frontend', ownerReferences: [{ uid: 'u' }] },
      spec: { selector: selectorLabels(frontend), ports: [{ name: 'http', port: 8000, targetPort: 8000 }] },
    });
  });

  it.each([
    [[{ containerPort: 9000 }], 9000],
    [[{ containerPort: 1 }, { name: 'http', containerPort: 2 }], 2],
    [[], 8000],
  ])('leads to the port of the container: %j', (ports, port) => {
    const graph = autoGraph({}, { 'spec.services.Frontend.extraPodSpec.mainContainer.ports': ports });
    expect(serviceObject(componentOf(graph, 'Frontend'))?.spec).toMatchObject({ ports: [{ port, targetPort: port }] });
  });

  it('begins with a letter', () => {
    expect([serviceName('a-frontend'), serviceName('7b-frontend')]).toEqual(['a-frontend', 'frontend-7b-frontend']);
  });
});
