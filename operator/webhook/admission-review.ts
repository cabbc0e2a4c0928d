import { z } from 'zod';
import type { PatchOperation } from './json-patch.ts';

const review = z.looseObject({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.looseObject({
    uid: z.string().min(1),
    resource: z.looseObject({ group: z.string().default(''), version: z.string(), resource: z.string() }),
    subResource: z.string().optional(),
    operation: z.string(),
    namespace: z.string().default(''),
    object: z.unknown(),
    dryRun: z.boolean().nullish(),
  }),
});

/** What the API server asks, version v1. */
export type AdmissionRequest = z.infer<typeof review>['request'];

export type ReviewRead =
  | { readonly result: 'read'; readonly request: AdmissionRequest }
  /** `uid`: of the question, where at least that can be told; else empty. */
  | { readonly result: 'malformed'; readonly uid: string; readonly problem: string };

/** Reads a question of the API server. */
export function readReview(text: string): ReviewRead {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return { result: 'malformed', uid: '', problem: 'the body is not JSON' };
  }
  const { success, data, error } = review.safeParse(body);
  if (success) return { result: 'read', request: data.request };
  const asked = z.looseObject({ request: z.looseObject({ uid: z.string() }) }).safeParse(body);
  const problem = error.issues.map(({ path, message }) => `${path.join('.') || 'the body'}: ${message}`).join('; ');
  return { result: 'malformed', uid: asked.data?.request.uid ?? '', problem };
}

/** The API server cuts longer ones off, and all together at 4096 characters. */
const MAX_WARNING = 256;

/** The answer: always allowed, as nobody's pod may fail for want of a restore. */
export function admissionAnswer(
  uid: string,
  { patch = [], warnings = [] }: { readonly patch?: readonly PatchOperation[]; readonly warnings?: readonly string[] },
): object {
  const patched = { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') };
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed: true,
      ...(patch.length === 0 ? {} : patched),
      ...(warnings.length === 0 ? {} : { warnings: warnings.map((text) => text.slice(0, MAX_WARNING)) }),
    },
  };
}
