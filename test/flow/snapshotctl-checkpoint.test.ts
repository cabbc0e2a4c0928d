import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { completeJob, failJob, startJobPod } from '../fakes/kube-api/job-controller.ts';
import { Desk } from './snapshotctl-pods/desk.ts';

const STATUS = 'nvidia.com/snapshot-checkpoint-status';
const JOB = 'default/worker-checkpoint';
let desk: Desk;

beforeEach(async () => {
  desk = await Desk.open();
  desk.putAgent({ claim: 'snapshots' });
});
afterEach(() => desk.close());

const checkpoint = async (args: readonly string[] = [], how = {}) =>
  desk.snapshotctl(['checkpoint', '--manifest', await desk.manifest(), '--container', 'main', ...args], how);
/** The agent and the Job controller do what is theirs to every Job: its pod has the name of the Job and `-pod`. */
const succeed = () => desk.onCreated('jobs', (job) => desk.annotate('jobs', job, { [STATUS]: 'completed' }));
const run = (then: (podKey: string) => void) =>
  desk.onCreated('jobs', ({ metadata: { namespace, name } }) => {
    const pod = startJobPod(desk.api, `${namespace}/${name}`, `${name}-pod`);
    then(`${namespace}/${pod.metadata.name}`);
  });
const complete = () => desk.api.patch('jobs', JOB, { metadata: { annotations: { [STATUS]: 'completed' } } });
const podOf = (key: string) => desk.api.get('pods', key) ?? expect.fail(`no pod ${key}`);

