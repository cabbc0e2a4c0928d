import { describe, expect, it } from 'vitest';
import type { StorageFound } from '../../../../operator/graph/workers.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { AUTO, altered } from '../../../unit/crds/samples.ts';
import { eventually } from '../../kube/server.ts';
import { useGraphs } from './stage.ts';

const { stage, operate, apply, patchGraph, graph, condition, deployment, template, checkpoints, ...more } = useGraphs();
const { lookedAt, setPhase, oneCheckpoint, events, runPods, pods, makeReady } = more;
const WORKER = 'VllmDecodeWorker';
const NAME = 'vllm-auto-demo';
const DEPLOYMENT = `${NAME}-vllmdecodeworker`;
const AT = `spec.services.${WORKER}`;
const WAIT = altered(AUTO, `${AT}.checkpoint.startupPolicy`, 'WaitForCheckpoint');
const patchWorker = (patch: Json) => patchGraph(NAME, { spec: { services: { [WORKER]: patch } } });
const withImage = (image: string) => ({ extraPodSpec: { mainContainer: { image } } });
const idOf = (name: string) => name.slice('checkpoint-'.length);

/** Applied, and its workers held. */
async function held(manifest = WAIT): Promise<string> {
  apply(manifest);
  const name = await oneCheckpoint();
  await eventually(() => expect(condition(NAME, 'WorkersHeld')).toMatchObject({ status: 'True' }));
  expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 0 });
  return name;
}

