import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION, LABELS, SCOPED_ANNOTATIONS, SENTINELS } from '../../contract/keys.ts';
import type { Gate } from '../fakes/kube-api/gates.ts';
import { startJobPod } from '../fakes/kube-api/job-controller.ts';
import type { Json, KubeObject } from '../fakes/kube-api/resources.ts';
import { eventually } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { type KubeNode, NODE } from './environment/kube-node.ts';
import { workload } from './environment/pod.ts';
import type { ContainerSpec, PodSpec, Probe } from './environment/pod-object.ts';
import { freshName, snapshotPod } from './scenario.ts';

export const NAMESPACE = 'demo';
export const keyOf = (name: string) => `${NAMESPACE}/${name}`;

/** Answers when the worker is quiet, as checkpoint Jobs have it. */
const READY_PROBE: Probe = { exec: { command: ['cat', `/snapshot-control/${SENTINELS.ready}`] } };
/** Answers as soon as the container runs. */
export const RUNS: Probe = { exec: { command: ['cat', '/proc/1/stat'] } };
/** Answers when the worker serves. */
const SERVING_PROBE: Probe = { exec: { command: ['cat', '/tmp/serving'] } };

const CONTROL = { name: 'snapshot-control', emptyDir: {} };
const controlMount = (container: string) => ({
  name: CONTROL.name,
  mountPath: '/snapshot-control',
  subPath: container,
});

/** The container of a checkpoint Job: a small worker, ready when it is quiet. */
export function sourceContainer(over: Partial<ContainerSpec> = {}): ContainerSpec {
  const { name = 'main' } = over;
  const { volumeMounts = [], ...rest } = over;
  return {
    name,
    image: IMAGES.placeholder,
    command: workload('worker', '1', '0'),
    readinessProbe: READY_PROBE,
    volumeMounts: [controlMount(name), ...volumeMounts],
    ...rest,
  };
}

/** A container that waits to be restored into, and has started when the restored worker serves. */
export function targetContainer(over: Partial<ContainerSpec> = {}): ContainerSpec {
  const { name = 'main' } = over;
  const { volumeMounts = [], env = [], ...rest } = over;
  return {
    name,
    image: IMAGES.placeholder,
    command: ['/usr/local/bin/snapshot-standby'],
    env: [{ name: 'DYN_SNAPSHOT_RESTORE_STANDBY', value: '1' }, ...env],
    startupProbe: SERVING_PROBE,
    volumeMounts: [controlMount(name), ...volumeMounts],
    ...rest,
  };
}

export interface SourceJobRequest {
  readonly name?: string;
  /** Checkpoint id; a new one without it. */
  readonly id?: string;
  readonly version?: string;
  readonly containers?: readonly ContainerSpec[];
  /** The names in the annotation; `main` without it. */
  readonly targets?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly nodeName?: string;
  readonly pod?: Partial<PodSpec>;
}

/** A checkpoint Job with its pod. */
export interface SourceJob {
  readonly id: string;
  readonly version: string;
  readonly jobKey: string;
  readonly podKey: string;
}

/** Creates a checkpoint Job, and its pod as the Job controller does. */
export function runJob(kube: KubeNode, request: SourceJobRequest = {}): SourceJob {
  const { name = freshName('job') } = request;
  const { id = freshName('ckpt'), version = DEFAULT_ARTIFACT_VERSION, nodeName = NODE } = request;
  const { containers = [sourceContainer()], targets, annotations, pod } = request;
  const wanted = snapshotPod({ id, version, ...(targets && { containers: targets }) }, {});
  const template = {
    metadata: { labels: wanted.labels, annotations: { ...wanted.annotations, ...annotations } },
    spec: podSpec({ nodeName, containers, terminationGracePeriodSeconds: 1, ...pod }),
  };
  const metadata = { name, namespace: NAMESPACE, labels: { [LABELS.checkpointId]: id } };
  kube.api.put({ kind: 'Job', metadata, spec: { backoffLimit: 0, template } });
  const podName = `${name}-pod`;
  startJobPod(kube.api, keyOf(name), podName);
  return { id, version, jobKey: keyOf(name), podKey: keyOf(podName) };
}

export interface TargetPodRequest {
  readonly name?: string;
  readonly containers?: readonly ContainerSpec[];
  /** The names in the annotation; all containers without it. */
  readonly targets?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly nodeName?: string;
  readonly pod?: Partial<PodSpec>;
}

