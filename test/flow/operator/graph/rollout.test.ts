import { describe, expect, it } from 'vitest';
import { WRITES } from '../../../fakes/kube-api/server.ts';
import { AUTO, altered, CHECKPOINT, CHECKPOINT_REF } from '../../../unit/crds/samples.ts';
import { eventually } from '../../kube/server.ts';
import { useGraphs } from './stage.ts';

const { stage, operate, apply, patchGraph, graph, condition, deployment, template, checkpoints, ...more } = useGraphs();
const { lookedAt, setPhase, oneCheckpoint, events, runPods, pods, makeReady } = more;
const WORKER = 'VllmDecodeWorker';
const names = () => stage.api.list('deployments').map(({ metadata }) => metadata.name);
const containersOf = (name: string) => template(name).spec?.['containers'];
const writes = () => stage.api.calls({ verb: WRITES, where: ({ resource }) => resource !== 'events' });

/** Waits until another object has all that it wants: what happened before it was seen by then. */
async function overtaken(by: string): Promise<void> {
  apply(altered(AUTO, 'metadata.name', by));
  await eventually(() => expect(condition(by, 'PlainRollout')).toMatchObject({ status: 'True' }));
}

describe('the examples of the guide', () => {
  it('with checkpointRef: both services have a Deployment, the worker is a candidate of what is referred to', async () => {
    stage.api.put({ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name: 'qwen3-06b-bf16', namespace: 'team' } });
    setPhase('qwen3-06b-bf16', 'Ready', { checkpointID: '3bff874d069f0ed5' });
    operate();
    apply(CHECKPOINT_REF);
    await eventually(() =>
      expect(graph('vllm-checkpointref-demo')?.status).toMatchObject({
        checkpoints: { [WORKER]: { checkpointName: 'qwen3-06b-bf16', checkpointID: '3bff874d069f0ed5', ready: true } },
      }),
    );
    expect(names()).toEqual(['vllm-checkpointref-demo-frontend', 'vllm-checkpointref-demo-vllmdecodeworker']);
    const worker = template('vllm-checkpointref-demo-vllmdecodeworker');
    expect(worker.metadata.annotations).toMatchObject({ 'nvidia.com/dynamo-checkpoint-name': 'qwen3-06b-bf16' });
    expect(worker.spec).toMatchObject({
      tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists' }],
      containers: [
        { name: 'main', image: 'registry.example.com/dynamo/vllm-placeholder:1.0.0', workingDir: '/workspace' },
      ],
    });
    expect(stage.api.get('services', 'team/vllm-checkpointref-demo-frontend')?.spec).toMatchObject({
      ports: [{ port: 8000 }],
    });
    // It is the one that is there, and no other is made.
    expect(checkpoints()).toHaveLength(1);
    expect(condition('vllm-checkpointref-demo', 'CheckpointsReady')).toMatchObject({ status: 'True' });
  });

  it('with checkpointRef to nothing: said, nothing made, the worker starts cold; once it is there it is seen', async () => {
    operate();
    apply(CHECKPOINT_REF);
    await eventually(() =>
      expect(condition('vllm-checkpointref-demo', 'CheckpointsReady')).toMatchObject({ reason: 'CheckpointNotFound' }),
    );
    expect(checkpoints()).toEqual([]);
    expect(deployment('vllm-checkpointref-demo-vllmdecodeworker')?.spec).toMatchObject({ replicas: 1 });
    await eventually(() =>
      expect(events()).toContainEqual(['vllm-checkpointref-demo', 'Warning', 'CheckpointNotFound']),
    );
    stage.api.put({ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name: 'qwen3-06b-bf16', namespace: 'team' } });
    setPhase('qwen3-06b-bf16', 'Ready');
    await eventually(() =>
      expect(condition('vllm-checkpointref-demo', 'CheckpointsReady')).toMatchObject({ status: 'True' }),
    );
  });

  it('automatic and Immediate: workers run at once, the checkpoint is made beside them, and nobody is restarted', async () => {
    runPods();
    operate();
    apply(AUTO);
    const name = await oneCheckpoint();
    await eventually(() => expect(pods(WORKER)).toHaveLength(1));
    makeReady();
    await eventually(() => expect(graph('vllm-auto-demo')?.status).toMatchObject({ state: 'successful' }));
    const [first] = pods(WORKER);
    const before = template('vllm-auto-demo-vllmdecodeworker');
    setPhase(name, 'Creating');
    setPhase(name, 'Ready');
    await eventually(() =>
      expect(graph('vllm-auto-demo')?.status).toMatchObject({
        checkpoints: {
          [WORKER]: { checkpointName: name, checkpointID: name.slice('checkpoint-'.length), ready: true },
        },
      }),
    );
    expect(template('vllm-auto-demo-vllmdecodeworker')).toEqual(before);
    expect(pods(WORKER).map(({ metadata }) => metadata.uid)).toEqual([first?.metadata.uid]);
    // As the guide scales: the new pod is what the webhook looks at, of the same checkpoint.
    patchGraph('vllm-auto-demo', { spec: { services: { [WORKER]: { replicas: 2 } } } });
    await eventually(() => expect(pods(WORKER)).toHaveLength(2));
    for (const { metadata } of pods(WORKER))
      expect(metadata.annotations).toMatchObject({
        'nvidia.com/dynamo-checkpoint-restore-candidate': 'true',
        'nvidia.com/dynamo-checkpoint-name': name,
      });
    expect(checkpoints()).toHaveLength(1);
    expect(events()).toContainEqual(['vllm-auto-demo', 'Normal', 'CheckpointReady']);
  });
});

