import { expect, it } from 'vitest';
import type { Pod } from '../../../kube/objects.ts';
import { containerId, podSummary } from '../../../snapshotctl/workload/pod-state.ts';

const container = (name: string, state: object, ready = false) => ({
  name,
  ready,
  state,
  image: '',
  imageID: '',
  restartCount: 0,
});
const pod = (status: NonNullable<Pod['status']>, metadata = {}): Pod => ({
  metadata: { name: 'web', ...metadata },
  status,
});

it.each<[string, Pod, string]>([
  ['nothing is known', { metadata: { name: 'web' } }, 'pod web: Pending'],
  [
    'no node takes it',
    pod({
      phase: 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/3 nodes\nare free' }],
    }),
    'pod web: Pending; not scheduled: Unschedulable: 0/3 nodes are free',
  ],
  [
    'its image does not come',
    pod({
      phase: 'Pending',
      containerStatuses: [
        container('main', { waiting: { reason: 'ErrImagePull', message: 'no such \u001b[31mimage' } }),
      ],
    }),
    'pod web: Pending; main waits (ErrImagePull: no such  [31mimage)',
  ],
  [
    'it runs, all but an init container',
    pod({
      phase: 'Running',
      initContainerStatuses: [container('init', { terminated: { exitCode: 0, reason: 'Completed' } })],
      containerStatuses: [container('main', { running: {} }, true), container('side', { running: {} })],
    }),
    'pod web: Running; init ended with status 0 (Completed); main is ready; side runs, not ready',
  ],
  [
    'it goes',
    pod({ phase: 'Running' }, { deletionTimestamp: '2026-01-01T00:00:00Z' }),
    'pod web: Running; is being deleted',
  ],
])('says of a pod where it stands: %s', (_, object, summary) => {
  expect(podSummary(object)).toBe(summary);
});

it('knows the container that has a name now', () => {
  const status = { ...container('main', { running: {} }), containerID: 'containerd://abc' };
  expect(containerId(pod({ containerStatuses: [status] }), 'main')).toBe('abc');
  expect(containerId(pod({}), 'main')).toBeUndefined();
});
