import { describe, expect, it } from 'vitest';
import { type Decision, decide, type History, type StorageRules } from '../../../agent/plan/decide.ts';
import { ANNOTATIONS, LABELS, SCOPED_ANNOTATIONS } from '../../../contract/keys.ts';
import type { ContainerView, KubernetesFacts, PodView } from '../../../contract/pods.ts';

/** What only the Kubernetes API knows of a pod, and what it changes. */
const none: History = () => ({ state: 'none' });
const agentMount: StorageRules = { accessMode: 'agentMount', basePath: '/checkpoints' };
const podMount: StorageRules = { accessMode: 'podMount', basePath: '/checkpoints' };
const main: ContainerView = { name: 'main', id: 'c-main', state: 'running', attempt: 0 };
const side: ContainerView = { name: 'side', id: 'c-side', state: 'running', attempt: 0 };
const job = { name: 'job', uid: 'job-uid' };

interface Changes {
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly containers?: readonly ContainerView[];
  readonly facts?: Partial<KubernetesFacts>;
}

function target({ labels, annotations, containers = [main], facts }: Changes = {}): PodView {
  return {
    ...{ uid: 'uid', namespace: 'demo', name: 'web', sandboxId: 'sandbox', containers },
    labels: { [LABELS.checkpointId]: 'ckpt', ...labels },
    annotations: { [ANNOTATIONS.targetContainers]: 'main', ...annotations },
    kubernetes: {
      ...{ phase: 'Running', isDeleting: false, ready: ['main'], failed: [], job: undefined, claimMounts: [] },
      ...facts,
    },
  };
}

const sourceLabels = { [LABELS.checkpointSource]: 'true', [LABELS.jobName]: 'job' };
const source = ({ labels, facts, ...changes }: Changes = {}) =>
  target({ ...changes, labels: { ...sourceLabels, ...labels }, facts: { job, ...facts } });

const only = (pod: PodView, history = none, storage = agentMount): Decision | undefined => {
  const decisions = decide(pod, history, storage);
  expect(decisions.length).toBeLessThan(2);
  return decisions[0];
};
const kindOf = (pod: PodView) => only(pod)?.kind;

describe('a checkpoint source', () => {
  it.each<[string, KubernetesFacts['phase'], readonly string[], boolean, Decision['kind']]>([
    ['is checkpointed when it runs and is ready', 'Running', ['main'], false, 'checkpoint'],
    ['waits until it is ready', 'Running', [], false, 'nothing'],
    ['waits although another container is ready', 'Running', ['side'], false, 'nothing'],
    ['waits until its pod runs', 'Pending', ['main'], false, 'nothing'],
    ['is left alone when its pod is deleted', 'Running', ['main'], true, 'nothing'],
    ['is left alone when its pod succeeded', 'Succeeded', ['main'], false, 'nothing'],
    ['is left alone when its pod failed', 'Failed', ['main'], false, 'nothing'],
    ['is left alone when nobody knows how its pod is', 'Unknown', ['main'], false, 'nothing'],
  ])('%s', (_, phase, ready, isDeleting, kind) => {
    expect(kindOf(source({ facts: { phase, ready, isDeleting } }))).toBe(kind);
  });

  it('of a Job has failed when any container of its pod has, and those that run are named', () => {
    const failed = [{ name: 'side', exitCode: 3, reason: 'Error' }];
    const exited: ContainerView = { ...side, state: 'exited' };
    const decision = only(source({ containers: [main, exited], facts: { failed, ready: [] } }));
    expect(decision).toEqual({ kind: 'worker-failed', failed, running: [main] });
  });

  it('without a Job has not: the others of its pod are no concern', () => {
    const failed = [{ name: 'side', exitCode: 3, reason: 'Error' }];
    const bare = target({ labels: { [LABELS.checkpointSource]: 'true' }, facts: { failed } });
    expect(kindOf(bare)).toBe('checkpoint');
  });
});

