import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Json } from '../fakes/kube-api/resources.ts';
import { Desk, waitingSpec } from './snapshotctl-pods/desk.ts';

const ID = 'nvidia.com/snapshot-checkpoint-id';
const SOURCE = 'nvidia.com/snapshot-is-checkpoint-source';
const STATUS = 'nvidia.com/snapshot-restore-status.main';
const CONTAINER = 'nvidia.com/snapshot-restore-container-id.main';
const POD = 'default/worker';
let desk: Desk;

beforeEach(async () => {
  desk = await Desk.open();
  desk.putAgent({ claim: 'snapshots' });
});
afterEach(() => desk.close());

const restore = (args: readonly string[], how = {}) =>
  desk.snapshotctl(['restore', '--checkpoint-id', 'one', '--containers', 'main', ...args], how);
const ofManifest = async (args: readonly string[] = [], how = {}) =>
  restore(['--manifest', await desk.manifest(), ...args], how);
const inPlace = (args: readonly string[] = [], how = {}) => restore(['--pod', 'worker', ...args], how);
const pod = () => desk.api.get('pods', POD) ?? expect.fail('no pod');
/** A pod whose container `abc` waits. */
const putWaiting = ({ spec, ...metadata }: { spec?: Json; labels?: Json; annotations?: Json } = {}) => {
  desk.api.put({ kind: 'Pod', metadata: { name: 'worker', ...metadata }, spec: waitingSpec(spec) });
  desk.kubelet.run(POD, { main: 'abc' }, { isReady: false });
};
const told = (status: string, id = 'abc') => ({ [STATUS]: status, [CONTAINER]: id });
const LINES = [
  'namespace=default',
  'name=worker',
  'restore_pod=worker',
  'checkpoint_id=one',
  'checkpoint_location=/checkpoints/one/versions/1',
  '',
].join('\n');

describe('into a new pod', () => {
  it('is asked for, and no more', async () => {
    expect(await ofManifest()).toEqual({ code: 0, out: `status=requested\n${LINES}`, err: '' });
    const { metadata, spec } = pod();
    expect(metadata.labels).toEqual({ 'nvidia.com/snapshot-is-restore-target': 'true', [ID]: 'one' });
    expect(spec).toMatchObject({
      restartPolicy: 'Never',
      containers: [{ name: 'main', command: ['/usr/local/bin/snapshot-standby'] }],
    });
    expect(await ofManifest()).toEqual({
      code: 1,
      out: '',
      err: 'snapshotctl: restore pod default/worker already exists; delete it, or restore into it with --pod worker\n',
    });
  });

  it('keeps what the manifest says besides', async () => {
    const manifest = await desk.manifest({
      metadata: { generateName: 'w-', labels: { app: 'worker' }, annotations: { note: 'mine' } },
      spec: { restartPolicy: 'Always', priorityClassName: 'high' },
    });
    const { code } = await restore(['--manifest', manifest, '--placeholder', 'sleep', '--seccomp-profile', 'none']);
    expect(code).toBe(0);
    expect(pod().metadata).toMatchObject({
      generateName: 'w-',
      labels: { app: 'worker' },
      annotations: { note: 'mine' },
    });
    expect(pod().spec).toMatchObject({
      restartPolicy: 'Never',
      priorityClassName: 'high',
      securityContext: {},
      containers: [{ command: ['sleep', 'infinity'] }],
    });
  });

  it.each(['json', 'yaml'])('says it as %s, too', async (format) => {
    const { out } = await ofManifest(['-o', format]);
    expect(out).toContain(format === 'json' ? '"status": "requested"' : 'status: "requested"');
  });
});

