import * as grpc from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { watchRuntime } from '../../agent/watch/cri.ts';
import { openRuntime, type Runtime } from '../../agent/watch/runtime.ts';
import type { PodSource } from '../../agent/watch/source.ts';
import { ANNOTATIONS, KUBELET_LABELS, LABELS } from '../../contract/keys.ts';
import { type FakeCri, fakePod, makeCri, until } from '../fakes/cri-server.ts';
import { memoryLog } from '../fakes/log.ts';

let cri: FakeCri;
let runtime: Runtime;
let stop: AbortController;
let running: Promise<void> | undefined;
beforeEach(async () => {
  cri = await makeCri();
  runtime = openRuntime(cri.socketPath);
  stop = new AbortController();
  running = undefined;
});
afterEach(async () => {
  stop.abort();
  await running;
  runtime.close();
  await cri.remove();
});

/** Begins to watch; `changes` fills with the uids that were told. */
function watch(options: { pollMs?: number; resyncMs?: number } = {}) {
  const logged = memoryLog();
  const changes: string[] = [];
  const pods: PodSource = watchRuntime(runtime, { pollMs: 40, resyncMs: 60_000, log: logged.log, ...options });
  running = pods.run((uid) => changes.push(uid), stop.signal);
  return { pods, changes, ...logged };
}
/** Begins to watch, and waits until nothing but an event can be the cause of a look at the runtime. */
async function watchQuietly() {
  const watching = watch();
  await until(() => cri.openStreams === 1, 'the event stream');
  await until(() => (cri.calls['ListPodSandbox'] ?? 0) >= 2, 'the look after the subscription');
  await pause(60);
  watching.changes.length = 0;
  return watching;
}
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const looks = () => cri.calls['ListPodSandbox'] ?? 0;

describe('the pods of the runtime', () => {
  it('are told at once, with labels, annotations and containers', async () => {
    const annotations = { [ANNOTATIONS.targetContainers]: 'main' };
    cri.put(fakePod('a', { sandbox: { annotations } }));
    const { pods, changes } = watch();
    await until(() => changes.includes('a'), 'pod a');
    expect(pods.pod('a')).toEqual({
      uid: 'a',
      namespace: 'team',
      name: 'pod-a',
      sandboxId: 'sandbox-a',
      labels: { [LABELS.checkpointId]: 'ckpt' },
      annotations,
      containers: [{ name: 'main', id: 'container-a', state: 'running', attempt: 0 }],
    });
  });

  it('are only those with a checkpoint id whose sandbox is up', async () => {
    cri.put(
      fakePod('plain', { sandbox: { labels: {} } }),
      fakePod('down', { sandbox: { state: 'SANDBOX_NOTREADY' } }),
      fakePod('a'),
    );
    const { pods, changes } = watch();
    await until(() => changes.includes('a'), 'pod a');
    expect(['plain', 'down', 'a'].map((uid) => pods.pod(uid)?.uid)).toEqual([undefined, undefined, 'a']);
  });

  it('have their containers in the order they were started, by the name kubelet gave them', async () => {
    const labels = { [KUBELET_LABELS.containerName]: 'main' };
    const again = { id: 'container-a2', metadata: { name: 'k8s_main', attempt: 2 }, labels };
    const before = {
      id: 'container-a1',
      metadata: { name: 'main', attempt: 1 },
      state: 'CONTAINER_EXITED',
      labels: {},
    };
    cri.put(fakePod('a', { container: again }), fakePod('a', { container: before }));
    const { pods, changes } = watch();
    await until(() => changes.includes('a'), 'pod a');
    expect(pods.pod('a')?.containers).toEqual([
      { name: 'main', id: 'container-a1', state: 'exited', attempt: 1 },
      { name: 'main', id: 'container-a2', state: 'running', attempt: 2 },
    ]);
  });

  it('are five hundred without a sweat', async () => {
    for (let n = 0; n < 500; n++) cri.put(fakePod(`p${n}`));
    const { changes } = watch();
    await until(() => changes.length >= 500, 'all pods', 3_000);
    expect(new Set(changes).size).toBe(500);
  });

  it('are told once, not at every look', async () => {
    cri.put(fakePod('a'));
    const { changes } = await watchQuietly();
    for (let n = 0; n < 3; n++) {
      const before = looks();
      cri.emit();
      await until(() => looks() > before, 'another look');
    }
    await pause(30);
    expect(changes).toEqual([]);
  });

  it('are no news where only the order of their labels differs', async () => {
    const labels = { [LABELS.checkpointId]: 'ckpt', b: '2', a: '1' };
    cri.put(fakePod('a', { sandbox: { labels } }));
    const { changes } = await watchQuietly();
    cri.put(fakePod('a', { sandbox: { labels: { a: '1', b: '2', [LABELS.checkpointId]: 'ckpt' } } }));
    const before = looks();
    cri.emit();
    await until(() => looks() > before, 'another look');
    await pause(30);
    expect(changes).toEqual([]);
  });

  it('are all told again at a resync, events or not', async () => {
    cri.put(fakePod('a'), fakePod('b'));
    const { changes } = watch({ resyncMs: 50 });
    await until(() => changes.filter((uid) => uid === 'a').length >= 3, 'three resyncs');
    expect(changes.filter((uid) => uid === 'b').length).toBeGreaterThanOrEqual(2);
  });
});

