import { beforeEach } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../../../contract/keys.ts';
import { newEventWriter } from '../../../../kube/events.ts';
import { microTime } from '../../../../kube/lease-object.ts';
import type { Agents } from '../../../../operator/agents/agents.ts';
import { newCheckpointCache, newJobCache, newSourcePodCache } from '../../../../operator/checkpoint/caches.ts';
import { type CheckpointParts, runCheckpoints } from '../../../../operator/checkpoint/controller.ts';
import { completeJob, startJobPod } from '../../../fakes/kube-api/job-controller.ts';
import type { Json, KubeObject } from '../../../fakes/kube-api/resources.ts';
import { CHECKPOINT } from '../../../unit/crds/samples.ts';
import { useControl } from '../stage.ts';

/** Identity hash of the sample, and its first Job. */
export const ID = '4da999bc6c673b97';
export const JOB = `checkpoint-job-${ID}-1`;
export const JOB_KEY = `demo/${JOB}`;
export const POD = `${JOB}-abcde`;

const TIMINGS = { lease: 20, event: 10, storage: 20, deletion: 20, permission: 20, progress: 30, eventGrace: 100 };
export const CLAIM = {
  ...{ pvcName: 'snapshot-pvc', basePath: '/checkpoints', create: true, size: '1Ti', storageClassName: '' },
  accessMode: 'ReadWriteMany',
};

type Options = Partial<Pick<CheckpointParts, 'agents' | 'config' | 'timings'>>;

/** An operator that runs. */
export interface RunningOperator {
  /** As a kill ends it: what it has under way is cut off. */
  kill(): Promise<unknown>;
}

/** For each test a cluster with an agent's DaemonSet, operators that are started on it, and hands for what agent and Job controller do. */
export function useCheckpoints() {
  const control = useControl({ collectsGarbage: true });
  const { stage } = control;

  beforeEach(() => {
    stage.api.put(daemonSet());
  });

  const start = (options: Options = {}): RunningOperator => {
    const { client, metrics, log } = stage;
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, stage.stop.signal]);
    const common = { client, metrics, log: log.log, timings: { backoff: { minMs: 2, maxMs: 20 } } };
    const [checkpoints, jobs, pods] = [newCheckpointCache(common), newJobCache(common), newSourcePodCache(common)];
    const events = newEventWriter({ client, source: { component: 'snapshot-operator' } });
    const parts: CheckpointParts = {
      ...{ client, metrics, log: log.log, checkpoints, jobs, pods, events, agents: undefined },
      config: { storage: {}, seccomp: { disabled: false, profile: '' } },
      backoff: { minMs: 2, maxMs: 20 },
      ...options,
      timings: { ...TIMINGS, ...options.timings },
    };
    const running = Promise.all([
      ...[checkpoints, jobs, pods, events].map((one) => one.run(signal)),
      runCheckpoints(parts, signal),
    ]);
    control.run(() => running);
    return {
      kill: () => {
        stop.abort();
        return running;
      },
    };
  };

  const apply = (name = 'qwen', change: { metadata?: Json; spec?: Json } = {}) =>
    stage.api.put({
      ...{ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name, namespace: 'demo', ...change.metadata } },
      spec: { ...(CHECKPOINT['spec'] as Json), ...change.spec },
    });
  const statusOf = (name = 'qwen') => (stage.api.get('dynamocheckpoints', `demo/${name}`)?.status ?? {}) as Status;
  const condition = (type: string, name = 'qwen') => statusOf(name).conditions?.find((one) => one.type === type);
  const annotate = (annotations: Record<string, string | null>, name = 'qwen') =>
    stage.api.patch('dynamocheckpoints', `demo/${name}`, { metadata: { annotations } });
  /** What an agent says of the Job. */
  const declare = (status: 'completed' | 'failed', key = JOB_KEY) =>
    stage.api.patch('jobs', key, { metadata: { annotations: { [ANNOTATIONS.checkpointStatus]: status } } });
  const startPod = (key = JOB_KEY) => startJobPod(stage.api, key, `${key.slice('demo/'.length)}-abcde`);
  const complete = (key = JOB_KEY) => completeJob(stage.api, key, `${key.slice('demo/'.length)}-abcde`);
  /** An agent that is at work on the Job. */
  const holdLease = (seconds = 30) =>
    stage.api.put({
      ...{ kind: 'Lease', metadata: { name: JOB, namespace: 'demo' } },
      spec: {
        ...{ holderIdentity: 'snapshot-agent/1', leaseDurationSeconds: seconds },
        ...{ acquireTime: microTime(new Date()), renewTime: microTime(new Date()) },
      },
    });
  /** From now on each Job has its pod, its checkpoint and its end, as with an agent that works. */
  const work = () =>
    stage.api.onChange('jobs', (job, isDeleted) => {
      const isNew =
        !isDeleted && job.status?.['startTime'] === undefined && job.metadata.deletionTimestamp === undefined;
      const key = `${job.metadata.namespace}/${job.metadata.name}`;
      if (!isNew || job.metadata.labels?.[LABELS.checkpointId] === undefined) return;
      setImmediate(() => {
        if (stage.api.get('jobs', key)?.metadata.uid !== job.metadata.uid) return;
        startPod(key);
        declare('completed', key);
        complete(key);
      });
    });
  const eventsOf = (reason: string): KubeObject[] =>
    stage.api.list('events').filter((event) => event['reason'] === reason);
  /** An Event of the agent about the Job's pod. */
  const agentSays = (message: string, pod: KubeObject) =>
    stage.api.put({
      ...{ kind: 'Event', metadata: { name: `${pod.metadata.name}.1`, namespace: 'demo' } },
      ...{ type: 'Warning', reason: 'CheckpointFailed', message, source: { component: 'snapshot' } },
      involvedObject: { kind: 'Pod', namespace: 'demo', name: pod.metadata.name, uid: pod.metadata.uid },
    });
  return {
    ...control,
    ...{
      start,
      apply,
      statusOf,
      condition,
      annotate,
      declare,
      startPod,
      complete,
      holdLease,
      work,
      eventsOf,
      agentSays,
    },
  };
}

interface Status {
  readonly phase?: string;
  readonly checkpointID?: string;
  readonly identityHash?: string;
  readonly jobName?: string;
  readonly createdAt?: string;
  readonly message?: string;
  readonly conditions?: readonly { type: string; status: string; reason: string; message: string }[];
}

/** Agents that say what a test wants. */
export function scriptedAgents(script: Partial<Agents> = {}): Agents {
  return {
    progressOf: () => Promise.resolve(undefined),
    artifact: () => Promise.resolve({ result: 'complete' }),
    versions: () => Promise.resolve({ result: 'listed', versions: [] }),
    deleteArtifact: () => Promise.resolve({ result: 'absent' }),
    ...script,
  };
}

/** The agents of namespace `demo`, which mount the artifacts themselves. */
function daemonSet() {
  return {
    kind: 'DaemonSet',
    metadata: {
      name: 'snapshot-agent',
      namespace: 'demo',
      labels: { 'app.kubernetes.io/component': 'snapshot-agent' },
    },
    spec: {
      selector: { matchLabels: { app: 'agent' } },
      template: {
        metadata: { labels: { app: 'agent' } },
        spec: {
          containers: [
            { name: 'agent', image: 'agent', volumeMounts: [{ name: 'checkpoints', mountPath: '/checkpoints' }] },
          ],
          volumes: [{ name: 'checkpoints', persistentVolumeClaim: { claimName: 'snapshot-pvc' } }],
        },
      },
    },
  };
}
