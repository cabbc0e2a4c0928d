/** The status of a Job as a real controller was recorded to write it. The test decides when. */
import type { Cluster } from './cluster.ts';
import type { Json, KubeObject } from './resources.ts';
import { timestamp } from './writes.ts';

const IDLE = { terminating: 0, uncountedTerminatedPods: {}, ready: 0 };
const TRACKING_FINALIZER = 'batch.kubernetes.io/job-tracking';

/** Creates the pod of a Job as the controller does, from the Job's template; the Job then has one active pod. */
export function startJobPod(api: Cluster, jobKey: string, podName: string): KubeObject {
  const job = need(api, jobKey);
  const { name, namespace, uid } = job.metadata;
  const { metadata = {}, spec = {} } = (job.spec?.['template'] ?? {}) as { metadata?: Json; spec?: Json };
  const labels = { ...(metadata['labels'] as Json), 'batch.kubernetes.io/job-name': name, 'job-name': name };
  const owner = { apiVersion: 'batch/v1', kind: 'Job', name, uid, controller: true, blockOwnerDeletion: true };
  const uids = { 'batch.kubernetes.io/controller-uid': uid, 'controller-uid': uid };
  const pod = api.put({
    kind: 'Pod',
    metadata: {
      ...metadata,
      ...{ name: podName, generateName: `${name}-`, namespace, labels: { ...labels, ...uids } },
      ...{ ownerReferences: [owner], finalizers: [TRACKING_FINALIZER] },
    },
    spec,
  });
  api.patch('jobs', jobKey, { status: { startTime: timestamp(), active: 1, ...IDLE } });
  return pod;
}

/** The pod of the Job succeeded: SuccessCriteriaMet, the pod loses its finalizer, Complete. */
export function completeJob(api: Cluster, jobKey: string, podName: string): KubeObject {
  const why = { reason: 'CompletionsReached', message: 'Reached expected number of succeeded pods' };
  const ending = { api, jobKey, podName, first: 'SuccessCriteriaMet', last: 'Complete', why };
  return endJob(ending, 'succeeded', { completionTime: timestamp() });
}

/** The pod of the Job failed: FailureTarget, the pod loses its finalizer, Failed. */
export function failJob(api: Cluster, jobKey: string, podName: string): KubeObject {
  const why = { reason: 'BackoffLimitExceeded', message: 'Job has reached the specified backoff limit' };
  return endJob({ api, jobKey, podName, first: 'FailureTarget', last: 'Failed', why }, 'failed', {});
}

interface Ending {
  readonly api: Cluster;
  readonly jobKey: string;
  readonly podName: string;
  readonly first: string;
  readonly last: string;
  readonly why: Json;
}

function endJob(
  { api, jobKey, podName, first, last, why }: Ending,
  count: 'succeeded' | 'failed',
  more: Json,
): KubeObject {
  const now = timestamp();
  const condition = (type: string) => ({ type, status: 'True', lastProbeTime: now, lastTransitionTime: now, ...why });
  const podKey = `${need(api, jobKey).metadata.namespace}/${podName}`;
  const pod = api.get('pods', podKey);
  const uncounted = pod === undefined ? {} : { [count]: [pod.metadata.uid] };
  const counting = { ...IDLE, active: null, uncountedTerminatedPods: uncounted };
  api.patch('jobs', jobKey, { status: { conditions: [condition(first)], ...counting } });
  if (pod !== undefined) api.patch('pods', podKey, { metadata: { finalizers: null } });
  const counted = { [count]: 1, uncountedTerminatedPods: { [count]: null } };
  return api.patch('jobs', jobKey, {
    status: { conditions: [condition(first), condition(last)], ...more, ...counted },
  });
}

function need(api: Cluster, jobKey: string): KubeObject {
  const job = api.get('jobs', jobKey);
  if (job === undefined) throw new Error(`the fake Job controller knows no Job ${jobKey}`);
  return job;
}