describe('WaitForCheckpoint', () => {
  it('has no workers until the checkpoint is ready, then restored ones alone, and the frontend from the start', async () => {
    runPods();
    operate();
    const name = await held();
    setPhase(name, 'Creating');
    await eventually(() => expect(condition(NAME, 'CheckpointsReady')).toMatchObject({ reason: 'CheckpointNotReady' }));
    expect(pods(WORKER)).toEqual([]);
    await eventually(() => expect(pods('Frontend')).toHaveLength(1));
    setPhase(name, 'Ready');
    await eventually(() => expect(pods(WORKER)).toHaveLength(1));
    expect(pods(WORKER)[0]).toMatchObject({
      metadata: {
        labels: {
          ...{ 'nvidia.com/snapshot-is-restore-target': 'true', 'nvidia.com/snapshot-checkpoint-id': idOf(name) },
        },
        annotations: { 'nvidia.com/snapshot-target-containers': 'main', 'nvidia.com/snapshot-artifact-version': '1' },
      },
      spec: {
        containers: [{ name: 'main', command: ['/usr/local/bin/snapshot-standby'] }],
        volumes: expect.arrayContaining([
          { name: 'checkpoint-storage', persistentVolumeClaim: { claimName: 'snapshot-pvc' } },
        ]),
      },
    });
    makeReady();
    await eventually(() => expect(graph(NAME)?.status).toMatchObject({ state: 'successful' }));
    expect(condition(NAME, 'WorkersHeld')).toMatchObject({ status: 'False' });
  });

  it('scales restored workers without another template or checkpoint, even while the checkpoint is not there', async () => {
    operate();
    const name = await held();
    setPhase(name, 'Ready');
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 1 }));
    const shaped = template(DEPLOYMENT);
    patchWorker({ replicas: 3 });
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 3 }));
    patchWorker({ replicas: 0 });
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 0 }));
    // Deleted by somebody: it is made anew under the same name, and the workers stay.
    const before = stage.api.remove('dynamocheckpoints', `team/${name}`)?.metadata.uid;
    await eventually(() => expect(checkpoints()[0]?.metadata.uid).not.toBe(before));
    expect(await oneCheckpoint()).toBe(name);
    patchWorker({ replicas: 2 });
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 2 }));
    expect(template(DEPLOYMENT)).toEqual(shaped);
  });

  it('with a failed checkpoint waits loudly; a retry that succeeds starts the workers', async () => {
    operate();
    const name = await held();
    setPhase(name, 'Failed', { message: 'the worker exited with 1' });
    await eventually(() =>
      expect(condition(NAME, 'WorkersHeld')).toMatchObject({ status: 'True', reason: 'CheckpointFailed' }),
    );
    const { message } = condition(NAME, 'WorkersHeld') ?? {};
    expect(message).toContain('the worker exited with 1');
    expect(message).toContain('nvidia.com/dynamo-checkpoint-retry');
    expect(message).toContain('nvidia.com/dynamo-checkpoint-failed-fallback: ColdStart');
    await eventually(() => expect(events()).toContainEqual([NAME, 'Warning', 'CheckpointFailed']));
    expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 0 });
    for (const phase of ['Pending', 'Creating', 'Ready']) setPhase(name, phase, { message: '' });
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 1 }));
    expect(template(DEPLOYMENT).metadata.labels).toMatchObject({ 'nvidia.com/snapshot-checkpoint-id': idOf(name) });
  });

  it.each([
    ['the operator', { failedFallback: 'ColdStart' } as const, {}],
    ['the service', {}, { annotations: { 'nvidia.com/dynamo-checkpoint-failed-fallback': 'ColdStart' } }],
  ])(
    'with a failed checkpoint starts cold where %s says so, and stays so when it is ready after all',
    async (_, config, worker) => {
      operate({ config });
      const name = await held();
      patchWorker(worker);
      setPhase(name, 'Failed');
      await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 1 }));
      await eventually(() => expect(condition(NAME, 'WorkersHeld')).toMatchObject({ status: 'False' }));
      const cold = template(DEPLOYMENT);
      // New pods are restored once it is ready; those that run are left.
      expect(cold.metadata.annotations).toMatchObject({ 'nvidia.com/dynamo-checkpoint-name': name });
      setPhase(name, 'Ready');
      await eventually(() => expect(condition(NAME, 'CheckpointsReady')).toMatchObject({ status: 'True' }));
      expect(template(DEPLOYMENT)).toEqual(cold);
    },
  );

  it('holds workers while there is no storage to restore from, says so, and goes on', async () => {
    let found: StorageFound = { result: 'not-ready', problem: 'no snapshot-agent daemonset found in namespace team' };
    operate({ storage: () => found });
    setPhase(await held(), 'Ready');
    await eventually(() => expect(condition(NAME, 'WorkersHeld')).toMatchObject({ reason: 'StorageNotReady' }));
    expect(condition(NAME, 'WorkersHeld')?.['message']).toContain('no snapshot-agent daemonset');
    expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 0 });
    found = { result: 'ready', storage: { accessMode: 'agentMount', basePath: '/checkpoints', claim: 'pvc' } };
    patchGraph(NAME, { metadata: { labels: { looked: 'again' } } });
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 1 }));
  });

  it('holds workers whose pod cannot be shaped, and says what is in the way', async () => {
    operate();
    const volumes = [{ name: 'checkpoint-storage', emptyDir: {} }];
    setPhase(await held(altered(WAIT, `${AT}.extraPodSpec.volumes`, volumes)), 'Ready');
    await eventually(() => expect(condition(NAME, 'WorkersHeld')).toMatchObject({ reason: 'PodNotRestorable' }));
    expect(condition(NAME, 'CheckpointsReady')?.['message']).toContain('checkpoint-storage');
  });
});

