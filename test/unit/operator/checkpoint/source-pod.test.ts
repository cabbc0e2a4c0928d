import { expect, it } from 'vitest';
import { LABELS } from '../../../../contract/keys.ts';
import { readSourcePod } from '../../../../operator/checkpoint/source-pod.ts';

const metadata = { name: 'p', namespace: 'demo', uid: 'u', resourceVersion: '1', labels: { [LABELS.jobName]: 'j' } };
const troubleOf = (status: unknown) => readSourcePod({ metadata, spec: {}, status })?.trouble;
const waiting = (reason: string, message?: string) => ({ name: 'main', state: { waiting: { reason, message } } });

it('says why a pod has no node', () => {
  const message = '0/3 nodes are available: 3 Insufficient nvidia.com/gpu.';
  const condition = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message };
  expect(troubleOf({ conditions: [condition] })).toBe(`pod p has no node yet: Unschedulable: ${message}`);
  expect(troubleOf({ conditions: [{ ...condition, status: 'True' }] })).toBeUndefined();
});

it('says why a container does not start, those that prepare the pod included', () => {
  const pulling = { containerStatuses: [waiting('ImagePullBackOff', 'Back-off pulling image "x"')] };
  expect(troubleOf(pulling)).toBe(
    'container main of pod p does not start: ImagePullBackOff: Back-off pulling image "x"',
  );
  expect(troubleOf({ ...pulling, initContainerStatuses: [{ ...waiting('CrashLoopBackOff'), name: 'first' }] })).toBe(
    'container first of pod p does not start: CrashLoopBackOff',
  );
  expect(troubleOf({ containerStatuses: [waiting('x', 'y'.repeat(5_000))] })).toHaveLength(400);
});

it.each([
  ['that is on its way', { containerStatuses: [waiting('ContainerCreating'), waiting('PodInitializing')] }],
  ['that runs', { containerStatuses: [{ name: 'main', state: { running: {} } }] }],
  ['with nulls', { conditions: null, containerStatuses: null, initContainerStatuses: null }],
  ['whose status is none', { containerStatuses: 'x' }],
  ['without a status', undefined],
])('says nothing of a pod %s', (_, status) => {
  expect(readSourcePod({ metadata, spec: {}, status })).toMatchObject({ name: 'p', trouble: undefined });
});
