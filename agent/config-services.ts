import { z } from 'zod';

/*
 * The parts of the configuration that say how the agent talks to others and what it keeps: Kubernetes, HTTP, traces, gRPC, retention.
 * Defaults and meaning stand beside each key.
 */

const absolute = z
  .string()
  .regex(/^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(\/|$))[^\0\n]*$/, 'must be an absolute, clean path')
  .refine((path) => path.length < 1024, 'is too long');
const absoluteOrNone = z.union([absolute, z.literal('')]);
const address = z
  .string()
  .regex(/^$|^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):\d{1,5}$/, 'must be host:port, :port or [IPv6]:port, or empty')
  .refine((text) => text === '' || Number(text.slice(text.lastIndexOf(':') + 1)) < 65_536, 'has no such port');
const count = z.number().int().min(1);
/** What a unix socket's address holds. */
const MAX_SOCKET_PATH = 107;

export const kubernetesSection = z.strictObject({
  /** A kubeconfig; empty: the service account of the agent's pod. */
  kubeconfig: absoluteOrNone.default(''),
  /** Only pods of this namespace; empty: of all. The environment variable RESTRICTED_NAMESPACE wins. */
  namespace: z.string().max(63).default(''),
  /** Without a word from the API server for this long the agent is not ready. */
  staleSeconds: z.number().min(80).max(3_600).default(120),
  /** How long the lease of a checkpoint Job is good without a renewal. */
  leaseSeconds: z.number().int().min(15).max(300).default(30),
});

export const httpSection = z.strictObject({
  /** Where metrics and health are served; empty: nowhere. */
  address: address.default(':9090'),
});

export const tracingSection = z.strictObject({
  /** Base of an OTLP collector over HTTP; empty: no traces. */
  endpoint: z
    .union([z.literal(''), z.url({ protocol: /^https?$/, error: 'must be an http or https URL' })])
    .default(''),
});

const limitsSection = z.strictObject({
  maxMessageBytes: count.max(4 << 20).default(65_536),
  maxConnections: count.max(10_000).default(64),
  maxConcurrentCalls: count.max(10_000).default(64),
  maxConcurrentCallsPerCaller: count.max(10_000).default(32),
  maxStreams: count.max(10_000).default(256),
  maxStreamsPerCaller: count.max(10_000).default(128),
  callsPerSecond: z.number().positive().max(100_000).default(50),
  burst: count.max(100_000).default(200),
  maxCallMs: count.max(86_400_000).default(3_600_000),
});

export const apiSection = z
  .strictObject({
    /** Unix socket of the gRPC service, in a directory of its own; empty: none. */
    socketPath: absoluteOrNone
      .refine((path) => Buffer.byteLength(path) <= MAX_SOCKET_PATH, `is longer than ${MAX_SOCKET_PATH} bytes`)
      .default('/run/snapshot-agent-api/agent.sock'),
    /** TCP with mutual TLS; empty: none. */
    listen: address.default(''),
    tls: z
      .strictObject({
        certificateFile: absoluteOrNone.default(''),
        keyFile: absoluteOrNone.default(''),
        clientCaFile: absoluteOrNone.default(''),
      })
      .prefault({}),
    /** Who may call over TCP: names of client certificates, and the namespaces open to each; `*` is all. */
    clients: z
      .array(
        z.strictObject({
          name: z.string().min(1).max(253),
          namespaces: z.array(z.string().min(1).max(63)).max(1_000),
        }),
      )
      .max(1_000)
      .default([]),
    /** Serve the description of the service (server reflection). */
    reflection: z.boolean().default(false),
    limits: limitsSection.prefault({}),
    /** How long calls under way may go on when the agent stops. */
    closeGraceSeconds: z.number().min(0).max(300).default(5),
  })
  .refine(({ listen, tls }) => listen === '' || Object.values(tls).every((file) => file !== ''), {
    path: ['tls'],
    message: 'listen needs certificateFile, keyFile and clientCaFile',
  });

export const retentionSection = z
  .strictObject({
    /** How long an artifact is kept after its creation or its last restore; 0: for ever. */
    ttlSeconds: z.number().min(0).max(315_360_000).default(0),
    /** Of one namespace, the least recently used beyond this number go; 0: no limit. */
    maxArtifactsPerNamespace: z.number().int().min(0).max(10_000).default(0),
    maxBytesPerNamespace: z.number().int().min(0).default(0),
    /** Above this part of the volume in use, the least recently used go until `lowPercent`; 0: off. */
    highPercent: z.number().min(0).max(99).default(0),
    lowPercent: z.number().min(0).max(99).default(0),
    /** The newest version of an id is kept at least this long. */
    minAgeSeconds: z.number().min(0).max(31_536_000).default(3_600),
    /** How often the volume is looked at. */
    intervalSeconds: z.number().min(10).max(86_400).default(600),
  })
  .refine(({ highPercent: high, lowPercent: low }) => (high === 0 && low === 0) || (low > 0 && low <= high), {
    path: ['lowPercent'],
    message: 'and highPercent must both be 0, or lowPercent above 0 and no higher than highPercent',
  });
