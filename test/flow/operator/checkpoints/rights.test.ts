import { describe, expect, it } from 'vitest';
import { eventually } from '../../kube/server.ts';
import { CLAIM, JOB_KEY, useCheckpoints } from './stage.ts';

const { stage, start, apply, statusOf, condition, annotate, work, declare, startPod, eventsOf } = useCheckpoints();

/** All that checkpoints need. */
const RULES = [
  { apiGroups: ['nvidia.com'], resources: ['dynamocheckpoints'], verbs: ['get', 'list', 'watch', 'patch'] },
  { apiGroups: ['nvidia.com'], resources: ['dynamocheckpoints/status'], verbs: ['patch'] },
  { apiGroups: ['batch'], resources: ['jobs'], verbs: ['get', 'list', 'watch', 'create', 'delete'] },
  { apiGroups: [''], resources: ['pods'], verbs: ['list', 'watch'] },
  { apiGroups: [''], resources: ['events'], verbs: ['list', 'create', 'patch'] },
  { apiGroups: [''], resources: ['persistentvolumeclaims'], verbs: ['get', 'create'] },
  { apiGroups: ['apps'], resources: ['daemonsets'], verbs: ['list'] },
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['get'] },
];
const allowed = (rules: typeof RULES) => stage.api.setRoles([{ kind: 'ClusterRole', rules }]);

describe('the rights of the operator', () => {
  it.each([
    ['agentMount', {}],
    ['podMount', { pvc: CLAIM }],
  ])('are enough for a failure, a try more and a checkpoint (%s)', async (_, storage) => {
    allowed(RULES);
    start({ config: { storage, seccomp: { disabled: false, profile: '' } } });
    apply();
    await eventually(() => expect(statusOf().phase).toBe('Creating'));
    const pod = startPod();
    declare('failed');
    await eventually(() => expect(statusOf().phase).toBe('Failed'));
    work();
    stage.api.patch('pods', `demo/${pod.metadata.name}`, { metadata: { finalizers: null } });
    annotate({ 'nvidia.com/dynamo-checkpoint-retry': 'now' });
    await eventually(() => expect(statusOf().phase).toBe('Ready'));
    await eventually(() => expect(eventsOf('CheckpointReady')).toHaveLength(1));
    expect(stage.api.calls({ where: ({ status }) => status === 403 })).toEqual([]);
  });

  it('say what is missing where they do not reach for a Job, and it is made once they do', async () => {
    allowed(
      RULES.filter(({ resources }) => !resources.includes('jobs')).concat({
        apiGroups: ['batch'],
        resources: ['jobs'],
        verbs: ['get', 'list', 'watch'],
      }),
    );
    start();
    apply();
    await eventually(() => expect(statusOf().message).toMatch(/^checkpoint job \S+ cannot be created: .*403/));
    expect(statusOf().phase).toBe('Pending');
    allowed(RULES);
    await eventually(() => expect(statusOf().phase).toBe('Creating'));
  });

  it('may leave Events out: then nobody hears of what they say', async () => {
    allowed(RULES.filter(({ resources }) => !resources.includes('events')));
    start();
    apply();
    await eventually(() => expect(statusOf().phase).toBe('Creating'));
    startPod();
    declare('failed');
    await eventually(() =>
      expect(statusOf()).toMatchObject({ phase: 'Failed', message: expect.stringContaining('snapshot-agent says') }),
    );
    expect(stage.api.get('jobs', JOB_KEY)).toBeDefined();
  });
});

it('a Job that the server refuses is a failure, with its words', async () => {
  const message = 'Job.batch "x" is invalid: spec.template.spec.containers[0].image: Required value';
  stage.api.fault({ verb: 'create', resource: 'jobs' }, { kind: 'refuse', code: 422, reason: 'Invalid', message });
  start();
  apply();
  await eventually(() => expect(statusOf().phase).toBe('Failed'));
  expect(condition('JobCreated')).toMatchObject({
    ...{ status: 'False', reason: 'JobRefused', message: expect.stringContaining(message) },
  });
});
