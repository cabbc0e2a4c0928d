import { describe, expect, it } from 'vitest';
import { completeJob, failJob, startJobPod } from '../fakes/kube-api/job-controller.ts';
import { FakeKubelet } from '../fakes/kube-api/kubelet.ts';
import type { Recorded } from '../fakes/kube-api/replay.ts';
import { alive, bodyOf, eventsOf, useReplay } from '../fakes/kube-api/replaying.ts';
import type { Json } from '../fakes/kube-api/server.ts';

const { stage, expectReplay, expectWatch, given } = useReplay((number) => /^06|^110|^111[12]/.test(number));
const IMAGE = 'docker.io/library/busybox:latest';
/** Without what a kubelet shows only on cgroup v1. */
const KUBELET = { isKubelet: true };
const api = () => stage.replay.api;

/** What the recorded runtime gave the pod: the address, and the ids of its containers. */
function recordedRun(number: string) {
  const statuses = eventsOf(number).map(({ status }) => status as Json);
  const containers = statuses.flatMap((status) => [
    ...((status['initContainerStatuses'] ?? []) as Json[]),
    ...((status['containerStatuses'] ?? []) as Json[]),
  ]);
  const started = containers.filter(({ containerID }) => containerID !== undefined);
  const ids = Object.fromEntries(
    started.map(({ name, containerID }) => [String(name), String(containerID).replace('containerd://', '')]),
  );
  const podIp = String(statuses.find(({ podIP }) => podIP !== undefined)?.['podIP']);
  return { ids, podIp };
}

const first = (number: string) => eventsOf(number)[0] as Recorded;

describe('the fake kubelet writes as a real one', () => {
  it('while a container starts and fails', () => {
    const { ids, podIp } = recordedRun('1104');
    return expectWatch(
      '1104',
      () => {
        const kubelet = new FakeKubelet(api());
        given([first('1104')]);
        kubelet.run('demo/exit42', ids, { podIp });
        kubelet.exit('demo/exit42', 'main', 42);
      },
      KUBELET,
    );
  });

  it('while a pod ends with grace', () => {
    const { ids, podIp } = recordedRun('1105');
    return expectWatch(
      '1105',
      () => {
        const kubelet = new FakeKubelet(api());
        given([first('1105')]);
        kubelet.run('demo/grace', ids, { podIp });
        api().delete('pods', 'demo/grace', { gracePeriodSeconds: 10 });
        kubelet.end('demo/grace');
      },
      KUBELET,
    );
  });

  it('while a finalizer holds a pod that has ended', () => {
    const { ids, podIp } = recordedRun('1107');
    return expectWatch(
      '1107',
      () => {
        const kubelet = new FakeKubelet(api());
        given([first('1107')]);
        kubelet.run('demo/final', ids, { podIp });
        api().delete('pods', 'demo/final', { gracePeriodSeconds: 2 });
        kubelet.end('demo/final');
        api().patch('pods', 'demo/final', { metadata: { finalizers: null } });
      },
      KUBELET,
    );
  });

  it('while an init container runs before the others', () => {
    const { ids, podIp } = recordedRun('1109');
    const { prepare = '', main = '' } = ids;
    return expectWatch(
      '1109',
      () => {
        const kubelet = new FakeKubelet(api());
        const { spec, ...rest } = first('1109');
        given([{ ...rest, spec: { ...(spec as Json), initContainers: [{ name: 'prepare', image: IMAGE }] } }]);
        kubelet.admit('demo/init');
        kubelet.startSandbox('demo/init', { podIp });
        kubelet.report('demo/init', [{ name: 'prepare', state: 'running', id: prepare }]);
        kubelet.report('demo/init', [{ name: 'prepare', state: 'terminated', id: prepare, exitCode: 0 }]);
        kubelet.report('demo/init', [{ name: 'main', state: 'running', id: main }]);
      },
      KUBELET,
    );
  });

  it('nothing more when a pod is deleted by force', () => {
    const { ids, podIp } = recordedRun('1111');
    return expectWatch(
      '1111',
      () => {
        given([first('1111')]);
        new FakeKubelet(api()).run('demo/force', ids, { podIp });
        api().delete('pods', 'demo/force', { gracePeriodSeconds: 0 });
      },
      KUBELET,
    );
  });

  it('nothing at all for a pod without a node', () =>
    expectWatch('1112', () => {
      given(eventsOf('1112').slice(0, 2));
      api().delete('pods', 'demo/unsched');
    }));

  it('follows deletions, and ends each pod once its containers have stopped', async () => {
    const kubelet = new FakeKubelet(api());
    given([first('1105')]);
    kubelet.run('demo/grace', { main: 'abc' });
    const seen: unknown[] = [];
    api().onChange('pods', ({ status }, isDeleted) => seen.push(isDeleted ? 'gone' : status?.['phase']));
    const gone = new Promise((resolve) => api().onChange('pods', (_, isDeleted) => isDeleted && resolve(undefined)));
    const stop = kubelet.follow(async () => ({ main: 137 }));
    api().delete('pods', 'demo/grace');
    await gone;
    stop();
    expect(seen).toEqual(['Running', 'Running', 'Failed', 'Failed', 'gone']);
  });
});

describe('Jobs', () => {
  const ready = (key: string, count: number) => api().patch('jobs', key, { status: { ready: count } });

  it('complete as recorded, with their pod', () => {
    const { ids, podIp } = recordedRun('0602');
    const kubelet = new FakeKubelet(api());
    const live = async () => {
      await expectReplay('0608');
      startJobPod(api(), 'demo/j-ok', 'j-ok-6v5lz');
      await expectReplay('0609');
      kubelet.run('demo/j-ok-6v5lz', ids, { podIp });
      ready('demo/j-ok', 1);
      kubelet.exit('demo/j-ok-6v5lz', 'main', 0);
      ready('demo/j-ok', 0);
      completeJob(api(), 'demo/j-ok', 'j-ok-6v5lz');
      await expectReplay('0612');
    };
    return expectWatch('0601', () => expectWatch('0602', live, KUBELET));
  });

  it('fail as recorded', () => {
    const uncounted = eventsOf('0603').map(
      ({ status }) => ((status as Json)['uncountedTerminatedPods'] ?? {}) as { failed?: string[] },
    );
    return expectWatch('0603', () => {
      given([first('0603')], 'Job');
      const { uid } = startJobPod(api(), 'demo/j-fail', 'j-fail-abcde').metadata;
      const [counted = ''] = uncounted.flatMap(({ failed }) => failed ?? []);
      stage.replay.pairs.learn('uid', counted, uid);
      ready('demo/j-fail', 1);
      ready('demo/j-fail', 0);
      failJob(api(), 'demo/j-fail', 'j-fail-abcde');
    });
  });

  it('refuse what may not change, and go as they are asked to', async () => {
    given([alive('0622'), { ...alive('0619'), metadata: { ...alive('0619').metadata, resourceVersion: 'x' } }], 'Job');
    const uid = (bodyOf('0621')['details'] as Json)['uid'];
    api().put({ kind: 'Job', metadata: { name: 'j-fail', namespace: 'demo', uid }, spec: {} });
    api().put({ kind: 'Job', metadata: { name: 'j-busy', namespace: 'demo' }, spec: {} });
    await expectReplay('0613 0614 0616 0619 0621 0622');
  });
});
