import { describe, expect, it } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import { asks, eventually, inSource, NOTE, onServer, useStage } from './kubernetes-source/stage.ts';

const { stage, follow, followed, bind, start, run, note } = useStage();
/** The runtime goes on without the API. */
function change(id: string, changes: object) {
  const container = stage.cri.containers.get(id);
  if (container === undefined) throw new Error(`there is no container ${id}`);
  stage.cri.containers.set(id, { ...container, ...changes });
}
/** The runtime starts the main container of a pod once more; kubelet has not seen it yet. */
function startAgain(uid: string) {
  change(`container-${uid}`, { state: 'CONTAINER_EXITED' });
  return start(uid, { container: { id: `again-${uid}`, metadata: { name: 'main', attempt: 1 } } });
}
/** Only events lead to a look at the runtime. */
const quiet = { pollMs: 300 };
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a pod', () => {
  it('is what the API says, with the containers of the runtime', async () => {
    const metadata = {
      ...{ name: 'web', namespace: 'demo', labels: { ...asks, app: 'web' } },
      annotations: { [ANNOTATIONS.targetContainers]: 'main', 'example.com/other': 'x' },
    };
    const spec = { nodeName: 'node-1', containers: [{ name: 'main' }] };
    const { uid } = stage.api.put({ kind: 'Pod', metadata, spec }).metadata;
    stage.kubelet.run('demo/web', { main: start(uid) });
    const { pods } = await followed();
    expect(pods.pod(uid)).toEqual({
      ...{ uid, namespace: 'demo', name: 'web', sandboxId: `sandbox-${uid}` },
      labels: asks,
      annotations: { [ANNOTATIONS.targetContainers]: 'main' },
      containers: [{ name: 'main', id: `container-${uid}`, state: 'running', attempt: 0 }],
      kubernetes: { phase: 'Running', isDeleting: false, ready: ['main'], failed: [], job: undefined, claimMounts: [] },
    });
    expect([...pods.pods()]).toEqual([pods.pod(uid)]);
  });

  it('has its container from the runtime before kubelet has published it', async () => {
    const { pods, changes } = await followed();
    const uid = bind('web');
    stage.kubelet.admit('demo/web');
    await eventually(() => expect(changes).toContain(uid));
    expect(pods.pod(uid)).toMatchObject({ sandboxId: '', containers: [], kubernetes: { phase: 'Pending' } });
    changes.length = 0;
    const id = start(uid);
    await eventually(() => expect(changes).toContain(uid));
    expect(pods.pod(uid)).toMatchObject({ containers: [{ id, state: 'running' }], kubernetes: { phase: 'Pending' } });
  });

  it('has it without a poll, where the runtime tells of its event', async () => {
    const { pods, changes, emit, looks } = await followed(quiet);
    const uid = bind('web');
    await eventually(() => expect(changes).toContain(uid));
    looks.length = 0;
    const id = start(uid);
    emit(uid);
    await eventually(() => expect(pods.pod(uid)?.containers).toMatchObject([{ id, state: 'running' }]));
    expect(looks).toEqual([uid]);
  });

  it('has the container that another one makes it wait for, and then its own', async () => {
    const { pods } = await followed();
    const uid = bind('web');
    start(uid, {
      container: { id: 'init', state: 'CONTAINER_EXITED', metadata: { name: 'init', attempt: 0 }, labels: {} },
    });
    await eventually(() => expect(pods.pod(uid)?.containers).toMatchObject([{ name: 'init' }]));
    start(uid, { container: { id: 'own' } });
    await eventually(() =>
      expect(
        pods
          .pod(uid)
          ?.containers.map(({ id }) => id)
          .sort(),
      ).toEqual(['init', 'own']),
    );
  });

  it('that is patched in place is told of at once, without a look at the runtime', async () => {
    const uid = run('web');
    const { pods, told, looks } = await followed();
    looks.length = 0;
    note('web', 'changed');
    await eventually(() => expect(pods.pod(uid)?.annotations[NOTE]).toBe('changed'));
    expect([told, looks]).toEqual([[uid], []]);
  });

  it('that is labelled while it runs is told of with its containers', async () => {
    const uid = run('web', { labels: {} });
    const { pods, changes, looks } = await followed(quiet);
    looks.length = 0;
    stage.api.patch('pods', 'demo/web', { metadata: { labels: { ...asks, [LABELS.restoreTarget]: 'true' } } });
    await eventually(() => expect(changes).toContain(uid));
    expect(pods.pod(uid)?.labels).toEqual({ ...asks, [LABELS.restoreTarget]: 'true' });
    expect(pods.pod(uid)?.containers).toHaveLength(1);
    expect(looks).toEqual([uid]);
  });

  it('that loses its label is gone, and comes back with it', async () => {
    const uid = run('web');
    const { pods, changes } = await followed();
    stage.api.patch('pods', 'demo/web', { metadata: { labels: { [LABELS.checkpointId]: null } } });
    await eventually(() => expect(pods.pod(uid)).toBeUndefined());
    changes.length = 0;
    stage.api.patch('pods', 'demo/web', { metadata: { labels: asks } });
    await eventually(() => expect(changes).toContain(uid));
    expect(pods.pod(uid)?.containers).toHaveLength(1);
  });

  it('that takes the name of another is another', async () => {
    const first = run('web');
    const { pods, changes } = await followed();
    stage.api.remove('pods', 'demo/web');
    const second = run('web');
    await eventually(() => expect(changes).toEqual(expect.arrayContaining([first, second])));
    await eventually(() => expect(inSource(pods)).toEqual(onServer(stage)));
    expect(pods.pod(first)).toBeUndefined();
    expect(pods.pod(second)?.containers[0]?.id).toBe(`container-${second}`);
  });

  it('that is deleted says so while it ends, and is gone afterwards', async () => {
    const uid = run('web');
    const { pods } = await followed();
    stage.api.delete('pods', 'demo/web');
    await eventually(() => expect(pods.pod(uid)?.kubernetes?.isDeleting).toBe(true));
    change(`container-${uid}`, { state: 'CONTAINER_EXITED' });
    stage.kubelet.end('demo/web', { main: 3 });
    await eventually(() => expect(pods.pod(uid)).toBeUndefined());
  });
});