describe('a restore target', () => {
  it.each<[string, KubernetesFacts['phase'], boolean, Decision['kind']]>([
    ['is restored before kubelet has said that its pod runs', 'Pending', false, 'restore'],
    ['is restored, ready or not', 'Running', false, 'restore'],
    ['is left alone when its pod is deleted', 'Running', true, 'nothing'],
    ['is left alone when its pod succeeded', 'Succeeded', false, 'nothing'],
    ['is left alone when its pod failed', 'Failed', false, 'nothing'],
    ['is left alone when nobody knows how its pod is', 'Unknown', false, 'nothing'],
  ])('%s', (_, phase, isDeleting, kind) => {
    expect(kindOf(target({ facts: { phase, ready: [], isDeleting } }))).toBe(kind);
  });

  it('has a name that annotations of its own can have', () => {
    const named = (name: string) =>
      target({ annotations: { [ANNOTATIONS.targetContainers]: name }, containers: [{ ...main, name }] });
    const longest = 'n'.repeat(33);
    expect(kindOf(named(longest))).toBe('restore');
    const name = `${longest}n`;
    const pod = named(name);
    expect(only(pod)).toMatchObject({ kind: 'malformed', reason: expect.stringContaining('at most 63 are allowed') });
    // Of a source nothing is said on its pod.
    const asSource = { ...pod, labels: { ...pod.labels, ...sourceLabels } };
    expect(only(asSource)).toMatchObject({ kind: 'nothing', container: name });
  });
});

const said = (status: string, id = main.id) => ({
  [`${SCOPED_ANNOTATIONS.restoreStatus}main`]: status,
  [`${SCOPED_ANNOTATIONS.restoreContainerId}main`]: id,
});

describe('a restore that ended', () => {
  const restore = { requestId: 'r', traceId: 't', checkpointId: 'ckpt', version: '1' };
  const failure = { code: 'OUTCOME_UNKNOWN', message: 'the agent died', advice: 'look' };
  const succeeded: History = () => ({ state: 'restored', restore });
  const failed: History = () => ({ state: 'restored', restore: { ...restore, failure } });
  it.each([
    ['is not said at all', {}],
    ['is said to be under way', said('in_progress')],
    ['is said of an earlier container', said('completed', 'c-earlier')],
    ['is said to have ended otherwise', said('failed')],
  ])('is told again where it %s', (_, annotations) => {
    expect(only(target({ annotations }), succeeded)).toMatchObject({ kind: 'report', status: 'completed', restore });
  });

  it('is told again with its failure, and of a container that has ended', () => {
    const ended = target({ containers: [{ ...main, state: 'exited' }], facts: { phase: 'Failed' } });
    expect(only(ended, failed)).toMatchObject({ kind: 'report', status: 'failed', restore: { failure } });
  });

  it.each([
    ['is said', target({ annotations: said('completed') })],
    ['is of a pod that is deleted', target({ facts: { isDeleting: true } })],
  ])('is not told again where it %s', (_, pod) => {
    expect(only(pod, succeeded)).toMatchObject({ kind: 'nothing' });
  });
});

describe('a restore that nothing is known of', () => {
  it.each([
    ['ended well', said('completed'), 'nothing'],
    ['failed', said('failed'), 'nothing'],
    // Perhaps nothing had begun when it was said.
    ['is under way', said('in_progress'), 'restore'],
    ['ended in an earlier container', said('completed', 'c-earlier'), 'restore'],
    ['is something else', said('done'), 'restore'],
  ])('counts as what the pod says of it: it %s', (_, annotations, kind) => {
    expect(kindOf(target({ annotations }))).toBe(kind);
  });

  it('is no concern of a source', () => {
    expect(kindOf(source({ annotations: said('completed') }))).toBe('checkpoint');
  });
});

describe('in podMount mode', () => {
  const at = (mountPath: string, container = 'main') => ({ claimMounts: [{ container, mountPath, claim: 'models' }] });

  it.each([
    ['the base path itself', {}, '/checkpoints'],
    ['a directory above it', {}, '/'],
    ['a path above the one that the pod names', { [ANNOTATIONS.storageBasePath]: '/data/ckpt' }, '/data/'],
  ])('a container may mount a claim at %s', (_, annotations, mountPath) => {
    expect(only(target({ annotations, facts: at(mountPath) }), none, podMount)).toMatchObject({ kind: 'restore' });
  });

  it.each([
    ['no claim', {}],
    ['a claim elsewhere', at('/other')],
    ['a claim at a path that only begins like it', at('/check')],
    ['a claim below it', at('/checkpoints/mine')],
    ['a claim in another container', at('/checkpoints', 'side')],
  ])('a container that mounts %s there is left alone, and that is said', (_, facts) => {
    const decision = only(target({ facts }), none, podMount);
    expect(decision).toEqual({
      kind: 'malformed',
      reason: 'container main mounts no persistent volume claim at /checkpoints',
      containerId: main.id,
    });
    expect(only(target({ facts }), none, agentMount)).toMatchObject({ kind: 'restore' });
  });
});