describe('a checkpoint that succeeds', () => {
  const LINES = [
    'status=completed',
    'namespace=default',
    'name=worker',
    'checkpoint_job=worker-checkpoint',
    'checkpoint_id=one',
    'checkpoint_location=/checkpoints/one/versions/1',
  ];

  it('prints where it is, as lines or for programs, and nothing else', async () => {
    succeed();
    const made = await checkpoint(['--checkpoint-id', 'one']);
    expect(made).toEqual({ code: 0, out: `${LINES.join('\n')}\n`, err: '' });
    const object = Object.fromEntries(LINES.map((line) => line.split('=')));
    desk.api.remove('jobs', JOB);
    expect(JSON.parse((await checkpoint(['--checkpoint-id', 'one', '-o', 'json'])).out)).toEqual(object);
    desk.api.remove('jobs', JOB);
    expect(parse((await checkpoint(['-checkpoint-id=one', '-o', 'yaml'])).out)).toEqual(object);
  });

  it('has made the Job of the manifest', async () => {
    succeed();
    await checkpoint(['--cuda-checkpoint-wrap', '--disable-cuda-checkpoint-job-file']).then(({ code, err }) => {
      expect([code, err]).toEqual([2, expect.stringContaining('checkpoint job requires container.command')]);
    });
    const manifest = await desk.manifest({
      metadata: { annotations: { 'nvidia.com/snapshot-target-containers': 'main' } },
      container: { command: ['serve'] },
    });
    const flags = ['--cuda-checkpoint-wrap', '--disable-cuda-checkpoint-job-file', '--seccomp-profile', 'none'];
    const { code, err } = await desk.snapshotctl(['checkpoint', '--manifest', manifest, ...flags]);
    expect(code).toBe(0);
    expect(err).toBe(
      '--disable-cuda-checkpoint-job-file does nothing: only --cuda-checkpoint-wrap wraps the command\n',
    );
    const { template, backoffLimit } = (desk.api.get('jobs', JOB)?.spec ?? {}) as {
      template: object;
      backoffLimit: number;
    };
    expect(backoffLimit).toBe(0);
    expect(template).toMatchObject({
      metadata: { labels: { 'nvidia.com/snapshot-checkpoint-id': expect.stringMatching(/^manual-snapshot-\d{19}$/) } },
      spec: {
        securityContext: {},
        containers: [{ name: 'main', command: ['cuda-checkpoint'], args: ['--launch-job', 'serve'] }],
      },
    });
  });

  it.each([
    [['-n', 'flagged'], { namespace: 'written' }, 'flagged'],
    [[], { namespace: 'written' }, 'written'],
    [[], {}, 'default'],
  ])(
    'is made in the namespace of the flag, else of the manifest, else of the context: %j %j',
    async (flags, metadata, namespace) => {
      desk.putAgent({ namespace, claim: 'snapshots' });
      succeed();
      const manifest = await desk.manifest({ metadata });
      const { code, out } = await desk.snapshotctl([
        'checkpoint',
        '--manifest',
        manifest,
        '--container',
        'main',
        ...flags,
      ]);
      expect([code, out]).toEqual([0, expect.stringContaining(`namespace=${namespace}\n`)]);
      expect(desk.api.get('jobs', `${namespace}/worker-checkpoint`)).toBeDefined();
    },
  );

  it('shows on a terminal what happens, each thing once', async () => {
    run((podKey) => desk.kubelet.admit(podKey));
    const podKey = `${JOB}-pod`;
    const turns: [string, () => void][] = [
      ['ContainerCreating', () => desk.kubelet.run(podKey, { main: 'abc' }, { isReady: true })],
      ['is ready', () => desk.say(podOf(podKey), 'CheckpointRequested', 'checkpoint one begins')],
      ['CheckpointRequested', () => complete()],
    ];
    // Each thing happens when the one before it was shown.
    const onErr = (text: string) => {
      if (turns[0] !== undefined && text.includes(turns[0][0])) turns.shift()?.[1]();
    };
    const { code, err } = await checkpoint([], { isTerminal: true, onErr });
    expect(code).toBe(0);
    expect(err.split('\n')).toEqual([
      'job default/worker-checkpoint is created; waiting for its checkpoint',
      'pod worker-checkpoint-pod: Pending; main waits (ContainerCreating)',
      'pod worker-checkpoint-pod: Running; main is ready',
      '  CheckpointRequested: checkpoint one begins',
      '',
    ]);
  });

  it('bears an API server that is away for a while, and says so once', async () => {
    const fault = desk.api.fault(
      { verb: 'get', resource: 'jobs' },
      { kind: 'refuse', code: 503, message: 'not now' },
      { times: 2 },
    );
    const onErr = () => complete();
    const { code, err } = await checkpoint([], { onErr });
    fault.lift();
    expect(code).toBe(0);
    expect(err).toMatch(/^the API server does not answer, asking on: GET \S+: 503: not now\n$/);
  });

  it('needs no right to look at pods and Events: they are only shown', async () => {
    desk.api.fault({ verb: 'list', resource: 'pods' }, { kind: 'forbidden' });
    run(() => setTimeout(complete, 500));
    const { code, err } = await checkpoint([], { isTerminal: true });
    expect([code, err]).toEqual([0, 'job default/worker-checkpoint is created; waiting for its checkpoint\n']);
  });

  it('is one though its Job cannot be deleted, which is said', async () => {
    succeed();
    desk.api.fault({ verb: 'delete', resource: 'jobs' }, { kind: 'forbidden' });
    const { code, out, err } = await checkpoint(['--cleanup']);
    expect([code, out]).toEqual([0, expect.stringContaining('status=completed')]);
    expect(err).toContain('job default/worker-checkpoint is not deleted: DELETE');
  });

  it('is gone with its Job where that is wished', async () => {
    succeed();
    expect((await checkpoint(['--cleanup'])).code).toBe(0);
    expect(desk.api.get('jobs', JOB)).toBeUndefined();
  });
});