describe('a container that is started again', () => {
  it('is known from the runtime, and is not ready because the one before it was', async () => {
    const uid = run('web');
    const { pods, emit } = await followed(quiet);
    const again = startAgain(uid);
    emit(uid);
    await eventually(() => expect(pods.pod(uid)?.containers).toHaveLength(2));
    expect(pods.pod(uid)?.containers[1]).toEqual({ name: 'main', id: again, state: 'running', attempt: 1 });
    // Kubelet still says that main is ready.
    expect(pods.pod(uid)?.kubernetes?.ready).toEqual([]);
    stage.kubelet.restart('demo/web', 'main', again);
    await eventually(() => expect(pods.pod(uid)?.kubernetes?.ready).toEqual(['main']));
  });

  it('is known from the API, where the runtime has no events', async () => {
    stage.cri.events = 'unsupported';
    const uid = run('web');
    const { pods, changes, states, said } = follow(quiet);
    await eventually(() => expect(states.at(-1)?.kind).toBe('watching'));
    await eventually(() => expect(pods.pod(uid)?.containers).toHaveLength(1));
    await eventually(() =>
      expect(said('the runtime has no events: pods are looked at as they come up, and as the API tells')).toHaveLength(
        1,
      ),
    );
    changes.length = 0;
    const again = startAgain(uid);
    stage.kubelet.restart('demo/web', 'main', again);
    await eventually(() => expect(changes).toEqual([uid]));
    expect(pods.pod(uid)?.containers.map(({ id, state }) => [id, state])).toEqual([
      [`container-${uid}`, 'exited'],
      [again, 'running'],
    ]);
    expect(pods.pod(uid)?.kubernetes?.ready).toEqual(['main']);
  });

  it('is not taken to run when the API says that it ended', async () => {
    stage.cri.events = 'unsupported';
    const uid = run('web');
    const { pods, states } = follow(quiet);
    await eventually(() => expect(states.at(-1)?.kind).toBe('watching'));
    await eventually(() => expect(pods.pod(uid)?.containers[0]?.state).toBe('running'));
    change(`container-${uid}`, { state: 'CONTAINER_EXITED' });
    stage.kubelet.exit('demo/web', 'main', 42);
    await eventually(() => expect(pods.pod(uid)?.containers[0]?.state).toBe('exited'));
    expect(pods.pod(uid)?.kubernetes).toMatchObject({ ready: [], failed: [{ name: 'main', exitCode: 42 }] });
  });
});

