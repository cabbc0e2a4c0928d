import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import { SECCOMP_PROFILE } from '../contract/seccomp.ts';
import { checkpointStorage, path, pathOrNone } from './config-storage.ts';

const count = z.number().int().min(1);
const dnsLabel = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'is no name of a namespace');
const objectName = z.string().regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, 'is no name of an object');
const port = z.number().int().min(1).max(65_535);

const isCleanRelative = (text: string) => text.split('/').every((part) => !['', '.', '..'].includes(part));

const checkpoint = z.strictObject({
  /** False: no checkpoints are made, nothing is restored; deletions go on, so that nothing waits for its finalizer. */
  enabled: z.boolean().default(true),
  storage: checkpointStorage.prefault({}),
  /** Of Jobs that delete artifacts where no agent can. Empty: the operator's own, which the environment variable OPERATOR_IMAGE names. */
  cleanupImage: z.string().max(1_024).default(''),
  /** Secrets with which that image is pulled, in the namespaces of the Jobs. */
  cleanupImagePullSecrets: z.array(objectName).max(16).default([]),
  /** Whom those Jobs run as. Agents are root, and so are the artifacts' owners; 0 has no capability in the Job. */
  cleanupUser: z.number().int().min(0).max(2_147_483_647).default(0),
  seccomp: z
    .strictObject({
      /** Leaves the profile of pods as it is, for nodes that keep io_uring from everybody. */
      disabled: z.boolean().default(false),
      /** Relative to kubelet's directory of profiles. */
      profile: z
        .string()
        .min(1)
        .max(1_024)
        .refine(isCleanRelative, 'must be a clean path, relative to the profiles of kubelet')
        .default(SECCOMP_PROFILE),
    })
    .prefault({}),
  /** What runs in a restored container while it waits: `standby`, the program of placeholder images; `sleep`, in any image with a shell's sleep; `entrypoint`, the image's own. */
  placeholder: z.enum(['standby', 'sleep', 'entrypoint']).default('standby'),
  /** What WaitForCheckpoint does once a checkpoint has failed: Wait for a retry, or ColdStart. */
  failedFallback: z.enum(['Wait', 'ColdStart']).default('Wait'),
});

const agents = z.strictObject({
  /** Where each agent serves gRPC, at the address of its pod. */
  port: port.default(9443),
  /** The name in the certificate of every agent. */
  serverName: z.string().min(1).max(253).default('snapshot-agent'),
  /** PEM files, read again at each connection. */
  caFile: path.default('/etc/snapshot-tls/ca.crt'),
  certificateFile: path.default('/etc/snapshot-tls/tls.crt'),
  keyFile: path.default('/etc/snapshot-tls/tls.key'),
});

const webhook = z.strictObject({
  /** False: no server; pods of WaitForCheckpoint are restored all the same, as their templates are shaped. */
  enabled: z.boolean().default(true),
  /** Where it listens; the Service of the chart leads there. */
  port: port.default(8443),
  /** The MutatingWebhookConfiguration that gets the authority. */
  configurationName: objectName.default('snapshot-operator'),
  /** In the operator's namespace: the Service that the API server calls, and the Secret that the certificates are kept in. */
  serviceName: dnsLabel.default('snapshot-operator-webhook'),
  secretName: objectName.default('snapshot-operator-webhook'),
  /** How long certificates are good, and the authority that signs them. They are renewed in time, without a restart. */
  certificateDays: count.max(7_300).default(90),
  authorityDays: count.max(7_300).default(1_825),
});

const leaderElection = z.strictObject({
  /** The Lease that replicas ask for, in the operator's namespace. */
  leaseName: objectName.default('snapshot-operator'),
  /** How long it is good without a renewal: so long nobody works after a leader that died. */
  leaseSeconds: count.min(5).max(300).default(15),
});

/** One strict schema: an unknown key is an error, so that a misspelt one is noticed. Defaults and meaning stand beside each key. */
export const schema = z.strictObject({
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']).default('info'),
  /** The namespaces that are worked in; empty: all. */
  namespaces: z.array(dnsLabel).max(256).default([]),
  checkpoint: checkpoint.prefault({}),
  agents: agents.prefault({}),
  graph: z
    .strictObject({
      /** Whether services of DynamoGraphDeployments become Deployments: where nobody else makes them (auto), always (on), never (off). */
      rollout: z.enum(['auto', 'on', 'off']).default('auto'),
      /** How long another controller has to show itself at a new object, with `auto`. */
      settleSeconds: z.number().min(0).max(3_600).default(10),
      /** Checkpoints of past generations that each service keeps; 0: none. */
      keptGenerations: z.number().int().min(0).max(100).default(2),
    })
    .prefault({}),
  webhook: webhook.prefault({}).superRefine(({ certificateDays, authorityDays }, context) => {
    if (authorityDays < 3 * certificateDays)
      context.addIssue({
        ...{ code: 'custom', path: ['authorityDays'] },
        message: `must be at least three times certificateDays: ${3 * certificateDays}`,
      });
  }),
  leaderElection: leaderElection.prefault({}),
  http: z
    .strictObject({
      /** Where metrics and health are served. */
      address: z
        .string()
        .regex(/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):\d{1,5}$/, 'must be host:port, :port or [IPv6]:port')
        .refine((text) => Number(text.slice(text.lastIndexOf(':') + 1)) < 65_536, 'has no such port')
        .default(':8080'),
    })
    .prefault({}),
  kubernetes: z
    .strictObject({
      /** A kubeconfig; empty: the service account of the operator's pod. */
      kubeconfig: pathOrNone.default(''),
      /** Where the operator's own objects are: Lease, Secret and Service. Empty: the namespace of its pod or kubeconfig. */
      namespace: z.union([dnsLabel, z.literal('')]).default(''),
    })
    .prefault({}),
  limits: z
    .strictObject({
      /** Objects of each kind that are worked on at once. */
      parallel: z.number().int().min(1).max(256).default(8),
    })
    .prefault({}),
});

export type Config = z.infer<typeof schema>;

/** The configuration is wrong: each wrong key on a line of its own, with its path. */
export class ConfigError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.name = 'ConfigError';
  }
}

/** Reads the configuration from YAML text. Throws ConfigError with every wrong key at once. */
export function parseConfig(text: string): Config {
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 0, logLevel: 'error' }) ?? {};
  } catch (cause) {
    // Below its first paragraph the parser shows the lines around the mistake, and what is in them is nobody's business.
    const [what] = String(cause).split('\n\n');
    throw new ConfigError(`configuration is no YAML: ${what}`);
  }
  const result = schema.safeParse(document);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join('.') || '(top level)'}: ${issue.message}`);
  throw new ConfigError(['the configuration is wrong:', ...problems].join('\n  '));
}

/** Reads the configuration file. Throws ConfigError, also where there is none. */
export function loadConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(`configuration file ${file} cannot be read: ${String(cause)}`, cause);
  }
  return parseConfig(text);
}
