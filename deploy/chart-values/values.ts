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
const absoluteOrUsual = z.union([absolute, z.literal('')]);
const port = z.number().int().min(1).max(65_535);
const secretName = z.string().max(253);
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
    name: z.string().min(1).max(253),
    size: z.string().min(1),
    storageClass: text,
    accessMode: z.enum(['ReadWriteMany', 'ReadWriteOnce', 'ReadWriteOncePod']),
    basePath: absolute,
    annotations: texts,
  }),
  s3: z.strictObject({ uri: text }),
  oci: z.strictObject({ uri: text }),
});

const daemonset = z.strictObject({
  image: z.strictObject({ repository: z.string().min(1), tag: text, digest: text, pullPolicy }),
  snapshotLogLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']),
  imagePullSecrets: z.array(z.strictObject({ name: text })),
  resources,
  nodeSelector: texts,
  tolerations,
  tolerateEverything: z.boolean(),
  labels: texts,
  annotations: texts,
  podLabels: texts,
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
  recordKeySecret: secretName,
  caSecret: secretName,
  agentTlsSecret: secretName,
  operatorTlsSecret: secretName,
  activeDeadlineSeconds: z.number().int().min(30),
  nodeSelector: texts,
  tolerations,
  resources,
});

const metrics = z.strictObject({
  port,
  podMonitor: z.strictObject({ enabled: z.boolean(), interval: text, scrapeTimeout: text, labels: texts }),
  prometheusRule: z.strictObject({ enabled: z.boolean(), labels: texts }),
  dashboard: z.strictObject({ enabled: z.boolean(), labels: texts, annotations: texts }),
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
  nameOverride: text,
  fullnameOverride: text,
  commonLabels: texts,
  commonAnnotations: texts,
  runtime: z.strictObject({ type: text, socketPath: absoluteOrUsual, storagePath: absoluteOrUsual }),
  kubelet: z.strictObject({ rootDir: absolute }),
  openshift: z.strictObject({ enabled: z.boolean() }),
  storage,
  daemonset,
  gpu: z.strictObject({ enabled: z.boolean(), runtimeClassName: text }),
  seccomp: z.strictObject({ deploy: z.boolean() }),
  serviceAccount: z.strictObject({ create: z.boolean(), name: text, annotations: texts }),
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
