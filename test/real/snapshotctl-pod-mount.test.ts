import { existsSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ANNOTATIONS } from '../../contract/keys.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { KubeNode } from './environment/kube-node.ts';
import { becomesReady, keyOf, NAMESPACE } from './kubernetes-scenario.ts';
import { artifactPath, freshName } from './scenario.ts';
import { goesOn, Person, putDaemonSet, sourcePodKey } from './snapshotctl-scenario.ts';

/** `snapshotctl checkpoint` and `restore` where only the pods mount the volume (podMount). */
let kube: KubeNode;
let person: Person;

beforeAll(async () => {
  kube = await KubeNode.start();
  await becomesReadyToWork(await kube.startAgent({ accessMode: 'podMount' }));
  putDaemonSet(kube);
  kube.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'checkpoints', namespace: NAMESPACE }, spec: {} });
  person = await Person.beside(kube);
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

const CLAIM = ['--storage', 'pvc', '--pvc-name', 'checkpoints', '--base-path', '/checkpoints'];
const OF_MAIN = ['-n', NAMESPACE, ...CLAIM];

test('without a claim it says which flags are missing, and creates nothing', async () => {
  const name = freshName('claimless');
  const ran = await person.snapshotctl(
    'checkpoint',
    '--manifest',
    await person.manifest(name),
    '-n',
    NAMESPACE,
    '--container',
    'main',
  );
  expect(ran).toMatchObject({ code: 2, stdout: '' });
  expect(ran.stderr).toContain(
    'agent demo/snapshot-agent reaches artifacts through the pods (podMount): pass --storage pvc, --pvc-name',
  );
  expect(kube.api.list('jobs')).toEqual([]);
});

test('a checkpoint lies on the claim of its pod, and is restored from there: into a new pod, and into one that waits', async () => {
  const name = freshName('worker');
  const id = freshName('named');
  const manifest = await person.manifest(name);
  const running = person.snapshotctl(
    'checkpoint',
    '--manifest',
    manifest,
    ...OF_MAIN,
    '--container',
    'main',
    '--checkpoint-id',
    id,
  );
  const { digest } = await (await kube.container(sourcePodKey(name))).ready();
  expect(await running).toMatchObject({
    code: 0,
    stderr: '',
    result: { status: 'completed', checkpoint_location: `/checkpoints/${id}/versions/1` },
  });
  expect(existsSync(artifactPath(kube.cluster.volume, { id, version: '1' }))).toBe(true);

  const restore = (...args: readonly string[]) =>
    person.snapshotctl('restore', ...OF_MAIN, '--containers', 'main', ...args);
  expect(await restore('--manifest', manifest, '--checkpoint-id', id, '--wait')).toMatchObject({ code: 0, stderr: '' });
  expect(kube.api.get('pods', keyOf(name))?.metadata.annotations).toMatchObject({
    [ANNOTATIONS.storageType]: 'pvc',
    [ANNOTATIONS.storageBasePath]: '/checkpoints',
  });
  await goesOn(await kube.container(keyOf(name)), digest);
  await becomesReady(kube, keyOf(name));

  const waiting = freshName('waiting');
  await restore('--manifest', await person.manifest(waiting), '--checkpoint-id', 'nobody-makes-it');
  expect(await restore('--pod', waiting, '--checkpoint-id', id, '--wait')).toMatchObject({ code: 0, stderr: '' });
  await goesOn(await kube.container(keyOf(waiting)), digest);
  await kube.deletePod(keyOf(name));
  await kube.deletePod(keyOf(waiting));
});
