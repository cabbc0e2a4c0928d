import { z } from 'zod';

/*
 * The part of the configuration that says where artifacts are: `checkpoint.storage`. Keys and rules are those of the original system.
 */

export const path = z
  .string()
  .regex(/^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(\/|$))[^\0\n]*$/, 'must be an absolute, clean path')
  .refine((text) => text.length < 1024, 'is too long');
export const pathOrNone = z.union([path, z.literal('')]);

const QUANTITY = /^\+?(\d+(?:\.\d*)?|\.\d+)([KMGTPE]i|[kMGTPE]|[eE][+-]?\d+)?$/;

const pvc = z.strictObject({
  /** The claim that the pods of each namespace bring (podMount). Empty: the agents mount the artifacts, and their DaemonSet says from where. */
  pvcName: z.string().max(253).default(''),
  /** Where it is mounted. */
  basePath: pathOrNone.default(''),
  /** Make the claim where it is missing. */
  create: z.boolean().default(false),
  /** A quantity of Kubernetes, needed with `create`. */
  size: z.string().max(64).default(''),
  /** Empty: that of the cluster. */
  storageClassName: z.string().max(253).default(''),
  /** Empty: ReadWriteMany. */
  accessMode: z
    .enum(['', 'ReadWriteMany', 'ReadWriteOnce'], 'must be ReadWriteMany or ReadWriteOnce, or empty')
    .default(''),
});

export const checkpointStorage = z.strictObject({
  type: z.literal('pvc', 'only pvc is implemented').default('pvc'),
  pvc: pvc.prefault({}).superRefine(({ pvcName, basePath, create, size }, context) => {
    const wrong = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message });
    if ((pvcName === '') !== (basePath === ''))
      wrong(pvcName === '' ? 'pvcName' : 'basePath', 'is required: pvcName and basePath go together');
    if (create && pvcName === '') wrong('create', 'needs pvcName and basePath: there is no claim to make');
    if (create && !(Number(QUANTITY.exec(size)?.[1] ?? 0) > 0))
      wrong('size', 'must be a quantity above 0, such as 500Gi, as create is true');
  }),
});
