import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import { cudaSection } from './config-cuda.ts';
import { originalKeys } from './config-original.ts';
import { apiSection, httpSection, kubernetesSection, retentionSection, tracingSection } from './config-services.ts';
import { SnapshotError } from './errors.ts';

const absolute = z
  .string()
  .regex(/^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(\/|$))[^\0\n]*$/, 'must be an absolute, clean path')
  .refine((path) => path.length < 1024, 'is too long');
const seconds = z.number().positive().max(86_400);

/** One strict schema: an unknown key is an error, so that a misspelt one is noticed. Defaults and meaning stand beside each key. The chart's values are checked with it too. */
export const schema = z.strictObject({
  /** Name of this node; the environment variable NODE_NAME wins. An empty one would match nothing silently, so it is refused. */
  nodeName: z.string().min(1, 'is required: set it, or the environment variable NODE_NAME').max(253),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error']).default('info'),

  runtime: z
    .strictObject({
      type: z.enum(['containerd', 'crio']).default('containerd'),
      /** Socket of the runtime; empty: the usual one of the type. */
      socketPath: z.union([absolute, z.literal('')]).default(''),
    })
    .prefault({}),

  storage: z.strictObject({
    type: z.literal('pvc', 'only pvc is implemented').default('pvc'),
    /** agentMount: the agent mounts the volume at basePath. podMount: only workload pods do, and the agent reaches it through them. */
    accessMode: z.enum(['agentMount', 'podMount']).default('agentMount'),
    basePath: absolute,
    key: z
      .strictObject({
        /** The key that signs records, 32 bytes or more; a file only agents can read. */
        file: absolute.default('/var/lib/snapshot-agent/record.key'),
        /** Make the key on first start. For a single node; several nodes must share one key. */
        create: z.boolean().default(false),
        /** Keys that were in use before: their records are still accepted. */
        previousFiles: z.array(absolute).max(8).default([]),
        /** Every `*.key` file in it verifies records; empty: none. Looked at again and again, as the other key files. */
        acceptedDirectory: z.union([absolute, z.literal('')]).default(''),
      })
      .prefault({}),
  }),

  host: z
    .strictObject({
      /** Where the host's procfs and cgroups are mounted. */
      procRoot: absolute.default('/host/proc'),
      cgroupRoot: absolute.default('/host/cgroup'),
    })
    .prefault({}),

  paths: z
    .strictObject({
      /** Journal and key: survives restarts of the agent (hostPath). */
      stateDir: absolute.default('/var/lib/snapshot-agent'),
      /** Work directory; the agent mounts a private tmpfs of its own there. */
      runDir: absolute.default('/run/snapshot-agent'),
      helper: absolute.default('/opt/snapshot-agent/native/build/snapshot-helper'),
    })
    .prefault({}),

  watch: z
    .strictObject({
      /** Who tells of pods: the Kubernetes API or the container runtime alone; auto: the API where the agent runs in a pod. */
      source: z.enum(['auto', 'kubernetes', 'runtime']).default('auto'),
      /** How often the runtime is asked where it sends no events, and how often while something is awaited. */
      pollMilliseconds: z.number().int().min(50).max(60_000).default(500),
      /** How often everything is looked at again, events or not. */
      resyncSeconds: seconds.default(30),
    })
    .prefault({}),

  kubernetes: kubernetesSection.prefault({}),
  http: httpSection.prefault({}),
  tracing: tracingSection.prefault({}),
  api: apiSection.prefault({}),
  retention: retentionSection.prefault({}),
  cuda: cudaSection.prefault({}),

  checkpoint: z
    .strictObject({
      /** A source without a control directory counts as quiesced when its container has run this long. */
      quiesceDelaySeconds: z.number().min(0).max(86_400).default(10),
      /** Deadline of each long step: the dump, the final form of the images, publishing. */
      timeoutSeconds: seconds.default(3600),
      /** How long the rootfs diff and shared memory may take while the workload is frozen. */
      frozenTimeoutSeconds: seconds.default(300),
    })
    .prefault({}),

  restore: z
    .strictObject({
      restoreTimeoutSeconds: seconds.default(7200),
      /** How long a placeholder that was told to stand by may take to write `restore-context.json`, from its start. */
      standbySeconds: z.number().min(0).max(3_600).default(10),
      /** Accept a placeholder that holds CAP_SYS_PTRACE, whose processes could interfere with CRIU while it works in their PID namespace. */
      allowPtraceCapability: z.boolean().default(false),
      /** Accept a node whose kernel is older than the one the artifact was captured on. */
      allowOlderKernel: z.boolean().default(false),
      /** Accept a container whose image differs from the one the artifact was captured from. */
      allowImageMismatch: z.boolean().default(false),
      nsRestorePath: z.string().optional(),
    })
    .prefault({}),

  memory: z
    .strictObject({
      /** Private memory in ranges of at least this many bytes goes to the bulk file, which is filled in parallel. */
      bulkMinimumBytes: z
        .number()
        .int()
        .min(4096)
        .default(1 << 20),
      /** Threads that write and fill; 0: one for each CPU, at most 16. */
      threads: z.number().int().min(0).max(256).default(0),
      /** Size limit of the private tmpfs that holds verified images while they are restored. */
      workBytes: z
        .number()
        .int()
        .min(1 << 20)
        .default(8 * 2 ** 30),
    })
    .prefault({}),

  overlay: z
    .strictObject({
      /** What the rootfs diff leaves out: paths with all below them, or patterns that begin with an asterisk. */
      exclusions: z.array(z.string().min(1).max(1024)).max(256).default(['/proc', '/sys', '/dev']),
    })
    .prefault({}),

  criu: z
    .strictObject({
      binaryPath: absolute.default('/usr/sbin/criu'),
      /** Largest deleted-but-open file that goes into the images. */
      ghostLimit: z
        .number()
        .int()
        .min(0)
        .default(512 << 20),
      /** 0 to 2; CRIU's levels 3 and 4 can fill a disk within minutes when an image is damaged. */
      logLevel: z.number().int().min(0).max(4).default(2),
      /** After a checkpoint a bare pod's container goes on (true) or ends (false); a pod's annotation decides otherwise. */
      leaveRunning: z.boolean().default(true),
      /** Directories that CRIU searches for the files behind inotify watches, besides those it finds by itself. */
      irmapScanPaths: z.array(absolute).max(64).default([]),
      /** Environment of CRIU. Nothing else is inherited. */
      environment: z.record(z.string(), z.string()).default({}),
      ...originalKeys,
    })
    .prefault({}),

  limits: z
    .strictObject({
      /** Operations at once on this node. */
      parallelOperations: z.number().int().min(1).max(64).default(4),
      /** How long operations under way may go on when the agent is asked to stop; what is left then is cancelled. */
      drainSeconds: seconds.default(300),
    })
    .prefault({}),
});