describe('a checkpoint that does not', () => {
  const fail = (word: string) =>
    run((podKey) => {
      desk.kubelet.run(podKey, { main: 'abc' });
      desk.say(podOf(podKey), 'CheckpointFailed', word);
      desk.api.patch('jobs', JOB, { metadata: { annotations: { [STATUS]: 'failed' } } });
    });

  it('ends with what the agent says of it, and leaves the Job for a look', async () => {
    fail('checkpoint one failed: CRIU_DUMP_FAILED: it did not\nwork. Look at the log');
    expect(await checkpoint()).toEqual({
      code: 1,
      out: '',
      err:
        'job default/worker-checkpoint is left for a look; delete it before the next try (or pass --cleanup)\n' +
        'snapshotctl: checkpoint one failed: CRIU_DUMP_FAILED: it did not work. Look at the log\n',
    });
    expect(await checkpoint()).toEqual({
      code: 1,
      out: '',
      err: 'snapshotctl: checkpoint job default/worker-checkpoint already exists; look at it, then delete it: kubectl -n default delete job worker-checkpoint\n',
    });
  });

  it('takes its Job away where that is wished', async () => {
    fail('it failed');
    expect(await checkpoint(['--cleanup'])).toMatchObject({ code: 1, err: 'snapshotctl: it failed\n' });
    expect(desk.api.get('jobs', JOB)).toBeUndefined();
  });

  it('says where the pod stands where the agent says nothing', async () => {
    run((podKey) => {
      desk.kubelet.run(podKey, { main: 'abc' });
      desk.kubelet.exit(podKey, 'main', 3);
      failJob(desk.api, JOB, 'worker-checkpoint-pod');
    });
    const { code, err } = await checkpoint();
    expect(code).toBe(1);
    expect(err).toContain(
      'job default/worker-checkpoint failed: BackoffLimitExceeded: Job has reached the specified backoff limit. pod worker-checkpoint-pod: Failed; main ended with status 3 (Error)',
    );
  });

  it('is no success because the Job completes: a worker that ended by itself was not checkpointed', async () => {
    run((podKey) => {
      desk.kubelet.run(podKey, { main: 'abc' });
      desk.kubelet.exit(podKey, 'main', 0);
      completeJob(desk.api, JOB, 'worker-checkpoint-pod');
    });
    const { code, err } = await checkpoint();
    expect(code).toBe(1);
    expect(err).toContain('ended without a checkpoint: its containers exited before the agent made one');
  });

  it('in time: says so, and what the pod waits for', async () => {
    run((podKey) => desk.kubelet.admit(podKey));
    const { code, err } = await checkpoint(['--timeout', '1s']);
    expect(code).toBe(4);
    expect(err).toContain(
      'snapshotctl: the checkpoint of job default/worker-checkpoint is not complete after 1s. pod worker-checkpoint-pod: Pending; main waits (ContainerCreating)\n',
    );
  });

  it('in time, and its Job is to go', async () => {
    run((podKey) => desk.kubelet.admit(podKey));
    const { code, err } = await checkpoint(['--timeout', '1s', '--cleanup']);
    expect([code, err]).toEqual([4, expect.not.stringContaining('goes on')]);
    expect(desk.api.get('jobs', JOB)).toBeUndefined();
  });

  it('because the answer was lost: says that the Job may be there', async () => {
    desk.api.fault({ verb: 'create', resource: 'jobs' }, { kind: 'reset', at: 'answer' });
    const { code, err } = await checkpoint();
    expect([code, err]).toEqual([
      5,
      expect.stringContaining(
        'job default/worker-checkpoint may have been made all the same: look before the next try',
      ),
    ]);
  });

  it('because somebody deleted the Job', async () => {
    desk.onCreated('jobs', () => desk.api.remove('jobs', JOB));
    const { code, err } = await checkpoint();
    expect([code, err]).toEqual([
      1,
      expect.stringContaining('checkpoint job default/worker-checkpoint was deleted meanwhile'),
    ]);
  });

  it('because somebody interrupts it: the Job goes on, and its name is said', async () => {
    const stop = new AbortController();
    desk.onCreated('jobs', () => stop.abort());
    const { code, err } = await checkpoint([], { signal: stop.signal });
    expect(code).toBe(130);
    expect(err).toBe(
      [
        'job default/worker-checkpoint goes on. To see how far it is, or to end it:',
        "  kubectl -n default get job worker-checkpoint -o jsonpath='{.metadata.annotations}'",
        '  kubectl -n default delete job worker-checkpoint',
        'snapshotctl: interrupted',
        '',
      ].join('\n'),
    );
    expect(desk.api.get('jobs', JOB)).toBeDefined();
  });

  it('because there is no API server', async () => {
    await desk.api.goAway();
    const { code, err } = await checkpoint();
    expect([code, err]).toEqual([5, expect.stringContaining('ECONNREFUSED')]);
    await desk.api.comeBack();
  });
});