describe('with --wait', () => {
  it('ends when the pod says so, and shows on a terminal what happens', async () => {
    desk.onCreated('pods', (created) => {
      desk.kubelet.run(POD, { main: 'abc' }, { isReady: false });
      desk.annotate('pods', created, told('in_progress'));
      desk.say(created, 'RestoreRequested', 'restore one begins');
    });
    const onErr = (text: string) =>
      text.includes('RestoreRequested') && desk.annotate('pods', pod(), told('completed'));
    const { code, out, err } = await ofManifest(['--wait'], { isTerminal: true, onErr });
    expect([code, out]).toEqual([0, `status=completed\n${LINES}`]);
    expect(err).toContain('pod default/worker is asked for; waiting for its restore\n');
    expect(err).toContain('pod worker: Running; main runs, not ready\n');
    expect(err).toContain('  RestoreRequested: restore one begins\n');
  });

  it.each([
    ['restore one failed: CUDA_FAILED: no. Do this', 1],
    ['restore one failed: RESTORE_REFUSED: it does not fit. Do that', 3],
  ])('ends with what the agent says of its failure: %s', async (word, exit) => {
    desk.onCreated('pods', (created) => {
      desk.annotate('pods', created, told('failed'));
      desk.say(created, 'RestoreFailed', word);
    });
    expect(await ofManifest(['--wait'])).toEqual({ code: exit, out: '', err: `snapshotctl: ${word}\n` });
  });

  it('waits for every container', async () => {
    const containers = ['main', 'side'].map((name) => ({ name, image: 'worker:1' }));
    const manifest = await desk.manifest({ spec: { containers } });
    desk.onCreated('pods', (created) => desk.annotate('pods', created, told('completed')));
    const args = ['restore', '--checkpoint-id', 'one', '--containers', 'main,side', '--manifest', manifest];
    const { code, err } = await desk.snapshotctl([...args, '--wait', '--timeout', '1s']);
    expect([code, err]).toEqual([
      4,
      expect.stringContaining('is not complete after 1s; it goes on. pod worker: Pending'),
    ]);
  });

  it('sees that the pod ends before', async () => {
    desk.onCreated('pods', () => {
      desk.kubelet.run(POD, { main: 'abc' });
      desk.kubelet.exit(POD, 'main', 143);
    });
    const { code, err } = await ofManifest(['--wait']);
    expect([code, err]).toEqual([
      1,
      'snapshotctl: pod default/worker ended before it was restored. pod worker: Failed; main ended with status 143 (Error)\n',
    ]);
  });

  it('sees that somebody deletes the pod', async () => {
    desk.onCreated('pods', () => desk.api.remove('pods', POD));
    expect(await ofManifest(['--wait'])).toMatchObject({
      code: 1,
      err: 'snapshotctl: pod default/worker was deleted meanwhile\n',
    });
  });

  it('can be interrupted: the pod goes on, and its name is said', async () => {
    const stop = new AbortController();
    const onErr = (text: string) => text.includes('waiting') && stop.abort();
    const { code, err } = await ofManifest(['--wait'], { signal: stop.signal, isTerminal: true, onErr });
    expect(code).toBe(130);
    expect(err).toContain(
      'pod default/worker goes on. To see how far it is:\n  kubectl -n default describe pod worker\n',
    );
    expect(pod().metadata.name).toBe('worker');
  });
});

