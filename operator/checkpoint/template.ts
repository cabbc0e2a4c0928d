import { z } from 'zod';
import type { PodTemplate } from '../../contract/checkpoint-job.ts';
import { ShapingError } from '../../contract/shaping-error.ts';

const texts = z.array(z.string()).optional();
const container = z.looseObject({
  name: z.string(),
  command: texts,
  args: texts,
  env: z.array(z.looseObject({ name: z.string() })).optional(),
  volumeMounts: z.array(z.looseObject({ name: z.string(), mountPath: z.string() })).optional(),
});
const template = z.looseObject({
  spec: z.looseObject({
    volumes: z.array(z.looseObject({ name: z.string() })).optional(),
    initContainers: z.array(container).optional(),
    containers: z.array(container),
  }),
});

/**
 * The pod template of a DynamoCheckpoint, as it can be shaped: its definition takes whatever is in it. A field that is null counts as left
 * out, as in a pod. Throws ShapingError where a part that is looked at is not what it is in a pod.
 */
export function writtenTemplate(written: unknown): PodTemplate {
  const plain = withoutNulls(written);
  const { success, error } = template.safeParse(plain);
  if (success) return plain as PodTemplate;
  const said = error.issues.slice(0, 5).map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new ShapingError(`spec.job.podTemplateSpec is no pod template: ${said.join('; ')}`);
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const said = Object.entries(value).filter(([, each]) => each !== null);
  return Object.fromEntries(said.map(([name, each]) => [name, withoutNulls(each)]));
}
