import { readFile } from 'node:fs/promises';
import { isScalar, parseAllDocuments } from 'yaml';
import { z } from 'zod';
import type { ObjectMeta, Pod, PodSpec } from '../../kube/objects.ts';
import { CommandError } from '../failure.ts';

/** A pod that somebody wrote down, with what makes it one. */
export type PodManifest = Pod & {
  readonly metadata: ObjectMeta & { readonly name: string };
  readonly spec: PodSpec;
};

/** What the server writes: a manifest that was exported from a cluster has it, and no new object may. */
const OF_THE_SERVER = [
  'creationTimestamp',
  'deletionGracePeriodSeconds',
  'deletionTimestamp',
  'generation',
  'managedFields',
  'ownerReferences',
  'resourceVersion',
  'selfLink',
  'uid',
];
const MAX_BYTES = 3 << 20;

const texts = z.record(z.string(), z.string());
const named = z.looseObject({ name: z.string() });
/** As far as a pod is looked at here; the API server looks at the rest. */
const shape = z.looseObject({
  metadata: z.looseObject({
    name: z.string(),
    namespace: z.string().optional(),
    labels: texts.optional(),
    annotations: texts.optional(),
  }),
  spec: z.looseObject({
    volumes: z.array(named).optional(),
    containers: z.array(
      z.looseObject({
        name: z.string(),
        command: z.array(z.string()).optional(),
        args: z.array(z.string()).optional(),
        env: z.array(named).optional(),
        volumeMounts: z.array(z.looseObject({ name: z.string(), mountPath: z.string() })).optional(),
      }),
    ),
  }),
});

/** Reads the manifest of a pod, YAML or JSON. Throws CommandError `usage` for a file that is none. */
export async function readPodManifest(path: string): Promise<PodManifest> {
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new CommandError('usage', `manifest ${path} cannot be read: ${cause.message}`, { cause });
  });
  return parsePodManifest(text, path);
}

/** The same of a text; `path` is for messages. */
export function parsePodManifest(text: string, path: string): PodManifest {
  const refuse = (why: string) => new CommandError('usage', `manifest ${path} ${why}`);
  if (Buffer.byteLength(text) > MAX_BYTES) throw refuse('is larger than what the API server takes');
  const object = withoutNulls(onlyDocument(text, refuse)) as Record<string, unknown> | undefined;
  if (typeof object !== 'object' || Array.isArray(object)) throw refuse('is no object');
  const { kind = 'Pod' } = object;
  if (kind !== 'Pod' && kind !== '') throw refuse(`is kind "${String(kind)}", expected Pod`);
  requireParts(object, refuse);
  const parsed = shape.safeParse(object);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw refuse(`is no pod: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
  }
  const { status: _, ...pod } = object;
  const metadata = Object.fromEntries(
    Object.entries(pod['metadata'] as object).filter(([key]) => !OF_THE_SERVER.includes(key)),
  );
  const isExported = (pod['metadata'] as { readonly uid?: unknown }).uid !== undefined;
  // As far as it is used it was looked at above.
  const manifest = { ...pod, apiVersion: 'v1', kind: 'Pod', metadata } as PodManifest;
  return isExported ? { ...manifest, spec: withoutPlacement(manifest.spec) } : manifest;
}

/** The node that the scheduler chose for another pod may have no room, and no new pod may have containers for debugging. */
function withoutPlacement(spec: PodSpec): PodSpec {
  return Object.fromEntries(
    Object.entries(spec).filter(([key]) => key !== 'nodeName' && key !== 'ephemeralContainers'),
  ) as unknown as PodSpec;
}

type Refuse = (why: string) => CommandError;

function onlyDocument(text: string, refuse: Refuse): unknown {
  const documents = parseAllDocuments(text, { merge: true });
  const filled = [...documents].filter(
    ({ contents }) => contents !== null && !(isScalar(contents) && contents.value === null),
  );
  const [document, second] = filled;
  if (document === undefined) throw refuse('is empty');
  if (second !== undefined)
    throw refuse(`has ${filled.length} documents; a checkpoint or restore is of one pod: leave only that`);
  const [error] = document.errors;
  if (error !== undefined) throw refuse(`is not YAML: ${error.message.split('\n')[0] ?? ''}`);
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    throw refuse(`is not YAML: ${(cause as Error).message}`);
  }
}

/** The checks whose words people look for. */
function requireParts({ metadata, spec }: Record<string, unknown>, refuse: Refuse): void {
  const { name } = (metadata ?? {}) as { readonly name?: unknown };
  if (typeof name !== 'string' || name === '') throw refuse('has no metadata.name, which is required');
  const { containers } = (spec ?? {}) as { readonly containers?: unknown };
  if (!Array.isArray(containers) || containers.length === 0)
    throw refuse('has no spec.containers, at least one container is required');
  for (const container of containers as ({ readonly name?: unknown; readonly image?: unknown } | undefined)[]) {
    const called = typeof container?.name === 'string' ? container.name : '';
    if (typeof container?.image !== 'string' || container.image.trim() === '')
      throw refuse(`has no image for container "${called}"`);
  }
}

/** A field that is null is as good as missing, in the API too. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((each) => withoutNulls(each));
  if (typeof value !== 'object' || value === null) return value ?? undefined;
  const entries = Object.entries(value).filter(([, each]) => each !== null);
  return Object.fromEntries(entries.map(([key, each]) => [key, withoutNulls(each)]));
}