describe('into a pod that is there', () => {
  it('patches what is to be patched, takes away what is stale, and leaves the rest', async () => {
    putWaiting({
      labels: { app: 'worker', [SOURCE]: 'true', [ID]: 'old' },
      annotations: { note: 'mine', ...told('failed', 'earlier'), 'nvidia.com/snapshot-checkpoint-status': 'completed' },
    });
    const before = pod().spec;
    expect(await inPlace()).toEqual({ code: 0, out: `status=requested\n${LINES}`, err: '' });
    expect(pod().metadata.labels).toEqual({
      app: 'worker',
      'nvidia.com/snapshot-is-restore-target': 'true',
      [ID]: 'one',
    });
    expect(pod().metadata.annotations).toEqual({
      note: 'mine',
      'nvidia.com/snapshot-target-containers': 'main',
      'nvidia.com/snapshot-artifact-version': '1',
    });
    expect(pod().spec).toEqual(before);
  });

  it('looks again where somebody else writes the pod meanwhile', async () => {
    putWaiting();
    const gate = desk.api.gate({ verb: 'patch', resource: 'pods' }, 'request');
    const asked = inPlace();
    const held = await gate.next();
    desk.api.patch('pods', POD, { metadata: { annotations: { note: 'theirs', ...told('failed', 'earlier') } } });
    held.release();
    gate.open();
    expect((await asked).code).toBe(0);
    expect(pod().metadata.annotations).toMatchObject({ note: 'theirs' });
    expect(pod().metadata.annotations).not.toHaveProperty(STATUS);
    expect(desk.api.calls({ verb: 'patch', resource: 'pods' }).map(({ status }) => status)).toEqual([409, 200]);
  });

  it('that belongs to a source of its own does not become one of its Job', async () => {
    putWaiting({ labels: { 'batch.kubernetes.io/job-name': 'its-job', app: 'worker' } });
    expect((await inPlace()).code).toBe(0);
    expect(pod().metadata.labels).toMatchObject({ 'batch.kubernetes.io/job-name': 'its-job' });
  });

  it('does not take what it said before for the answer', async () => {
    putWaiting({ spec: { restartPolicy: 'Always' }, annotations: told('completed') });
    desk.api.patch('pods', POD, { metadata: { annotations: { 'nvidia.com/snapshot-target-containers': 'main' } } });
    const asked = inPlace(['--wait', '--timeout', '20s']);
    const isAsked = () => pod().metadata.labels?.[ID] === 'one';
    await expect.poll(isAsked, { timeout: 5_000 }).toBe(true);
    // The agent repeats what it knows of the container that was restored.
    desk.annotate('pods', pod(), told('completed'));
    desk.api.forgetCalls();
    const looks = () => desk.api.calls({ verb: 'get', resource: 'pods' }).length;
    await expect.poll(looks, { timeout: 10_000 }).toBeGreaterThan(1);
    desk.kubelet.restart(POD, 'main', 'def');
    desk.annotate('pods', pod(), told('failed', 'def'));
    desk.say(pod(), 'RestoreFailed', 'the second one failed');
    expect(await asked).toMatchObject({
      code: 1,
      err:
        'container main of pod default/worker had its attempt (completed), and each container has one: the restore begins when the container restarts\n' +
        'snapshotctl: the second one failed\n',
    });
  });

  it('cannot steer the terminal of whoever asks, whatever it says of itself', async () => {
    const steering = '\u001b]0;owned\u0007\u001b[2J\r\u202e';
    putWaiting({ annotations: { 'nvidia.com/snapshot-storage-base-path': `/${steering}` } });
    const { code, err } = await inPlace();
    expect([code, err]).toEqual([
      2,
      expect.stringContaining('"/\\x1b]0;owned\\x07\\x1b[2J\\r\\u{202e}" is not the base path'),
    ]);
    putWaiting({ spec: { restartPolicy: 'Always' }, annotations: told(steering) });
    const warned = await inPlace();
    expect([warned.code, warned.err]).toEqual([0, expect.stringMatching(/had its attempt \( +\]0;owned +\[2J +\)/)]);
  });

  it.each<[string, () => void, string]>([
    [
      'had its attempt and is not restarted',
      () => putWaiting({ spec: { restartPolicy: 'Never' }, annotations: told('failed') }),
      'container main of pod default/worker had its attempt (failed), and each container has one: it is not restarted (restartPolicy Never), so make a new pod',
    ],
    [
      'is being restored',
      () => putWaiting({ annotations: told('in_progress') }),
      'container main of pod default/worker is being restored just now: wait for its end',
    ],
    [
      'works',
      () => putWaiting({ spec: { containers: [{ name: 'main' }] } }),
      'restore target pod default/worker is not snapshot-compatible: missing snapshot-control mount at /snapshot-control on container "main"',
    ],
    [
      'has another profile',
      () => putWaiting({ spec: { securityContext: {} } }),
      'restore target pod default/worker is not snapshot-compatible: missing localhost seccomp profile',
    ],
    [
      'has ended',
      () => {
        putWaiting({ spec: { restartPolicy: 'Never' } });
        desk.kubelet.exit(POD, 'main', 0);
      },
      'restore target pod default/worker has ended (Succeeded)',
    ],
    [
      'is being deleted',
      () => {
        putWaiting();
        desk.api.delete('pods', POD);
      },
      'restore target pod default/worker is being deleted',
    ],
  ])('refuses one that %s, and changes nothing', async (_, put, message) => {
    put();
    const before = pod();
    expect(await inPlace()).toEqual({ code: 3, out: '', err: `snapshotctl: ${message}\n` });
    expect(pod()).toEqual(before);
  });

  it('needs the volume of the claim where only pods mount it', async () => {
    desk.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'mine' } });
    putWaiting();
    const { code, err } = await inPlace(['--pvc-name', 'mine', '--base-path', '/volume']);
    expect([code, err]).toEqual([3, expect.stringContaining('missing checkpoint-storage volume for PVC mine\n')]);
  });
});

describe('what is refused', () => {
  it.each([
    [['--checkpoint-id', 'one'], 'must specify exactly one of --manifest or --pod'],
    [['--checkpoint-id', 'one', '--pod', 'a', '--manifest', 'b'], 'must specify exactly one of --manifest or --pod'],
    [['--pod', 'a'], 'missing required flags: --checkpoint-id'],
    [['--pod', 'a', '--checkpoint-id', 'tmp'], '--checkpoint-id "tmp" is the reserved name "tmp"'],
    [['--pod', 'a', '--checkpoint-id', 'one', '--timeout', '0s'], '--timeout must be greater than zero'],
    [['--pod', 'a', '--checkpoint-id', 'one', 'word'], 'unexpected arguments: [word]'],
    [['--pod', 'gone', '--checkpoint-id', 'one'], 'there is no pod default/gone'],
    [['--pod', 'a', '--checkpoint-id', 'one', '--placeholder', 'none'], "argument 'none' is invalid"],
  ])('%j', async (args, message) => {
    const { code, out, err } = await desk.snapshotctl(['restore', ...args]);
    expect([code, out, err]).toEqual([2, '', expect.stringContaining(message)]);
  });

  it('targets that nobody names, or that are named differently', async () => {
    const key = 'nvidia.com/snapshot-target-containers';
    putWaiting();
    const asked = ['restore', '--pod', 'worker', '--checkpoint-id', 'one'];
    expect((await desk.snapshotctl(asked)).err).toContain(
      `target containers are required: pass --container(s) or set ${key}`,
    );
    desk.annotate('pods', pod(), { [key]: 'other' });
    expect((await desk.snapshotctl([...asked, '--containers', 'main'])).err).toContain(
      `--container(s) flag "main" does not match manifest ${key} "other"; pass one or the other`,
    );
  });
});