/** Creates a restore pod; answers its key. */
export function runTargetPod(
  kube: KubeNode,
  wanted: { readonly id: string; readonly version?: string },
  request: TargetPodRequest = {},
): string {
  const { name = freshName('target'), containers = [targetContainer()], nodeName = NODE } = request;
  const targets = request.targets ?? containers.map((one) => one.name);
  const { labels, annotations } = snapshotPod({ ...wanted, containers: targets });
  return runPlainPod(kube, {
    name,
    labels: { ...labels, ...request.labels },
    annotations: { ...annotations, ...request.annotations },
    spec: { nodeName, containers, ...request.pod },
  });
}

/** Creates a pod that asks for nothing but what its labels say. */
export function runPlainPod(
  kube: KubeNode,
  pod: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly spec: PodSpec;
  },
): string {
  const { name, labels = {}, annotations = {}, spec } = pod;
  kube.api.put({ kind: 'Pod', metadata: { name, namespace: NAMESPACE, labels, annotations }, spec: podSpec(spec) });
  return keyOf(name);
}

function podSpec({ volumes = [], ...spec }: PodSpec): Json {
  const gracePeriod = { terminationGracePeriodSeconds: 1 };
  return { ...gracePeriod, restartPolicy: 'Never', ...spec, volumes: [CONTROL, ...volumes] };
}

/** What the agent says of a restore on its pod. */
export function restoreStatus(pod: KubeObject | undefined, container = 'main') {
  const { annotations = {} } = pod?.metadata ?? {};
  return {
    status: annotations[SCOPED_ANNOTATIONS.restoreStatus + container],
    containerId: annotations[SCOPED_ANNOTATIONS.restoreContainerId + container],
  };
}

/** Waits until the agent says of a restore that it ended this way. */
export async function restoreEnded(
  kube: KubeNode,
  podKey: string,
  { container = 'main', status = 'completed' }: { readonly container?: string; readonly status?: string } = {},
): Promise<void> {
  await eventually(
    `${status} of container ${container} of pod ${podKey}`,
    () => restoreStatus(kube.api.get('pods', podKey), container).status === status || undefined,
    { timeoutMs: 60_000, explain: () => JSON.stringify(kube.api.get('pods', podKey), undefined, 1) },
  );
}

/** What the agent declared a Job. */
export function jobStatus(kube: KubeNode, { jobKey }: Pick<SourceJob, 'jobKey'>): string | undefined {
  return kube.api.get('jobs', jobKey)?.metadata.annotations?.[ANNOTATIONS.checkpointStatus];
}

/** Waits until the Job has ended by its own controller's word: `Complete` or `Failed`. */
export async function jobEnded(kube: KubeNode, { jobKey }: SourceJob): Promise<string> {
  const conditionOf = () => {
    const conditions = (kube.api.get('jobs', jobKey)?.status?.['conditions'] ?? []) as { type: string }[];
    return conditions.find(({ type }) => type === 'Complete' || type === 'Failed')?.type;
  };
  return eventually(`the end of Job ${jobKey}`, conditionOf, {
    timeoutMs: 60_000,
    explain: () => JSON.stringify(kube.api.get('jobs', jobKey), undefined, 1),
  });
}

/** Whether kubelet says that the pod is ready. */
export function isReady(kube: KubeNode, podKey: string): boolean {
  const conditions = (kube.api.get('pods', podKey)?.status?.['conditions'] ?? []) as { type: string; status: string }[];
  return conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
}

export async function becomesReady(kube: KubeNode, podKey: string): Promise<void> {
  await eventually(`that pod ${podKey} is ready`, () => isReady(kube, podKey) || undefined, { timeoutMs: 60_000 });
}

/** Reasons of the Events about a pod, in the order they were written. */
export function eventReasons(kube: KubeNode, podKey: string): string[] {
  return eventsOf(kube, podKey).map((event) => String(event['reason']));
}

function eventsOf(kube: KubeNode, podKey: string): KubeObject[] {
  return kube.api
    .list('events')
    .filter((event) => {
      const { namespace, name } = event['involvedObject'] as { namespace: string; name: string };
      return `${namespace}/${name}` === podKey;
    })
    .sort((a, b) => Number(a.metadata.resourceVersion) - Number(b.metadata.resourceVersion));
}

/** Waits for an Event about a pod. */
export async function eventOf(kube: KubeNode, podKey: string, reason: string): Promise<KubeObject> {
  return eventually(
    `Event ${reason} about ${podKey}`,
    () => eventsOf(kube, podKey).find((event) => event['reason'] === reason),
    // After an outage it is tried again only now and then.
    { timeoutMs: 60_000, explain: () => JSON.stringify(eventsOf(kube, podKey), undefined, 1) },
  );
}

/** Ends the calls that wait at a gate unheard, as the death of whoever made them does, and opens it. */
export async function dropAll(gate: Gate): Promise<void> {
  while (gate.waiting > 0) (await gate.next()).drop();
  gate.open();
}