describe('the plain rollout', () => {
  it('scales down and up with the same checkpoint', async () => {
    operate();
    apply(AUTO);
    const name = await oneCheckpoint();
    for (const replicas of [0, 3]) {
      patchGraph('vllm-auto-demo', { spec: { services: { [WORKER]: { replicas } } } });
      await eventually(() => expect(deployment('vllm-auto-demo-vllmdecodeworker')?.spec).toMatchObject({ replicas }));
    }
    expect(checkpoints().map(({ metadata }) => metadata.name)).toEqual([name]);
  });

  it('follows a template, keeps what others wrote, and undoes what others scaled', async () => {
    operate();
    apply(AUTO);
    await eventually(() => expect(names()).toHaveLength(2));
    const key = 'team/vllm-auto-demo-frontend';
    stage.api.patch('deployments', key, {
      metadata: { annotations: { 'deployment.kubernetes.io/revision': '1' }, labels: { theirs: 'yes' } },
      spec: { replicas: 7, progressDeadlineSeconds: 30 },
    });
    await eventually(() => expect(stage.api.get('deployments', key)?.spec).toMatchObject({ replicas: 1 }));
    const main = { image: 'registry.example.com/dynamo/vllm-runtime:2', ports: [{ containerPort: 9000 }] };
    patchGraph('vllm-auto-demo', { spec: { services: { Frontend: { extraPodSpec: { mainContainer: main } } } } });
    await eventually(() => expect(containersOf('vllm-auto-demo-frontend')).toMatchObject([main]));
    expect(stage.api.get('deployments', key)).toMatchObject({
      metadata: { annotations: { 'deployment.kubernetes.io/revision': '1' }, labels: { theirs: 'yes' } },
      spec: { progressDeadlineSeconds: 30 },
    });
    expect(stage.api.get('services', key)?.spec).toMatchObject({ ports: [{ port: 9000, targetPort: 9000 }] });
  });

  it('writes nothing when nothing is to be done', async () => {
    operate();
    const manifest = altered(AUTO, `spec.services.${WORKER}.checkpoint`, undefined);
    apply(manifest);
    await eventually(() => expect(condition('vllm-auto-demo', 'PlainRollout')).toMatchObject({ status: 'True' }));
    await lookedAt(() => patchGraph('vllm-auto-demo', { metadata: { labels: { seen: 'yes' } } }));
    stage.api.forgetCalls();
    stage.api.watches.reset();
    await lookedAt(() => patchGraph('vllm-auto-demo', { metadata: { labels: { seen: 'again' } } }));
    expect(writes()).toEqual([]);
  });

  it('takes away the Deployment of a service that is gone, with its Service', async () => {
    operate();
    apply(AUTO);
    await eventually(() => expect(names()).toHaveLength(2));
    patchGraph('vllm-auto-demo', { spec: { services: { Frontend: null } } });
    await eventually(() => expect(names()).toEqual(['vllm-auto-demo-vllmdecodeworker']));
    expect(stage.api.list('services')).toEqual([]);
  });

  it('makes and changes nothing of an object that is being deleted', async () => {
    operate({ config: { rollout: 'on' } });
    apply(altered(AUTO, 'metadata.finalizers', ['example.com/held']));
    const name = await oneCheckpoint();
    await eventually(() => expect(condition('vllm-auto-demo', 'PlainRollout')).toMatchObject({ status: 'True' }));
    stage.api.delete('dynamographdeployments', 'team/vllm-auto-demo');
    await overtaken('second');
    stage.api.remove('dynamocheckpoints', `team/${name}`);
    patchGraph('vllm-auto-demo', { spec: { services: { [WORKER]: { replicas: 4 } } } });
    await overtaken('third');
    expect(checkpoints()).toHaveLength(2);
    expect(checkpoints().map(({ metadata }) => metadata.name)).not.toContain(name);
    expect(deployment('vllm-auto-demo-vllmdecodeworker')?.spec).toMatchObject({ replicas: 1 });
  });

  it('leaves what has its name and is not its own, says so, and does the rest', async () => {
    stage.api.put({
      kind: 'Deployment',
      metadata: { name: 'vllm-auto-demo-frontend', namespace: 'team' },
      spec: { replicas: 4 },
    });
    operate();
    apply(AUTO);
    await eventually(() =>
      expect(condition('vllm-auto-demo', 'PlainRollout')).toMatchObject({ reason: 'RolloutProblem' }),
    );
    expect(condition('vllm-auto-demo', 'PlainRollout')?.['message']).toContain('vllm-auto-demo-frontend');
    expect(deployment('vllm-auto-demo-frontend')?.spec).toMatchObject({ replicas: 4 });
    expect(names()).toContain('vllm-auto-demo-vllmdecodeworker');
    expect(graph('vllm-auto-demo')?.status).toMatchObject({ state: 'failed' });
  });

  it('says what a service lacks to be a pod', async () => {
    operate();
    apply(altered(AUTO, 'spec.services.Frontend.extraPodSpec', undefined));
    await eventually(() => expect(condition('vllm-auto-demo', 'PlainRollout')?.['message']).toContain('has no image'));
    await eventually(() => expect(events()).toContainEqual(['vllm-auto-demo', 'Warning', 'RolloutProblem']));
  });
});

