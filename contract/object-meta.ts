import { z } from 'zod';

const texts = z.record(z.string(), z.string());

/** The parts of an object's metadata that are used, as the API server sends them. */
export const objectMeta = z.looseObject({
  name: z.string(),
  namespace: z.string(),
  uid: z.string(),
  resourceVersion: z.string(),
  generation: z.number().optional(),
  creationTimestamp: z.string().optional(),
  deletionTimestamp: z.string().optional(),
  labels: texts.optional(),
  annotations: texts.optional(),
  finalizers: z.array(z.string()).optional(),
  ownerReferences: z
    .array(
      z.looseObject({
        apiVersion: z.string(),
        kind: z.string(),
        name: z.string(),
        uid: z.string(),
        controller: z.boolean().optional(),
      }),
    )
    .optional(),
});

export type ObjectMeta = z.infer<typeof objectMeta>;

/** A condition of a status. Older objects may lack what newer definitions demand. */
export const condition = z.looseObject({
  type: z.string(),
  status: z.enum(['True', 'False', 'Unknown']),
  reason: z.string().default(''),
  message: z.string().default(''),
  lastTransitionTime: z.string().default(''),
  observedGeneration: z.number().optional(),
});

export type Condition = z.infer<typeof condition>;

/** An object as it was read, or why it is none of its kind. */
export type ObjectRead<T> =
  | { readonly result: 'read'; readonly object: T }
  /** `meta`: whose object it is, where at least that can be told. */
  | { readonly result: 'malformed'; readonly meta: ObjectMeta | undefined; readonly problem: string };

/** Reads an object of the API server. Defaults are filled in, what the schema does not know is kept, and what is wrong is said by its path. */
export function readObject<T>(schema: z.ZodType<T>, object: unknown): ObjectRead<T> {
  const { success, data, error } = schema.safeParse(object);
  if (success) return { result: 'read', object: data };
  const problems = error.issues.map(({ path, message }) => `${path.join('.') || 'the object'}: ${message}`);
  const meta = z.object({ metadata: objectMeta }).safeParse(object);
  return { result: 'malformed', meta: meta.data?.metadata, problem: problems.join('; ') };
}
