import { describe, expect, it } from 'vitest';
import { type ApiPod, apiPod } from '../../../agent/watch/api-pod.ts';
import { LABELS } from '../../../contract/keys.ts';
import { readRecording } from '../../fakes/kube-api/recording.ts';
import type { Json } from '../../fakes/kube-api/resources.ts';

/** The pod that an exchange answered. */
const answered = (number: string) => readRecording(number).response.body as Json;
const events = (number: string) => readRecording(number).response.events ?? [];
/** What each event of a recorded watch says of its pod. */
function watched(number: string): ApiPod[] {
  let before: Json = {};
  return events(number).flatMap(({ type, object }) => {
    if (type === 'BOOKMARK') return [];
    before = whole(before, object);
    return apiPod(before) ?? [];
  });
}

const isMap = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** An object of a recording with what was cut from it because it was the same as in the event before. */
function whole(before: Json, { '…': cut, ...rest }: Json): Json {
  const filled = Object.entries(rest).map(([key, value]) => [key, filledIn(before[key], value)]);
  return { ...(cut === undefined ? {} : before), ...(Object.fromEntries(filled) as Json) };
}
function filledIn(before: unknown, value: unknown): unknown {
  if (isMap(value)) return whole(isMap(before) ? before : {}, value);
  if (!Array.isArray(value)) return value;
  const earlier = Array.isArray(before) ? before.filter(isMap) : [];
  return value.map((one: unknown) => {
    if (!isMap(one)) return one;
    return whole(earlier.find(({ name }) => name !== undefined && name === one['name']) ?? {}, one);
  });
}

/** A pod as the answer to its creation shows it, the one recording with a whole specification, and what is changed of it. */
function changed(changes: { metadata?: Json; spec?: Json; status?: Json }): ApiPod {
  const { metadata, spec, status } = answered('0101') as { metadata: Json; spec: Json; status: Json };
  const pod = apiPod({
    metadata: { ...metadata, ...changes.metadata },
    spec: { ...spec, ...changes.spec },
    status: { ...status, ...changes.status },
  });
  return pod ?? expect.fail('it is a pod');
}

describe('a pod of a real API server', () => {
  it('is read whole when it has just been made', () => {
    expect(apiPod(answered('0101'))).toEqual({
      uid: 'fc790238-e8c6-45ad-8106-9717c990f0b9',
      ...{ namespace: 'demo', name: 'web-1', nodeName: 'node-1', labels: {}, annotations: {} },
      kubernetes: { phase: 'Pending', isDeleting: false, ready: [], failed: [], job: undefined, claimMounts: [] },
      ...{ containerNames: ['main'], published: [] },
    });
  });

  it('is read with the container that runs and is ready', () => {
    const pod = apiPod(answered('0114'));
    expect(pod?.kubernetes).toMatchObject({ phase: 'Running', ready: ['main'], failed: [] });
    expect(pod?.published).toEqual([
      { id: 'd9080e5d93ad32ad70c38818737d40df2e39eda180b59022a9f549807031db5a', isRunning: true },
    ]);
  });

  it('is read from a list, whose items say no kind', () => {
    const { items } = answered('0102') as { items: Json[] };
    expect(items.map((item) => [apiPod(item)?.name, apiPod(item)?.kubernetes.phase])).toEqual([
      ['web-1', 'Running'],
      ['web-2', 'Running'],
    ]);
  });

  it('is read in each state of its life, to the end of its deletion', () => {
    const life = watched('1105').map(({ nodeName, containerNames, kubernetes, published }) => {
      expect([nodeName, containerNames]).toEqual(['node-1', ['main']]);
      const { phase, ready, failed, isDeleting } = kubernetes;
      expect(failed).toEqual([]);
      return [phase, isDeleting, ready, published.map(({ isRunning }) => isRunning)];
    });
    expect(life).toEqual([
      ['Pending', false, [], []],
      ['Pending', false, [], []],
      ['Pending', false, [], []],
      ['Running', false, ['main'], [true]],
      ['Running', true, ['main'], [true]],
      ['Running', true, ['main'], [true]],
      ['Succeeded', true, [], [false]],
      ['Succeeded', true, [], [false]],
      ['Succeeded', true, [], [false]],
    ]);
  });

  it('has failed as soon as its container ended so, before the phase says it', () => {
    const life = watched('1104').map(({ kubernetes: { phase, failed } }) => [phase, failed]);
    const failed = [{ name: 'main', exitCode: 42, reason: 'Error' }];
    expect(life.slice(-3)).toEqual([
      ['Running', []],
      ['Running', failed],
      ['Failed', failed],
    ]);
  });

  it('has its init containers published, but neither ready nor among its containers', () => {
    const life = watched('1109').map(({ containerNames, kubernetes, published }) => {
      expect(containerNames).toEqual(['main']);
      return [kubernetes.ready, published.map(({ isRunning }) => isRunning)];
    });
    expect(life).toEqual([
      [[], []],
      [[], []],
      [[], []],
      [[], [true]],
      [[], [false]],
      [['main'], [false, true]],
    ]);
  });

  it('belongs to the Job that owns it, from its first event to its last', () => {
    const job = { name: 'j-ok', uid: 'b2cdc79f-d48f-4d62-ae89-158795536b39' };
    const life = watched('0602');
    expect(life.length).toBeGreaterThan(5);
    for (const { labels, kubernetes } of life) {
      expect(kubernetes.job).toEqual(job);
      expect(labels).toEqual({ [LABELS.jobName]: 'j-ok' });
    }
    expect(life.at(-1)?.kubernetes.phase).toBe('Succeeded');
  });

  it('is the same pod in the DELETED that follows the removal of its label', () => {
    const [left, back] = watched('0202');
    expect(left?.uid).toBe(back?.uid);
    expect(left?.kubernetes.isDeleting).toBe(false);
  });

  it('that no node was found for is on none', () => {
    expect(watched('1112').map(({ nodeName }) => nodeName)).toEqual(['', '', '', '']);
  });

  it.each(['1114', '1115', '1116', '1118', '1119'])('is being deleted, as the answer %s says', (number) => {
    expect(apiPod(answered(number))?.kubernetes.isDeleting).toBe(true);
  });

  it('is none where it is a bookmark, a status, or another thing', () => {
    const bookmark = (readRecording('0202').response.events ?? []).find(({ type }) => type === 'BOOKMARK');
    expect(bookmark).toBeDefined();
    for (const object of [bookmark?.object, answered('0410'), answered('0107'), {}, null, undefined, 'pod', 7])
      expect(apiPod(object)).toBeUndefined();
  });
});

