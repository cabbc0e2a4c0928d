import { z } from 'zod';
import { ShapingError } from '../../contract/shaping-error.ts';

const part = z.looseObject({});
const texts = z.array(z.string()).optional();
const named = z.array(z.looseObject({ name: z.string() })).optional();
const fields = {
  command: texts,
  args: texts,
  env: named,
  envFrom: z.array(part).optional(),
  ports: z.array(part).optional(),
  resources: part.optional(),
  securityContext: part.optional(),
  volumeMounts: z.array(z.looseObject({ name: z.string(), mountPath: z.string() })).optional(),
};
const container = z.looseObject({ ...fields, name: z.string() });
const strings = z.record(z.string(), z.string()).optional();

const written = z.object({
  envs: named,
  extraPodMetadata: z.looseObject({ labels: strings, annotations: strings }).optional(),
  extraPodSpec: z
    .looseObject({
      mainContainer: z.looseObject(fields).optional(),
      containers: z.array(container).optional(),
      initContainers: z.array(container).optional(),
      volumes: named,
      tolerations: z.array(part).optional(),
      securityContext: part.optional(),
    })
    .optional(),
});

/** What a pod is made of in a DynamoGraphDeployment. */
type PodParts = z.infer<typeof written>;

/**
 * The parts of a pod, as they can be shaped: the definition of the object takes whatever is in them. A field that is null counts as left
 * out, as in a pod. Throws ShapingError with the path of what is not as it is in a pod.
 */
export function podParts(parts: Readonly<Record<keyof PodParts, unknown>>): PodParts {
  const { success, data, error } = written.safeParse(withoutNulls(parts));
  if (success) return data;
  const said = error.issues.slice(0, 5).map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new ShapingError(`what no pod can have is said: ${said.join('; ')}`);
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const said = Object.entries(value).filter(([, each]) => each !== null);
  return Object.fromEntries(said.map(([name, each]) => [name, withoutNulls(each)]));
}