describe('a new generation', () => {
  it('has a checkpoint of its own; the old one is kept while it is the last, and goes once no pod of it is left', async () => {
    runPods();
    operate();
    apply(AUTO);
    const first = await oneCheckpoint();
    await eventually(() => expect(pods(WORKER)).toHaveLength(1));
    patchWorker(withImage('vllm:2'));
    await eventually(() => expect(checkpoints()).toHaveLength(2));
    const second = checkpoints().find(({ metadata }) => metadata.name !== first)?.metadata.name ?? '';
    await eventually(() =>
      expect(graph(NAME)?.status).toMatchObject({
        checkpoints: { [WORKER]: { checkpointName: second, ready: false } },
      }),
    );
    makeReady();
    await eventually(() => expect(pods(WORKER)).toHaveLength(1));
    expect(pods(WORKER)[0]?.metadata.annotations).toMatchObject({ 'nvidia.com/dynamo-checkpoint-name': second });
    expect(checkpoints()).toHaveLength(2);
    // Back to the first: it is there still, and no other is made.
    patchWorker({
      extraPodSpec: (AUTO as typeof AUTO & { spec: { services: Record<string, Json> } }).spec.services[WORKER]?.[
        'extraPodSpec'
      ],
    });
    await eventually(() =>
      expect(graph(NAME)?.status).toMatchObject({ checkpoints: { [WORKER]: { checkpointName: first } } }),
    );
    expect(checkpoints()).toHaveLength(2);
  });

  it('takes away checkpoints beyond those kept, never one that a pod is of', async () => {
    runPods();
    operate({ config: { keptGenerations: 0 } });
    apply(AUTO);
    const first = await oneCheckpoint();
    const metadata = {
      name: 'reader',
      namespace: 'team',
      labels: { 'nvidia.com/snapshot-checkpoint-id': idOf(first) },
    };
    stage.api.put({ kind: 'Pod', metadata, spec: { containers: [{ name: 'main' }] } });
    await eventually(() => expect(pods(WORKER)).toHaveLength(1));
    patchWorker(withImage('vllm:2'));
    await eventually(() => expect(pods(WORKER)).toHaveLength(2));
    makeReady();
    await eventually(() => expect(pods(WORKER)).toHaveLength(1));
    await lookedAt(() => patchGraph(NAME, { metadata: { labels: { looked: 'again' } } }));
    // Its workers are gone, and somebody restores from it.
    expect(checkpoints()).toHaveLength(2);
    // The pod of its own Job goes with it.
    const source = { ...metadata.labels, 'nvidia.com/snapshot-is-checkpoint-source': 'true' };
    const ofJob = { ...metadata, name: 'source', labels: source };
    stage.api.put({ kind: 'Pod', metadata: ofJob, spec: { containers: [{ name: 'main' }] } });
    stage.api.remove('pods', 'team/reader');
    patchGraph(NAME, { metadata: { labels: { looked: 'once more' } } });
    await eventually(() => expect(checkpoints().map((one) => one.metadata.name)).not.toContain(first));
    expect(checkpoints()).toHaveLength(1);
  });

  it('under WaitForCheckpoint waits as the first one did', async () => {
    operate();
    const first = await held();
    setPhase(first, 'Ready');
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 1 }));
    patchWorker(withImage('vllm:2'));
    await eventually(() => expect(deployment(DEPLOYMENT)?.spec).toMatchObject({ replicas: 0 }));
    await eventually(() => expect(checkpoints()).toHaveLength(2));
    const second = checkpoints().find(({ metadata }) => metadata.name !== first)?.metadata.name ?? '';
    setPhase(second, 'Ready');
    await eventually(() =>
      expect(deployment(DEPLOYMENT)?.spec).toMatchObject({
        replicas: 1,
        template: { metadata: { labels: { 'nvidia.com/snapshot-checkpoint-id': idOf(second) } } },
      }),
    );
  });

  it('of an object of the same name that was made anew is not the old one', async () => {
    operate();
    apply(AUTO);
    const first = await oneCheckpoint();
    stage.api.remove('dynamographdeployments', `team/${NAME}`);
    stage.api.remove('dynamocheckpoints', `team/${first}`);
    apply(AUTO);
    await eventually(() => expect(checkpoints()).toHaveLength(1));
    expect(checkpoints()[0]?.metadata.name).not.toBe(first);
  });
});