describe('what is refused before anything is created', () => {
  afterEach(() => {
    expect(desk.api.list('jobs')).toEqual([]);
  });

  it.each([
    [[], '--manifest is required'],
    [['--manifest', 'POD', 'more', 'words'], 'unexpected arguments: [more words]'],
    [['--manifest', 'POD', '--timeout', '0s'], '--timeout must be greater than zero'],
    [['--manifest', 'POD', '--timeout', '-1m'], '--timeout must be greater than zero'],
    [
      ['--manifest', 'POD', '--checkpoint-id', 'a/b'],
      '--checkpoint-id "a/b" has characters other than A-Z a-z 0-9 . _ -',
    ],
    [['--manifest', 'POD', '--checkpoint-id', 'a-'], '--checkpoint-id "a-" must begin and end with a letter or digit'],
    [['--manifest', '/nowhere'], 'manifest /nowhere cannot be read: ENOENT'],
    [
      ['--manifest', 'POD'],
      'target containers are required: pass --container(s) or set nvidia.com/snapshot-target-containers',
    ],
    [['--manifest', 'POD', '--container', 'a,b'], 'expected at most 1 target container(s), got 2'],
    [['--manifest', 'POD', '--container', 'gone'], 'target container "gone" is not in the pod, which has: main'],
    [['--manifest', 'POD', '--container', 'main', '--storage', 'pvc'], '--storage pvc needs --pvc-name'],
    [['--manifest', 'POD', '--container', 'main', '--storage', 's3'], "argument 's3' is invalid"],
    [['--manifest', 'POD', '--container', 'main', '--base-path', '/x'], '--base-path needs --pvc-name'],
    [
      ['--manifest', 'POD', '--container', 'main', '--pvc-name', 'gone'],
      'there is no persistent volume claim gone in namespace default',
    ],
    [
      ['--manifest', 'POD', '--container', 'main', '--pvc-name', 'mine', '--base-path', 'x'],
      '--base-path x is not absolute',
    ],
  ])('%j', async (args, message) => {
    desk.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'mine' } });
    const manifest = await desk.manifest();
    const { code, out, err } = await desk.snapshotctl([
      'checkpoint',
      ...args.map((arg) => (arg === 'POD' ? manifest : arg)),
    ]);
    expect([code, out, err]).toEqual([2, '', expect.stringContaining(message)]);
  });

  it('a flag that says something else than the manifest', async () => {
    const key = 'nvidia.com/snapshot-target-containers';
    const manifest = await desk.manifest({ metadata: { annotations: { [key]: 'other' } } });
    const { code, err } = await desk.snapshotctl(['checkpoint', '--manifest', manifest, '--container', 'main']);
    expect([code, err]).toEqual([
      2,
      `snapshotctl: --container(s) flag "main" does not match manifest ${key} "other"; pass one or the other\n`,
    ]);
  });

  it('a namespace without an agent', async () => {
    desk.api.remove('daemonsets', 'default/snapshot-agent');
    expect(await checkpoint()).toMatchObject({
      code: 2,
      err: 'snapshotctl: no snapshot-agent daemonset found in namespace default; for an agent that does not mount it, pass --pvc-name and --base-path\n',
    });
  });

  it('an agent that does not mount the artifacts: with what it says of itself', async () => {
    desk.putAgent({ config: 'storage: { accessMode: podMount, basePath: /volume }' });
    expect(await checkpoint()).toMatchObject({
      code: 2,
      err: 'snapshotctl: agent default/snapshot-agent reaches artifacts through the pods (podMount): pass --storage pvc, --pvc-name with a claim of namespace default, and --base-path /volume\n',
    });
  });

  it('agents that do not agree', async () => {
    desk.putAgent({ config: 'storage: { basePath: /volume }' });
    desk.putAgent({ namespace: 'system', claim: 'snapshots' });
    expect((await checkpoint()).err).toContain(
      'there are several agents elsewhere, and any namespace can have what looks like one (default/snapshot-agent, system/snapshot-agent): pass --pvc-name and --base-path',
    );
  });

  it('several agents of other namespaces, although they agree', async () => {
    desk.api.remove('daemonsets', 'default/snapshot-agent');
    for (const namespace of ['system', 'a-tenant']) desk.putAgent({ namespace, claim: 'snapshots' });
    const { code, err } = await checkpoint();
    expect([code, err]).toEqual([2, expect.stringContaining('(a-tenant/snapshot-agent, system/snapshot-agent)')]);
  });
});

