import { describe, expect, it } from 'vitest';
import {
  componentTemplate,
  generationOf,
  isWorker,
  selectorLabels,
  writtenTemplate,
} from '../../../../operator/graph/component.ts';
import { containerResources } from '../../../../operator/graph/resources.ts';
import { autoGraph, componentOf, WORKER } from './samples.ts';

const workerOf = (changes: Readonly<Record<string, unknown>> = {}, more: Readonly<Record<string, unknown>> = {}) =>
  componentOf(autoGraph(changes, more));
const mainOf = (changes: Readonly<Record<string, unknown>>, more = {}) =>
  writtenTemplate(workerOf(changes, more)).spec.containers[0];

describe('the pod of a service', () => {
  it('has its own variables where those of the object are an empty field', () => {
    const { containers } = componentTemplate(workerOf({ 'extraPodSpec.mainContainer.env': null, envs: [] })).spec;
    const names = containers[0]?.env?.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['DYN_COMPONENT', 'POD_UID']));
  });

  it('has mainContainer as its container main, and keeps all else that extraPodSpec says', () => {
    const { spec } = writtenTemplate(
      workerOf({
        'extraPodSpec.mainContainer': { image: 'i', workingDir: '/w', name: 'other', unheardOf: 1 },
        'extraPodSpec.containers': [{ name: 'side', image: 's' }],
        'extraPodSpec.tolerations': [{ operator: 'Exists' }],
        'extraPodSpec.fieldOfTheFuture': { a: 1 },
      }),
    );
    expect(spec).toEqual({
      containers: [
        { name: 'main', image: 'i', workingDir: '/w', unheardOf: 1 },
        { name: 'side', image: 's' },
      ],
      tolerations: [{ operator: 'Exists' }],
      fieldOfTheFuture: { a: 1 },
    });
  });

  it('has the variables of object, service and container, the nearest winning', () => {
    const env = mainOf(
      {
        envs: [
          { name: 'A', value: 'service' },
          { name: 'B', value: 'service' },
        ],
        'extraPodSpec.mainContainer.env': [{ name: 'B', value: 'container' }],
        envFromSecret: 'hf',
        'extraPodSpec.mainContainer.envFrom': [{ configMapRef: { name: 'c' } }],
      },
      {
        'spec.envs': [
          { name: 'A', value: 'object' },
          { name: 'Z', value: 'object' },
        ],
      },
    );
    expect(env).toMatchObject({
      env: [
        { name: 'A', value: 'service' },
        { name: 'Z', value: 'object' },
        { name: 'B', value: 'container' },
      ],
      envFrom: [{ configMapRef: { name: 'c' } }, { secretRef: { name: 'hf' } }],
    });
  });

  it('takes resources and probes that are said beside the container, unless it has its own', () => {
    const resources = { limits: { gpu: '2', memory: '1Gi' } };
    const livenessProbe = { httpGet: { path: '/live', port: 1 } };
    expect(mainOf({ resources, livenessProbe })).toMatchObject({
      resources: { limits: { 'nvidia.com/gpu': '2', memory: '1Gi' } },
      livenessProbe,
    });
    const own = { image: 'i', resources: { limits: { cpu: 1 } }, livenessProbe: { exec: { command: ['true'] } } };
    expect(mainOf({ resources, livenessProbe, 'extraPodSpec.mainContainer': own })).toMatchObject(own);
  });

  it.each([
    [undefined, {}],
    [{ claims: [{ name: 'c' }] }, { resources: { claims: [{ name: 'c' }] } }],
    [
      { requests: { gpu: 1, gpuType: 'example.com/gpu', custom: { 'x.com/y': 2 } } },
      { resources: { requests: { 'example.com/gpu': 1, 'x.com/y': 2 } } },
    ],
    [{ limits: { 'nvidia.com/gpu': 1 } }, { resources: { limits: { 'nvidia.com/gpu': 1 } } }],
  ])('reads resources %j', (said, found) => expect(containerResources(said)).toEqual(found));

  it.each([
    [{ 'extraPodSpec.mainContainer.image': '' }, 'has no image'],
    [{ extraPodSpec: undefined }, 'has no image'],
    [{ 'extraPodSpec.containers': [{ name: 'main' }] }, 'is called main'],
  ])('is refused where it is none: %j', (changes, problem) => {
    expect(() => writtenTemplate(workerOf(changes))).toThrow(`service ${WORKER}`);
    expect(() => writtenTemplate(workerOf(changes))).toThrow(problem);
  });

  it('is told whose it is, and keeps what it says itself', () => {
    const { metadata, spec } = componentTemplate(
      workerOf({
        labels: { a: 'service', b: 'service' },
        extraPodMetadata: { labels: { b: 'pod' }, annotations: { c: 'pod' } },
        envs: [{ name: 'DYN_COMPONENT', value: 'mine' }],
      }),
    );
    expect(metadata).toEqual({
      labels: {
        ...{ a: 'service', b: 'pod' },
        'nvidia.com/dynamo-graph-deployment-name': 'vllm-auto-demo',
        'nvidia.com/dynamo-component': WORKER,
        'nvidia.com/dynamo-component-type': 'worker',
        'nvidia.com/dynamo-namespace': 'team-vllm-auto-demo',
        'nvidia.com/dynamo-worker-hash': expect.stringMatching(/^[0-9a-f]{16}$/),
      },
      annotations: { c: 'pod' },
    });
    expect(spec.containers[0]?.env).toEqual([
      { name: 'DYN_COMPONENT', value: 'mine' },
      { name: 'DYN_NAMESPACE', value: 'team-vllm-auto-demo' },
      { name: 'DYN_PARENT_DGD_K8S_NAME', value: 'vllm-auto-demo' },
      { name: 'DYN_PARENT_DGD_K8S_NAMESPACE', value: 'team' },
      { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      { name: 'POD_NAMESPACE', valueFrom: { fieldRef: { fieldPath: 'metadata.namespace' } } },
      { name: 'POD_UID', valueFrom: { fieldRef: { fieldPath: 'metadata.uid' } } },
    ]);
  });

  it('has labels that Kubernetes takes, whatever the names', () => {
    const graph = autoGraph({ dynamoNamespace: 'a b' }, { 'metadata.name': `${'long-'.repeat(20)}name` });
    const [service] = Object.values(graph.spec.services);
    const odd = { graph, name: 'the worker!', service: service ?? {} };
    for (const value of Object.values(selectorLabels(odd)))
      expect(value).toMatch(/^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/);
  });

  it.each([
    ['worker', true],
    ['prefill', true],
    ['decode', true],
    [undefined, true],
    ['frontend', false],
    ['planner', false],
  ])('of type %s is a worker: %s', (componentType, is) => expect(isWorker(workerOf({ componentType }))).toBe(is));
});

describe('the generation of a worker', () => {
  const base = generationOf(workerOf());
  it.each([
    ['extraPodSpec.mainContainer.image', 'other'],
    ['extraPodSpec.mainContainer.args', ['--x']],
    ['extraPodSpec.nodeSelector', { a: 'b' }],
    ['envs', [{ name: 'A', value: '1' }]],
    ['envFromSecret', 's'],
    ['resources', { limits: { gpu: '1' } }],
  ])('is another one after a change of %s', (path, value) => {
    expect(generationOf(workerOf({ [path]: value }))).not.toBe(base);
  });

  it.each([
    ['replicas', 7],
    ['labels', { a: 'b' }],
    ['annotations', { a: 'b' }],
    ['checkpoint.startupPolicy', 'WaitForCheckpoint'],
    ['checkpoint.job', { activeDeadlineSeconds: 5 }],
    ['dynamoNamespace', 'other'],
  ])('is the same after a change of %s', (path, value) => {
    expect(generationOf(workerOf({ [path]: value }))).toBe(base);
  });

  it('is what the label says', () => {
    expect(generationOf(workerOf({ labels: { 'nvidia.com/dynamo-worker-hash': 'abcd1234' } }))).toBe('abcd1234');
  });
});
