import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SCOPED_ANNOTATIONS, SENTINELS } from '../../contract/keys.ts';
import { restorePod } from '../../contract/restore-pod.ts';
import { SECCOMP_PROFILE } from '../../contract/seccomp.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import { specOf } from './environment/pod-object.ts';
import { becomesReady, isReady, keyOf, NAMESPACE, restoreStatus } from './kubernetes-scenario.ts';
import { artifactPath, controlDirectory, freshName } from './scenario.ts';
import { goesOn, Person, putDaemonSet, type Ran, sourcePodKey, workerPod } from './snapshotctl-scenario.ts';

/** `snapshotctl checkpoint` and `restore` beside an agent that mounts the volume itself (agentMount). */
let kube: KubeNode;
let person: Person;
/** A checkpoint that several tests restore, and the digest of its worker's memory. */
let checkpoint: Ran;
let digest: unknown;

beforeAll(async () => {
  kube = await KubeNode.start();
  await becomesReadyToWork(await kube.startAgent());
  putDaemonSet(kube, { claim: 'checkpoints' });
  person = await Person.beside(kube);
  const running = person.snapshotctl(
    'checkpoint',
    '--manifest',
    await person.manifest('first'),
    '-n',
    NAMESPACE,
    '--container',
    'main',
  );
  digest = (await (await kube.container(sourcePodKey('first'))).ready())['digest'];
  checkpoint = await running;
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

const restore = (...args: readonly string[]) =>
  person.snapshotctl('restore', '-n', NAMESPACE, '--containers', 'main', ...args);

test('a checkpoint of a manifest says where it is, and it is there', async () => {
  const id = checkpoint.result['checkpoint_id'] ?? '';
  expect(checkpoint).toMatchObject({ code: 0, stderr: '' });
  expect(id).toMatch(/^manual-snapshot-\d{19}$/);
  expect(checkpoint.stdout).toBe(
    [
      'status=completed',
      'namespace=demo',
      'name=first',
      'checkpoint_job=first-checkpoint',
      `checkpoint_id=${id}`,
      `checkpoint_location=/checkpoints/${id}/versions/1`,
      '',
    ].join('\n'),
  );
  expect(existsSync(join(artifactPath(kube.cluster.volume, { id, version: '1' }), 'manifest.yaml'))).toBe(true);
});

describe('a restore', () => {
  const id = () => checkpoint.result['checkpoint_id'] ?? '';

  test.each(['standby', 'sleep'])('into a new pod that waits as %s: it goes on, and is ready', async (placeholder) => {
    const name = freshName('second');
    const manifest = await person.manifest(name);
    const ran = await restore('--manifest', manifest, '--checkpoint-id', id(), '--placeholder', placeholder, '--wait');
    expect(ran).toMatchObject({ code: 0, stderr: '' });
    expect(ran.result).toMatchObject({ status: 'completed', name, restore_pod: name, checkpoint_id: id() });
    await goesOn(await kube.container(keyOf(name)), digest);
    await becomesReady(kube, keyOf(name));
    await kube.deletePod(keyOf(name));
  });

  test.each(['standby', 'sleep'])(
    'of a worker without probes, which removes the sentinel at once: waiting as %s it has started from then on, never before',
    async (placeholder) => {
      const name = freshName('unprobed');
      await restore(
        '--manifest',
        await person.manifest(name),
        '--checkpoint-id',
        'later',
        '--placeholder',
        placeholder,
      );
      const container = await kube.container(keyOf(name));
      const { startupProbe } = specOf(kube.api.get('pods', keyOf(name)) ?? expect.fail('no pod')).containers[0] ?? {};
      const { command } = startupProbe?.exec ?? expect.fail('no probe');
      const isStarted = async () => (await container.probe(command, 5)).exitCode === 0;
      expect([await isStarted(), isReady(kube, keyOf(name))]).toEqual([false, false]);
      expect(await restore('--pod', name, '--checkpoint-id', id(), '--wait')).toMatchObject({ code: 0 });
      await goesOn(await kube.container(keyOf(name)), digest);
      // The worker has removed it: what the probe finds is what stays.
      expect(existsSync(join(controlDirectory(container), SENTINELS.restored))).toBe(false);
      expect([await isStarted(), await isStarted()]).toEqual([true, true]);
      await becomesReady(kube, keyOf(name));
      await kube.deletePod(keyOf(name));
    },
  );

  test('into a pod that waits for an artifact that nobody makes: asked anew, in place, it gets the one that is there', async () => {
    const name = freshName('waiting');
    const asked = await restore('--manifest', await person.manifest(name), '--checkpoint-id', 'nobody-makes-it');
    expect(asked).toMatchObject({ code: 0, stderr: '', result: { status: 'requested' } });
    const late = await restore('--pod', name, '--checkpoint-id', 'nor-this-one', '--wait', '--timeout', '2s');
    expect(late.code).toBe(4);
    expect(late.stderr).toContain(
      `the restore into pod demo/${name} is not complete after 2s; it goes on. pod ${name}: Running`,
    );
    const ran = await restore('--pod', name, '--checkpoint-id', id(), '--wait');
    expect(ran).toMatchObject({ code: 0, stderr: '', result: { status: 'completed', restore_pod: name } });
    await goesOn(await kube.container(keyOf(name)), digest);
    const again = await restore('--pod', name, '--checkpoint-id', id());
    expect(again.code).toBe(3);
    expect(again.stderr).toContain(`container main of pod demo/${name} had its attempt (completed)`);
    await kube.deletePod(keyOf(name));
  });

  test('that failed can be asked for again: the container after it is restored, and nothing stale is left', async () => {
    const name = freshName('again');
    const broken = freshName('broken');
    const path = artifactPath(kube.cluster.volume, { id: broken, version: '1' });
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, 'no directory');
    onTestFinished(() => rmSync(path));
    const storage = { accessMode: 'agentMount', basePath: '/checkpoints', claim: undefined } as const;
    const request = {
      checkpointId: broken,
      version: '1',
      targets: ['main'],
      storage,
      seccompProfile: SECCOMP_PROFILE,
    };
    const waiting = restorePod(workerPod(name, { spec: { restartPolicy: 'Always' } }), request);
    // As it is before anybody asks.
    kube.api.put({ ...waiting, metadata: { name, namespace: NAMESPACE } });
    const first = await kube.container(keyOf(name));

    const failed = await restore('--pod', name, '--checkpoint-id', broken, '--wait');
    expect(failed.code).toBe(1);
    expect(failed.stderr).toContain('STORAGE_UNSAFE');
    const running = restore('--pod', name, '--checkpoint-id', id(), '--wait');
    const isAsked = () =>
      kube.api.get('pods', keyOf(name))?.metadata.labels?.['nvidia.com/snapshot-checkpoint-id'] === id();
    await eventually('the request', () => isAsked() || undefined);
    await first.stop();
    const ran = await running;
    expect(ran).toMatchObject({ code: 0, result: { status: 'completed' } });
    expect(ran.stderr).toContain(
      'had its attempt (failed), and each container has one: the restore begins when the container restarts',
    );
    const second = await kube.container(keyOf(name));
    expect(second.id).not.toBe(first.id);
    expect(restoreStatus(kube.api.get('pods', keyOf(name)))).toEqual({ status: 'completed', containerId: second.id });
    const { annotations = {} } = kube.api.get('pods', keyOf(name))?.metadata ?? {};
    const said = Object.keys(annotations).filter((key) => key.startsWith(SCOPED_ANNOTATIONS.restoreStatus));
    expect(said).toEqual([`${SCOPED_ANNOTATIONS.restoreStatus}main`]);
    await goesOn(await kube.container(keyOf(name)), digest);
    await kube.deletePod(keyOf(name));
  });
});

test('a worker that fails: the Job is left for a look, and the agent says why', async () => {
  const name = freshName('failing');
  const manifest = await person.manifest(name, { container: { command: ['sh', '-c', 'exit 3'] } });
  const ran = await person.snapshotctl('checkpoint', '--manifest', manifest, '-n', NAMESPACE, '--container', 'main');
  expect(ran).toMatchObject({ code: 1, stdout: '' });
  expect(ran.stderr).toContain('main with status 3');
  expect(ran.stderr).toContain(`job demo/${name}-checkpoint is left for a look`);
  expect(kube.api.get('jobs', keyOf(`${name}-checkpoint`))).toBeDefined();
  const again = await person.snapshotctl('checkpoint', '--manifest', manifest, '-n', NAMESPACE, '--container', 'main');
  expect(again.stderr).toContain(`checkpoint job demo/${name}-checkpoint already exists`);
});
