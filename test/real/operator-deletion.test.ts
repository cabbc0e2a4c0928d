import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATIONS } from '../../contract/keys.ts';
import { FINALIZER } from '../../operator/deletion/policy.ts';
import type { Json } from '../fakes/kube-api/resources.ts';
import { CriuGate } from './environment/criu-gate.ts';
import { keyOf } from './kubernetes-scenario.ts';
import { automaticGraph, referringGraph, sample, wasRestored } from './operator-samples.ts';
import { OperatedCluster } from './operator-scenario.ts';

/** What becomes of artifacts when what they were made for is deleted; the operator asks the real agent. */
let cluster: OperatedCluster;
let criu: CriuGate;

beforeAll(async () => {
  cluster = await OperatedCluster.start({
    agent: async (one) => {
      criu = await CriuGate.make(one);
      return criu.agent;
    },
  });
  await cluster.startOperator();
  await cluster.isUp();
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.kube.cluster.leftovers()).toEqual([]);
});

/** A DynamoCheckpoint of the sample with an identity, and so an artifact, of its own. */
function apply(name: string, annotations = {}, on = cluster): void {
  const { spec, ...object } = sample('dynamocheckpoint.yaml', name);
  const identity = { ...(spec['identity'] as Json), model: name };
  on.apply({ ...object, metadata: { ...object.metadata, annotations }, spec: { ...spec, identity } });
}

const gone = (name: string) =>
  cluster.waitFor(`that ${name} is gone`, () => (cluster.checkpoint(name) === undefined ? true : undefined));

describe('an automatic checkpoint', () => {
  test('goes with its DynamoGraphDeployment, and its artifact with it', async () => {
    cluster.apply(automaticGraph('short', 'Immediate'));
    const { name, id } = await cluster.checkpointed('short');
    expect(cluster.checkpoint(name)?.metadata.finalizers).toEqual([FINALIZER]);
    expect(cluster.hasArtifact(id)).toBe(true);
    cluster.api.delete('dynamographdeployments', keyOf('short'));
    await gone(name);
    expect(cluster.hasArtifact(id)).toBe(false);
    await cluster.waitFor('the end of its pods', () => (cluster.pods('short').length === 0 ? true : undefined));
    expect(cluster.api.list('jobs')).toEqual([]);
  });
});

test('an artifact that is to be deleted stays while a restore reads it, and the restored worker lives on', async () => {
  apply('read', { [ANNOTATIONS.deletionPolicy]: 'Delete' });
  const { checkpointID } = await cluster.phase('read', 'Ready');
  const id = String(checkpointID);
  await criu.hold('restore');
  cluster.apply(referringGraph('reader', 'read'));
  await criu.reached('restore');
  cluster.api.delete('dynamocheckpoints', keyOf('read'));
  // Some looks later than it would take.
  await sleep(2_500);
  expect(cluster.checkpoint('read')?.metadata.finalizers).toContain(FINALIZER);
  expect(cluster.hasArtifact(id)).toBe(true);
  await criu.release('restore');
  const [pod = ''] = await cluster.ready('reader', 1);
  await wasRestored(await cluster.kube.container(keyOf(pod)), pod);
  await gone('read');
  expect(cluster.hasArtifact(id)).toBe(false);
  expect(await cluster.ready('reader', 1)).toEqual([pod]);
});

test('a DynamoCheckpoint of a person keeps its artifact', async () => {
  apply('kept');
  const { checkpointID } = await cluster.phase('kept', 'Ready');
  cluster.api.delete('dynamocheckpoints', keyOf('kept'));
  await gone('kept');
  expect(cluster.hasArtifact(String(checkpointID))).toBe(true);
});

test('where no agent can be called, annotations alone do: the artifact is not verified, and a Job deletes it', async () => {
  const alone = await OperatedCluster.start({ areAgentsCalled: false });
  try {
    await alone.startOperator();
    await alone.isUp();
    apply('alone', { [ANNOTATIONS.deletionPolicy]: 'Delete' }, alone);
    const { checkpointID, conditions } = await alone.phase('alone', 'Ready');
    const verified = expect.objectContaining({ type: 'ArtifactVerified', status: 'Unknown' });
    expect(conditions).toContainEqual(verified);
    expect(alone.hasArtifact(String(checkpointID))).toBe(true);
    alone.api.delete('dynamocheckpoints', keyOf('alone'));
    await alone.waitFor('that it is gone', () => (alone.checkpoint('alone') === undefined ? true : undefined));
    expect(alone.hasArtifact(String(checkpointID))).toBe(false);
  } finally {
    await alone.stop();
  }
});