export type Config = z.infer<typeof schema>;

/** The configuration as it is now: what is read from it counts from then on. */
export interface LiveConfig {
  current(): Config;
}

const DEFAULT_SOCKETS = { containerd: '/run/containerd/containerd.sock', crio: '/var/run/crio/crio.sock' } as const;

/** The runtime's socket that a configuration means. */
export function socketPath(config: Config): string {
  return config.runtime.socketPath || DEFAULT_SOCKETS[config.runtime.type];
}

/**
 * Reads the configuration from YAML text and the environment. Throws CONFIG_INVALID with every wrong key at once, each with its
 * path, what is wrong and, for unknown keys, its name.
 */
export function parseConfig(text: string, env: Readonly<Record<string, string | undefined>> = {}): Config {
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 0, logLevel: 'error' }) ?? {};
  } catch (cause) {
    // Below its first paragraph the parser shows the lines around the mistake, and what is in them is nobody's business.
    const [what] = String(cause).split('\n\n');
    throw new SnapshotError('CONFIG_INVALID', `configuration is no YAML: ${what}`);
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document))
    throw new SnapshotError('CONFIG_INVALID', 'configuration must be a YAML mapping');
  const result = schema.safeParse(withEnvironment({ nodeName: '', ...document }, env));
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join('.') || '(top level)'}: ${issue.message}`);
  throw new SnapshotError('CONFIG_INVALID', ['the configuration is wrong:', ...problems].join('\n  '));
}

/** What the environment says wins over the file. */
function withEnvironment(
  document: Record<string, unknown>,
  env: Readonly<Record<string, string | undefined>>,
): unknown {
  const { NODE_NAME: nodeName, RESTRICTED_NAMESPACE: namespace } = env;
  const { kubernetes = {} } = document;
  const isMapping = typeof kubernetes === 'object' && kubernetes !== null;
  return {
    ...document,
    ...(nodeName ? { nodeName } : {}),
    ...(namespace && isMapping ? { kubernetes: { ...kubernetes, namespace } } : {}),
  };
}

/** Where pods are learned of. Kubernetes puts the variable into every pod. */
export function podSource(config: Config, env: Readonly<Record<string, string | undefined>>): 'kubernetes' | 'runtime' {
  if (config.watch.source !== 'auto') return config.watch.source;
  return config.kubernetes.kubeconfig !== '' || env['KUBERNETES_SERVICE_HOST'] ? 'kubernetes' : 'runtime';
}

/** Reads the configuration file. A missing or unreadable file is CONFIG_INVALID too. */
export function loadConfig(path: string, env: Readonly<Record<string, string | undefined>>): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SnapshotError('CONFIG_INVALID', `configuration file ${path} cannot be read: ${String(cause)}`, { cause });
  }
  return parseConfig(text, env);
}
