import { afterAll, beforeAll, expect, test } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import type { Json } from '../fakes/kube-api/resources.ts';
import { keyOf } from './kubernetes-scenario.ts';
import { automaticGraph, wasRestored, wasStartedCold } from './operator-samples.ts';
import { OperatedCluster } from './operator-scenario.ts';

/** The automatic flow of the original: checkpoints of worker generations, with both startup policies, and the numbers of workers. */
let cluster: OperatedCluster;

beforeAll(async () => {
  cluster = await OperatedCluster.start();
  await cluster.startOperator();
  await cluster.isUp();
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.kube.cluster.leftovers()).toEqual([]);
});

const SERVICE = 'SampleWorker';
const SCALE = (replicas: number) => ({ spec: { services: { [SERVICE]: { replicas } } } });

function patch(name: string, body: Json): void {
  cluster.api.patch('dynamographdeployments', keyOf(name), body);
}

const automatic = () => cluster.api.list('dynamocheckpoints').map(({ metadata }) => metadata.name);

test('Immediate: workers start cold while their checkpoint is made; pods that are made later are restored by the webhook', async () => {
  cluster.apply(automaticGraph('immediate', 'Immediate'));
  const [cold = ''] = await cluster.ready('immediate', 1);
  const { name, id } = await cluster.checkpointed('immediate');
  expect(cluster.checkpoint(name)?.status).toMatchObject({ phase: 'Ready', checkpointID: id });
  expect(cluster.hasArtifact(id)).toBe(true);
  const container = await cluster.kube.container(keyOf(cold));
  wasStartedCold(container);
  const before = cluster.api.get('pods', keyOf(cold));
  expect(before?.metadata.annotations).toMatchObject({ [ANNOTATIONS.restoreCandidate]: 'true' });

  patch('immediate', SCALE(2));
  const [same, second = ''] = await cluster.ready('immediate', 2);
  expect(same).toBe(cold);
  await wasRestored(await cluster.kube.container(keyOf(second)), second);
  // Nobody touched the one that was there.
  expect((await cluster.kube.container(keyOf(cold))).id).toBe(container.id);
  expect(cluster.api.get('pods', keyOf(cold))?.spec).toEqual(before?.spec);
  expect(cluster.api.get('pods', keyOf(cold))?.metadata.annotations).toEqual(before?.metadata.annotations);
  expect(cluster.jobs(id)).toHaveLength(1);
});

test('down and up again is the same checkpoint, and all that is new is restored', async () => {
  const { id, name } = await cluster.checkpointed('immediate');
  patch('immediate', SCALE(0));
  await cluster.ready('immediate', 0);
  patch('immediate', SCALE(2));
  for (const pod of await cluster.ready('immediate', 2))
    await wasRestored(await cluster.kube.container(keyOf(pod)), pod);
  expect(await cluster.checkpointed('immediate')).toEqual({ id, name });
  expect([automatic(), cluster.jobs(id).length]).toEqual([[name], 1]);
});

test('another template is another generation, with a checkpoint of its own; what is restored is never of the one before', async () => {
  const first = await cluster.checkpointed('immediate');
  const mainContainer = { env: [{ name: 'MODEL_MIB', value: '8' }] };
  patch('immediate', { spec: { services: { [SERVICE]: { replicas: 1, extraPodSpec: { mainContainer } } } } });
  const second = await cluster.checkpointed('immediate', first.id);
  expect(second.id).not.toBe(first.id);
  const [cold = ''] = await cluster.ready('immediate', 1);
  wasStartedCold(await cluster.kube.container(keyOf(cold)));
  patch('immediate', SCALE(2));
  const [, restored = ''] = await cluster.ready('immediate', 2);
  expect(cluster.api.get('pods', keyOf(restored))?.metadata.labels).toMatchObject({ [LABELS.checkpointId]: second.id });
  await wasRestored(await cluster.kube.container(keyOf(restored)), restored);
});

test('WaitForCheckpoint: no worker until the checkpoint is ready, and then only restored ones', async () => {
  const most: number[] = [];
  const deployment = () => cluster.api.get('deployments', keyOf('waiting-sampleworker'));
  const stop = cluster.api.onChange('deployments', ({ metadata: { name }, spec }) => {
    const isEarly = cluster.checkpoint(cluster.inspected('waiting')[0] ?? '')?.status?.['phase'] !== 'Ready';
    if (name === 'waiting-sampleworker' && isEarly) most.push(Number(spec?.['replicas']));
  });
  cluster.apply(automaticGraph('waiting', 'WaitForCheckpoint'));
  await cluster.waitFor('a Deployment that waits', () => (deployment()?.spec?.['replicas'] === 0 ? true : undefined));
  const { conditions } = (cluster.graph('waiting')?.status ?? {}) as { conditions: Json[] };
  expect(conditions).toContainEqual(expect.objectContaining({ type: 'WorkersHeld', status: 'True' }));
  const { id } = await cluster.checkpointed('waiting');
  const [pod = ''] = await cluster.ready('waiting', 1);
  stop();
  await wasRestored(await cluster.kube.container(keyOf(pod)), pod);
  expect([...new Set(most)]).toEqual([0]);
  expect(cluster.jobs(id)).toHaveLength(1);
});