describe('events', () => {
  it('wake the watch quickly', async () => {
    const { pods, changes } = await watchQuietly();
    cri.put(fakePod('new'));
    const began = performance.now();
    cri.emit();
    await until(() => changes.includes('new'), 'the new pod');
    expect(performance.now() - began).toBeLessThan(500);
    expect(pods.pod('new')).toBeDefined();
  });

  it('that come in a burst are answered with few looks', async () => {
    await watchQuietly();
    const before = looks();
    for (let n = 0; n < 50; n++) cri.emit();
    await pause(150);
    expect(looks() - before).toBeGreaterThanOrEqual(1);
    expect(looks() - before).toBeLessThan(10);
  });

  it('tell of a container that ended, and of one that was started anew', async () => {
    cri.put(fakePod('a'));
    const { pods, changes } = await watchQuietly();
    cri.put(fakePod('a', { container: { state: 'CONTAINER_EXITED' } }));
    cri.put(fakePod('a', { container: { id: 'again', metadata: { name: 'main', attempt: 1 } } }));
    cri.emit();
    await until(() => changes.includes('a'), 'the change');
    expect(pods.pod('a')?.containers.map(({ state, attempt }) => [state, attempt])).toEqual([
      ['exited', 0],
      ['running', 1],
    ]);
  });

  it('tell of a pod that is gone, which is then not known any more', async () => {
    cri.put(fakePod('a'), fakePod('b'));
    const { pods, changes } = await watchQuietly();
    cri.drop('a');
    cri.emit();
    await until(() => changes.includes('a'), 'the end of pod a');
    expect([pods.pod('a'), pods.pod('b')?.uid]).toEqual([undefined, 'b']);
    cri.put(fakePod('a'));
    changes.length = 0;
    cri.emit();
    await until(() => changes.includes('a'), 'pod a to be back');
  });

  it('tell of a new sandbox of the same pod', async () => {
    cri.put(fakePod('a'));
    const { pods, changes } = await watchQuietly();
    cri.put(fakePod('a', { sandbox: { state: 'SANDBOX_NOTREADY' } }));
    const sandbox = { id: 'sandbox-2', created_at: 2 };
    cri.put(fakePod('a', { sandbox, container: { id: 'c2', pod_sandbox_id: 'sandbox-2' } }));
    cri.emit();
    await until(() => changes.includes('a'), 'the change');
    expect(pods.pod('a')).toMatchObject({ sandboxId: 'sandbox-2', containers: [{ id: 'c2' }] });
  });

  it('that broke are subscribed to again, and what happened meanwhile is seen', async () => {
    const { changes } = await watchQuietly();
    cri.breakStreams();
    await until(() => cri.openStreams === 0, 'the stream to break');
    await pause(20);
    // After the look that follows the break, and before anybody listens again.
    cri.put(fakePod('between'));
    await until(() => cri.openStreams === 1, 'another stream');
    await until(() => changes.includes('between'), 'what nobody told', 2_000);
    cri.put(fakePod('later'));
    cri.emit();
    await until(() => changes.includes('later'), 'an event of the new stream');
  });

  it('that happen while the first subscription is made are not lost', async () => {
    const { changes } = watch();
    await until(() => looks() >= 1, 'the first look');
    cri.put(fakePod('early'));
    await until(() => changes.includes('early'), 'what nobody told', 2_000);
  });
});