describe('where another controller rolls out', () => {
  it.each([
    ['it holds the object', { 'metadata.finalizers': ['nvidia.com/finalizer'] }, {}, 'OtherController'],
    ['it is switched off', {}, { rollout: 'off' }, 'SwitchedOff'],
  ] as const)('makes the checkpoint and its status, and nothing else: %s', async (_, changes, config, reason) => {
    operate({ config });
    apply(Object.entries(changes).reduce((copy, [path, value]) => altered(copy, path, value), AUTO));
    const name = await oneCheckpoint();
    setPhase(name, 'Ready');
    await eventually(() =>
      expect(graph('vllm-auto-demo')?.status).toMatchObject({ checkpoints: { [WORKER]: { ready: true } } }),
    );
    expect(condition('vllm-auto-demo', 'PlainRollout')).toMatchObject({ status: 'False', reason });
    expect(names()).toEqual([]);
    expect(new Set(writes().map(({ resource }) => resource))).toEqual(
      new Set(['dynamocheckpoints', 'dynamographdeployments']),
    );
  });

  it('touches nothing more once a controller shows itself by a Deployment of its own', async () => {
    operate();
    apply(AUTO);
    await eventually(() => expect(names()).toHaveLength(2));
    stage.api.put({
      kind: 'Deployment',
      metadata: {
        name: 'theirs',
        namespace: 'team',
        labels: { 'nvidia.com/dynamo-graph-deployment-name': 'vllm-auto-demo' },
      },
      spec: { replicas: 1 },
    });
    await eventually(() =>
      expect(condition('vllm-auto-demo', 'PlainRollout')).toMatchObject({ reason: 'OtherController' }),
    );
    patchGraph('vllm-auto-demo', { spec: { services: { [WORKER]: { replicas: 5 } } } });
    await overtaken('second');
    expect(deployment('vllm-auto-demo-vllmdecodeworker')?.spec).toMatchObject({ replicas: 1 });
  });

  it('waits a while at a new object, and begins then', async () => {
    const { creationTimestamp } = apply(AUTO).metadata;
    let now = new Date(creationTimestamp);
    operate({ config: { settleMs: 1_000 }, clock: () => now });
    await eventually(() =>
      expect(condition('vllm-auto-demo', 'PlainRollout')).toMatchObject({ reason: 'LookingForController' }),
    );
    expect(names()).toEqual([]);
    // It looks again by itself when the time is over.
    now = new Date(now.getTime() + 1_000);
    await eventually(() => expect(names()).toHaveLength(2));
  });

  it('leaves namespaces that are not its own', async () => {
    operate({ config: { namespaces: ['other'] } });
    apply(AUTO);
    apply(altered(AUTO, 'metadata.name', 'second'));
    const metadata = { name: 'third', namespace: 'other' };
    stage.api.put({ ...AUTO, kind: 'DynamoGraphDeployment', metadata });
    await eventually(() => expect(checkpoints().map((one) => one.metadata.namespace)).toEqual(['other']));
    expect(graph('vllm-auto-demo')?.status).toBeUndefined();
  });
});
