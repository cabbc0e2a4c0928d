import { z } from 'zod';

/*
 * What the chart's values may be, but for `config`, which is the agent's own schema. A misspelt key is refused. What only the templates can
 * check (they answer with a sentence of their own) is free here: the kinds of runtime and storage, and what two values must agree on.
 */

const text = z.string();
const texts = z.record(text, text);
/** Objects of Kubernetes that are handed on as they are. The API server knows what they may hold. */
const anything = z.record(text, z.unknown());
const absolute = z.string().regex(/^(\/[^/\n]+)+$/, 'must be an absolute path');
const DNS_LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
/** The beginning of the names of all objects; some of them may have no dots. */
const nameOrUsual = z.string().regex(new RegExp(`^(${DNS_LABEL})?$`));
const objectName = z
  .string()
  .max(253)
  .regex(new RegExp(`^${DNS_LABEL}(\\.${DNS_LABEL})*$`));
const objectNameOrUsual = z.union([objectName, z.literal('')]);
const labels = z.record(
  text,
  z
    .string()
    .max(63)
    .regex(/^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/),
);
const quantity = z.string().regex(/^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?$/);
/** As Prometheus writes a time. */
const durationOrUsual = z.string().regex(/^([0-9]+(ms|[smhdwy]))*$/);
const absoluteOrUsual = z.union([absolute, z.literal('')]);
const port = z.number().int().min(1).max(65_535);
const pullPolicy = z.enum(['Always', 'IfNotPresent', 'Never']);
const resources = z.strictObject({ requests: anything.optional(), limits: anything.optional() });

const tolerations = z.array(
  z.strictObject({
    key: text.optional(),
    operator: z.enum(['Exists', 'Equal', 'Lt', 'Gt']).optional(),
    value: text.optional(),
    effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
    tolerationSeconds: z.number().int().optional(),
  }),
);

const storage = z.strictObject({
  type: text,
  accessMode: text,
  pvc: z.strictObject({
    create: z.boolean(),
    name: objectName,
    size: quantity,
    storageClass: text,
    accessMode: z.enum(['ReadWriteMany', 'ReadWriteOnce', 'ReadWriteOncePod']),
    basePath: absolute,
    annotations: texts,
  }),
  s3: z.strictObject({ uri: text }),
  oci: z.strictObject({ uri: text }),
});

const daemonset = z.strictObject({
  image: z.strictObject({
    repository: z.string().min(1),
    tag: z.string().regex(/^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$/),
    digest: z.string().regex(/^(sha256:[0-9a-f]{64})?$/),
    pullPolicy,
  }),
  snapshotLogLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']),
  imagePullSecrets: z.array(z.strictObject({ name: text })),
  resources,
  nodeSelector: labels,
  tolerations,
  tolerateEverything: z.boolean(),
  labels,
  annotations: texts,
  podLabels: labels,
  podAnnotations: texts,
  affinity: z.strictObject({
    nodeAffinity: anything.optional(),
    podAffinity: anything.optional(),
    podAntiAffinity: anything.optional(),
  }),
  priorityClassName: text,
  terminationGracePeriodSeconds: z.number().int().min(0),
  updateStrategy: z.strictObject({
    type: z.enum(['RollingUpdate', 'OnDelete']),
    rollingUpdate: z
      .strictObject({
        maxUnavailable: z.union([z.number().int(), text]).optional(),
        maxSurge: z.union([z.number().int(), text]).optional(),
      })
      .optional(),
  }),
  initContainer: z.strictObject({ image: text, imagePullPolicy: pullPolicy, resources }),
  statePath: absoluteOrUsual,
  apiPath: absoluteOrUsual,
  extraEnv: z.array(anything),
  extraVolumes: z.array(anything),
  extraVolumeMounts: z.array(anything),
});

const days = z.number().int().max(7_300);
const credentials = z.strictObject({
  enabled: z.boolean(),
  schedule: z.string().min(1),
  recordKeyDays: days.min(0),
  certificateDays: days.min(1),
  caDays: days.min(3),
  recordKeySecret: objectNameOrUsual,
  caSecret: objectNameOrUsual,
  agentTlsSecret: objectNameOrUsual,
  operatorTlsSecret: objectNameOrUsual,
  activeDeadlineSeconds: z.number().int().min(30),
  nodeSelector: labels,
  tolerations,
  resources,
});

const metrics = z.strictObject({
  port,
  podMonitor: z.strictObject({
    enabled: z.boolean(),
    interval: durationOrUsual,
    scrapeTimeout: durationOrUsual,
    labels,
  }),
  prometheusRule: z.strictObject({ enabled: z.boolean(), labels }),
  dashboard: z.strictObject({ enabled: z.boolean(), labels, annotations: texts }),
});

const crdMode = z.enum(['auto', 'always', 'never']);
/** Its `config` is the operator's own schema. */
const operator = z.strictObject({
  enabled: z.boolean(),
  image: z.strictObject({ repository: z.string().min(1), tag: text, digest: text, pullPolicy }),
  imagePullSecrets: z.array(z.strictObject({ name: text })),
  replicas: z.number().int().min(1).max(10),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']),
  namespaces: z.array(z.string().min(1).max(63)),
  metricsPort: port,
  webhook: z.strictObject({ enabled: z.boolean(), port, timeoutSeconds: z.number().int().min(1).max(30) }),
  crds: z.strictObject({ checkpoints: crdMode, graphDeployments: crdMode }),
  resources,
  nodeSelector: texts,
  tolerations,
  affinity: anything,
  priorityClassName: text,
  podLabels: texts,
  podAnnotations: texts,
  serviceAccount: z.strictObject({ create: z.boolean(), name: text, annotations: texts }),
});

/** Everything but `config`, by its key. */
export const sections = {
  nameOverride: nameOrUsual,
  fullnameOverride: nameOrUsual,
  commonLabels: labels,
  commonAnnotations: texts,
  runtime: z.strictObject({ type: text, socketPath: absoluteOrUsual, storagePath: absoluteOrUsual }),
  kubelet: z.strictObject({ rootDir: absolute }),
  openshift: z.strictObject({ enabled: z.boolean() }),
  storage,
  daemonset,
  gpu: z.strictObject({ enabled: z.boolean(), runtimeClassName: text }),
  seccomp: z.strictObject({ deploy: z.boolean() }),
  serviceAccount: z.strictObject({ create: z.boolean(), name: objectNameOrUsual, annotations: texts }),
  rbac: z.strictObject({ create: z.boolean(), namespaceRestricted: z.boolean() }),
  api: z.strictObject({
    tcp: z.strictObject({ enabled: z.boolean(), port }),
    clients: z.array(z.strictObject({ name: z.string().min(1), namespaces: z.array(z.string().min(1)) })),
  }),
  credentials,
  metrics,
  networkPolicy: z.strictObject({
    enabled: z.boolean(),
    metricsFrom: z.array(anything),
    grpcFrom: z.array(anything),
  }),
  operator,
  /** What helm hands to every chart that is part of another one. */
  global: anything.optional(),
};