describe('the runtime', () => {
  it('is asked about a pod again and again until its container runs, and then not any more', async () => {
    const { pods, looks } = await followed({ pollMs: 10 });
    const uid = bind('web');
    await eventually(() => expect(looks.filter((look) => look === uid).length).toBeGreaterThan(3));
    start(uid, { container: { state: 'CONTAINER_CREATED' } });
    await eventually(() => expect(pods.pod(uid)?.containers[0]?.state).toBe('created'));
    change(`container-${uid}`, { state: 'CONTAINER_RUNNING' });
    await eventually(() => expect(pods.pod(uid)?.containers[0]?.state).toBe('running'));
    const { length } = looks;
    await pause(200);
    expect(looks).toHaveLength(length);
  });

  it('is not asked about a pod whose end the API has told of', async () => {
    const uid = bind('web');
    stage.kubelet.run('demo/web', { main: 'a' });
    stage.api.patch('pods', 'demo/web', { status: { phase: 'Failed' } });
    const { pods, looks } = await followed({ pollMs: 10 });
    await eventually(() => expect(pods.pod(uid)?.kubernetes?.phase).toBe('Failed'));
    const { length } = looks;
    await pause(200);
    expect(looks).toHaveLength(length);
  });

  it('is looked at once more for what happens while it answers', async () => {
    const uid = run('web');
    const { containers } = stage.runtime;
    let meanwhile: (() => void) | undefined;
    stage.runtime = {
      ...stage.runtime,
      containers: async (labels) => {
        const answer = await containers(labels);
        meanwhile?.();
        return answer;
      },
    };
    const { pods, emit } = await followed(quiet);
    meanwhile = () => {
      meanwhile = undefined;
      change(`container-${uid}`, { state: 'CONTAINER_EXITED' });
      emit(uid);
    };
    emit(uid);
    await eventually(() => expect(pods.pod(uid)?.containers[0]?.state).toBe('exited'));
  });

  it('is asked once for all when many pods come at once', async () => {
    const { pods, looks } = await followed(quiet);
    looks.length = 0;
    const uids = Array.from({ length: 40 }, (_, index) => run(`pod-${index}`));
    await eventually(() => expect(uids.filter((uid) => pods.pod(uid)?.containers.length !== 1)).toEqual([]));
    expect(looks.length).toBeLessThan(uids.length);
    expect(looks).toContain('all');
  });

  it('is asked about all pods now and then, and all are told of', async () => {
    const uids = [run('a'), run('b')];
    const { changes } = await followed({ resyncMs: 50 });
    for (const _ of [1, 2]) {
      changes.length = 0;
      await eventually(() => expect([...new Set(changes)].sort()).toEqual([...uids].sort()));
    }
  });

  it('that does not say which pod its event is about is asked about all, and only news are told of', async () => {
    run('a');
    const uid = run('b');
    const { pods, changes, emit } = await followed(quiet);
    changes.length = 0;
    change(`container-${uid}`, { state: 'CONTAINER_EXITED' });
    emit('');
    await eventually(() => expect(pods.pod(uid)?.containers[0]?.state).toBe('exited'));
    expect(changes).toEqual([uid]);
  });

  it('is not asked for events of pods that are nobody’s concern', async () => {
    const uid = run('web');
    const { emit, looks, changes } = await followed(quiet);
    looks.length = 0;
    changes.length = 0;
    emit('stranger');
    emit(uid);
    await eventually(() => expect(changes).toEqual([uid]));
    expect(looks).toEqual([uid]);
  });
});
