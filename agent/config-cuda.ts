import { z } from 'zod';

/* The part of the configuration that is about GPUs. Defaults and meaning stand beside each key. */

const socket = z
  .string()
  .regex(/^$|^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(\/|$))[^\0\n]*$/, 'must be an absolute, clean path, or empty')
  .refine((path) => Buffer.byteLength(path) <= 107, 'is longer than 107 bytes, which a socket cannot be');

export const cudaSection = z.strictObject({
  /** Socket of kubelet's PodResources service, which says which GPUs a container was given; empty: not asked. */
  podResourcesSocket: socket.default('/var/lib/kubelet/pod-resources/kubelet.sock'),
  /** What to do with several GPUs in one container and a driver below 590. */
  multiGpuBelowDriver590: z.enum(['warn', 'refuse']).default('warn'),
});
