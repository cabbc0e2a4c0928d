import { z } from 'zod';

/* The part of the configuration that is about GPUs. Defaults and meaning stand beside each key. */

const socket = z
  .string()
  .regex(/^$|^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(\/|$))[^\0\n]*$/, 'must be an absolute, clean path, or empty')
  .refine((path) => Buffer.byteLength(path) <= 107, 'is longer than 107 bytes, which a socket cannot be');

const absolute = z
  .string()
  .regex(/^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(\/|$))[^\0\n]*$/, 'must be an absolute, clean path')
  .refine((path) => path.length < 1024, 'is too long');
const seconds = z.number().positive().max(3_600);

/** Where drivers put their libraries: the GPU operator's driver container, GKE's, and the node's own. */
const DRIVER_DIRECTORIES = [
  '/run/nvidia/driver/usr/lib/x86_64-linux-gnu',
  '/run/nvidia/driver/usr/lib64',
  '/home/kubernetes/bin/nvidia/lib64',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib64',
];

export const cudaSection = z.strictObject({
  /** The program that calls the CUDA driver for the agent. */
  worker: absolute.default('/opt/snapshot-agent/native/build/snapshot-cuda'),
  /** Where the driver's libraries may lie: the first that can be opened is taken, else what the dynamic loader finds by itself. */
  libcuda: z
    .array(absolute)
    .max(32)
    .default(DRIVER_DIRECTORIES.map((directory) => `${directory}/libcuda.so.1`)),
  libnvml: z
    .array(absolute)
    .max(32)
    .default(DRIVER_DIRECTORIES.map((directory) => `${directory}/libnvidia-ml.so.1`)),
  /** Environment of the worker. Nothing else is inherited. */
  environment: z.record(z.string(), z.string()).default({}),
  /** How long the driver may take to initialise. */
  startSeconds: seconds.default(30),
  /** Workers that have nothing to do leave after this, since each keeps the driver loaded on every GPU. */
  idleSeconds: seconds.default(60),
  /** Calls of the driver at once on this node. */
  maxWorkers: z.number().int().min(1).max(256).default(32),
  /** How long the driver waits for the GPU work of a process to end, before it is locked. */
  lockTimeoutSeconds: z.number().positive().max(600).default(10),
  /** A call of the driver that takes longer than this, and than the bytes that it moves explain, counts as hung. */
  callSeconds: seconds.default(30),
  /** The rate that explains: slower than this no GPU copies its memory. */
  minimumBytesPerSecond: z
    .number()
    .int()
    .min(1 << 20)
    .default(256 << 20),
  /** Whether an artifact is published unproven where its source is stopped (`live`), or restored at the source first (`always`). */
  proveRestore: z.enum(['live', 'always']).default('live'),
  /** Socket of kubelet's PodResources service, which says which GPUs a container was given; empty: not asked. */
  podResourcesSocket: socket.default('/var/lib/kubelet/pod-resources/kubelet.sock'),
  /** What to do with several GPUs in one container and a driver below 590. */
  multiGpuBelowDriver590: z.enum(['warn', 'refuse']).default('warn'),
});