describe('a runtime without events', () => {
  it('is polled, and that is said once', async () => {
    cri.events = 'unsupported';
    const { changes, said } = watch();
    await until(() => said('the runtime has no events, it is polled').length === 1, 'the message');
    cri.put(fakePod('new'));
    await until(() => changes.includes('new'), 'the new pod', 2_000);
    cri.drop('new');
    await until(() => changes.filter((uid) => uid === 'new').length === 2, 'its end', 2_000);
    expect(cri.calls['GetContainerEvents']).toBe(1);
    expect(said('the runtime has no events, it is polled')).toHaveLength(1);
  });

  it('whose stream breaks each time is polled as well', async () => {
    cri.events = 'broken';
    const { changes } = watch();
    await until(() => (cri.calls['GetContainerEvents'] ?? 0) >= 2, 'another try');
    cri.put(fakePod('new'));
    await until(() => changes.includes('new'), 'the new pod', 2_000);
  });
});

describe('a runtime that is away', () => {
  it('loses no pod: those that stay are no news, those that came or went meanwhile are told', async () => {
    cri.put(fakePod('stays'), fakePod('goes'));
    const { pods, changes, said } = await watchQuietly();
    await cri.stop();
    await until(() => said('the runtime does not answer').length >= 2, 'failures');
    expect(pods.pod('stays')).toBeDefined();
    expect(changes).toEqual([]);
    cri.drop('goes');
    cri.put(fakePod('comes'));
    await cri.start();
    await until(() => changes.length >= 2, 'the changes', 5_000);
    expect(changes.toSorted()).toEqual(['comes', 'goes']);
    cri.put(fakePod('later'));
    await until(() => cri.openStreams === 1, 'another stream');
    cri.emit();
    await until(() => changes.includes('later'), 'events again');
  });

  it('is asked less and less often', async () => {
    const { said } = await watchQuietly();
    await cri.stop();
    await until(() => said('the runtime does not answer').length >= 4, 'four failures', 4_000);
    const times = said('the runtime does not answer').map(({ time }) => Number(time));
    const gaps = times.slice(1).map((time, n) => time - (times[n] ?? 0));
    for (const [n, least] of [80, 160, 320].entries()) expect(gaps[n]).toBeGreaterThanOrEqual(least - 5);
    expect(
      said('the runtime does not answer')
        .map(({ failures }) => failures)
        .slice(0, 4),
    ).toEqual([1, 2, 3, 4]);
  });

  it('from the beginning is waited for', async () => {
    await cri.stop();
    cri.put(fakePod('a'));
    const { changes, said } = watch();
    await until(() => said('the runtime does not answer').length >= 1, 'a failure');
    await cri.start();
    await until(() => changes.includes('a'), 'pod a', 5_000);
  });

  it('in one of the two lists is taken for one that does not answer: half a list is none', async () => {
    cri.put(fakePod('a'));
    const { pods, changes, said } = await watchQuietly();
    cri.faults.set('ListContainers', [grpc.status.INTERNAL]);
    cri.put(fakePod('b'));
    cri.emit();
    await until(() => changes.includes('b'), 'the next try');
    expect(said('the runtime does not answer')).toHaveLength(1);
    expect(pods.pod('a')?.containers).toHaveLength(1);
  });
});

describe('the end of the watch', () => {
  it.each(['told', 'unsupported', 'broken'] as const)(
    'comes soon after the signal, events being %s',
    async (events) => {
      cri.events = events;
      const { changes } = watch();
      cri.put(fakePod('a'));
      await until(() => changes.includes('a'), 'pod a');
      const began = performance.now();
      stop.abort();
      await running;
      expect(performance.now() - began).toBeLessThan(500);
      changes.length = 0;
      cri.put(fakePod('b'));
      await pause(100);
      expect(changes).toEqual([]);
    },
  );

  it('comes soon while the runtime is away too', async () => {
    const { said } = await watchQuietly();
    await cri.stop();
    await until(() => said('the runtime does not answer').length >= 3, 'failures');
    const began = performance.now();
    stop.abort();
    await running;
    expect(performance.now() - began).toBeLessThan(500);
  });
});