describe('where the artifacts are', () => {
  const volumes = () => {
    const { template } = (desk.api.get('jobs', JOB)?.spec ?? {}) as { template: { spec: { volumes: object[] } } };
    return template.spec.volumes;
  };
  const CONTROL = { name: 'snapshot-control', emptyDir: {} };

  it('an agent of another namespace has them, for all namespaces: the pod brings nothing', async () => {
    desk.api.remove('daemonsets', 'default/snapshot-agent');
    desk.putAgent({ namespace: 'system', claim: 'snapshots', config: 'storage: { basePath: /checkpoints }' });
    succeed();
    const { code, out } = await checkpoint(['--checkpoint-id', 'one']);
    expect([code, out]).toEqual([0, expect.stringContaining('checkpoint_location=/checkpoints/one/versions/1\n')]);
    expect(volumes()).toEqual([CONTROL]);
  });

  it('an agent that works for another namespace alone does not count', async () => {
    desk.api.remove('daemonsets', 'default/snapshot-agent');
    desk.putAgent({ namespace: 'theirs', claim: 'snapshots', config: 'kubernetes: { namespace: theirs }' });
    expect(await checkpoint()).toMatchObject({
      code: 2,
      err: expect.stringContaining('no snapshot-agent daemonset found'),
    });
  });

  it('who may not look into all namespaces is told of the own one', async () => {
    desk.api.remove('daemonsets', 'default/snapshot-agent');
    desk.api.fault({ verb: 'list', resource: 'daemonsets', namespace: '' }, { kind: 'forbidden' });
    expect(await checkpoint()).toMatchObject({
      code: 2,
      err: expect.stringContaining('no snapshot-agent daemonset found'),
    });
  });

  it.each([
    [['--base-path', '/volume/'], '/volume'],
    [[], '/configured'],
  ])(
    'a claim that is named is brought by the pod, at the path %j, or the one that the agent has',
    async (flags, basePath) => {
      desk.putAgent({ config: 'storage: { accessMode: podMount, basePath: /configured }' });
      desk.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'mine' } });
      succeed();
      const { code, out } = await checkpoint([
        '--storage',
        'pvc',
        '--pvc-name',
        'mine',
        '--checkpoint-id',
        'one',
        ...flags,
      ]);
      expect([code, out]).toEqual([0, expect.stringContaining(`checkpoint_location=${basePath}/one/versions/1\n`)]);
      expect(volumes()).toEqual([
        CONTROL,
        { name: 'checkpoint-storage', persistentVolumeClaim: { claimName: 'mine' } },
      ]);
    },
  );

  it('of which nobody knows the path: it must be said', async () => {
    desk.api.remove('daemonsets', 'default/snapshot-agent');
    desk.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'mine' } });
    expect(await checkpoint(['--pvc-name', 'mine'])).toMatchObject({
      code: 2,
      err: 'snapshotctl: --base-path is required: no agent says where pods are to mount the claim\n',
    });
  });

  it('who may not read claims is believed', async () => {
    desk.api.fault({ resource: 'persistentvolumeclaims' }, { kind: 'forbidden' });
    succeed();
    expect((await checkpoint(['--pvc-name', 'unseen', '--base-path', '/volume'])).code).toBe(0);
  });
});

it('prints its usage', async () => {
  const { code, out, err } = await desk.snapshotctl(['checkpoint', '--help']);
  expect([code, out]).toEqual([0, '']);
  for (const flag of ['--manifest', '--container', '--checkpoint-id', '--timeout', '--cleanup', '--pvc-name'])
    expect(err).toContain(flag);
});