describe('what is kept of a pod', () => {
  it('are the labels and annotations that are ours, and the name of the Job', () => {
    const ours = { 'nvidia.com/one': '1', 'nvidia.com/two': '2' };
    const labels = { ...ours, app: 'web', [LABELS.jobName]: 'train' };
    const annotations = { ...ours, 'kubectl.kubernetes.io/last-applied-configuration': '{}' };
    const pod = changed({ metadata: { labels, annotations } });
    expect(pod.labels).toEqual({ ...ours, [LABELS.jobName]: 'train' });
    expect(pod.annotations).toEqual(ours);
  });

  it.each([
    ['a Job of that name that does not own it', [], ''],
    ['another Job that owns it', [{ kind: 'Job', name: 'other', uid: 'j', controller: true }], ''],
    ['an owner of that name that is no Job', [{ kind: 'ReplicaSet', name: 'train', uid: 'r', controller: true }], ''],
    ['a Job that is no controller of it', [{ kind: 'Job', name: 'train', uid: 'j' }], ''],
    ['the Job that owns it', [{ kind: 'Job', name: 'train', uid: 'j', controller: true }], 'j'],
  ])('is, of %s, the name and at most its own uid', (_, ownerReferences, uid) => {
    const pod = changed({ metadata: { labels: { [LABELS.jobName]: 'train' }, ownerReferences } });
    expect(pod.kubernetes.job).toEqual({ name: 'train', uid });
  });

  it('are the claims that its containers mount, and nothing of other volumes', () => {
    const volumes = [
      { name: 'data', persistentVolumeClaim: { claimName: 'checkpoints' } },
      { name: 'scratch', emptyDir: {} },
    ];
    const mount = (name: string) => ({ name, mountPath: `/${name}` });
    const containers = [
      { name: 'main', volumeMounts: [mount('data'), mount('scratch')] },
      { name: 'side', volumeMounts: [mount('scratch')] },
      { name: 'bare' },
    ];
    const pod = changed({ spec: { volumes, containers } });
    expect(pod.kubernetes.claimMounts).toEqual([{ container: 'main', mountPath: '/data', claim: 'checkpoints' }]);
    expect(pod.containerNames).toEqual(['main', 'side', 'bare']);
  });

  it('are the ids of the runtime, whichever it is, and of a container that waits for its restart the old one', () => {
    const one = (name: string, containerID: string, state: Json) => ({ name, containerID, state, ready: false });
    const containerStatuses = [
      one('a', 'containerd://1', { running: {} }),
      one('b', 'cri-o://2', { waiting: { reason: 'CrashLoopBackOff' } }),
      one('c', '', { waiting: { reason: 'ContainerCreating' } }),
    ];
    expect(changed({ status: { containerStatuses } }).published).toEqual([
      { id: '1', isRunning: true },
      { id: '2', isRunning: false },
    ]);
  });

  it('are the failures of init containers too, and no end with exit code 0', () => {
    const ended = (name: string, exitCode: number) => ({ name, ready: false, state: { terminated: { exitCode } } });
    const status = { initContainerStatuses: [ended('init', 1)], containerStatuses: [ended('main', 0)] };
    expect(changed({ status }).kubernetes.failed).toEqual([{ name: 'init', exitCode: 1, reason: '' }]);
  });

  it('is a phase that nobody knows yet as Unknown', () => {
    expect(changed({ status: { phase: 'Dreaming' } }).kubernetes.phase).toBe('Unknown');
  });
});
