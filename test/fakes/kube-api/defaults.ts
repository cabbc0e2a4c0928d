import type { Json, KubeObject } from './resources.ts';

const CONTAINER: Json = {
  resources: {},
  terminationMessagePath: '/dev/termination-log',
  terminationMessagePolicy: 'File',
  imagePullPolicy: 'IfNotPresent',
};
const POD: Json = {
  restartPolicy: 'Always',
  terminationGracePeriodSeconds: 30,
  dnsPolicy: 'ClusterFirst',
  securityContext: {},
  schedulerName: 'default-scheduler',
};
/** What admission adds to a pod, and not to the template of a Job. */
const ADMITTED: Json = {
  serviceAccountName: 'default',
  serviceAccount: 'default',
  tolerations: ['not-ready', 'unreachable'].map((condition) => ({
    key: `node.kubernetes.io/${condition}`,
    operator: 'Exists',
    effect: 'NoExecute',
    tolerationSeconds: 300,
  })),
  priority: 0,
  enableServiceLinks: true,
  preemptionPolicy: 'PreemptLowerPriority',
};
const JOB: Json = {
  parallelism: 1,
  completions: 1,
  backoffLimit: 6,
  manualSelector: false,
  completionMode: 'NonIndexed',
  suspend: false,
  podReplacementPolicy: 'TerminatingOrFailed',
};

const DEPLOYMENT: Json = {
  replicas: 1,
  strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '25%', maxSurge: '25%' } },
  revisionHistoryLimit: 10,
  progressDeadlineSeconds: 600,
};

/** A new object with the fields that a real server fills in. */
export function withDefaults(object: KubeObject): KubeObject {
  if (object.kind === 'Pod') return { ...object, spec: { ...ADMITTED, ...podSpec(object.spec) } };
  if (object.kind === 'Deployment') return deployment(object);
  return object.kind === 'Job' ? job(object) : object;
}

function deployment({ spec = {}, ...rest }: KubeObject): KubeObject {
  const template = (spec['template'] ?? {}) as { spec?: Json };
  return { ...rest, spec: { ...DEPLOYMENT, ...spec, template: { ...template, spec: podSpec(template.spec) } } };
}

function podSpec(spec: Json = {}): Json {
  const filled: Json = { ...POD, ...spec };
  for (const field of ['containers', 'initContainers']) {
    const containers = spec[field];
    if (Array.isArray(containers)) filled[field] = containers.map((one: Json) => ({ ...CONTAINER, ...one }));
  }
  return filled;
}

/** A Job gets a selector of its own uid, and its template and itself the labels that go with it. */
function job({ metadata, spec = {}, ...rest }: KubeObject): KubeObject {
  const { uid, name } = metadata;
  const own = { 'batch.kubernetes.io/controller-uid': uid, 'controller-uid': uid };
  const labels = { ...own, 'batch.kubernetes.io/job-name': name, 'job-name': name };
  const template = (spec['template'] ?? {}) as { metadata?: { labels?: Json }; spec?: Json };
  const filled = {
    ...JOB,
    selector: { matchLabels: { 'batch.kubernetes.io/controller-uid': uid } },
    ...spec,
    template: {
      ...template,
      metadata: { ...template.metadata, labels: { ...template.metadata?.labels, ...labels } },
      spec: podSpec(template.spec),
    },
  };
  // The labels of a Job are those of its template, unless it has some of its own.
  return { ...rest, metadata: { ...metadata, labels: { ...metadata.labels, ...labels } }, spec: filled } as KubeObject;
}

/** The status of a pod whose conditions all show a time of the last probe, if only null. */
export function withProbeTimes({ status }: Json): { status?: Json } {
  const conditions = (status as Json | undefined)?.['conditions'];
  if (!Array.isArray(conditions)) return {};
  return {
    status: { ...(status as Json), conditions: conditions.map((one: Json) => ({ lastProbeTime: null, ...one })) },
  };
}
