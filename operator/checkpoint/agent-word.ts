import { z } from 'zod';
import type { KubeClient } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import { eventPath } from '../../kube/paths.ts';

/** As agents sign their Events, and what they call the end of a checkpoint that failed. */
const AGENT = 'snapshot';
const REASONS: readonly string[] = ['CheckpointFailed', 'CheckpointWorkerFailed'];

const events = z.looseObject({
  items: z
    .array(
      z.looseObject({
        reason: z.string().optional(),
        message: z.string().optional(),
        lastTimestamp: z.string().nullish(),
        source: z.looseObject({ component: z.string().optional() }).optional(),
      }),
    )
    .nullish(),
});

/**
 * What the agent said last of the failed checkpoint of a pod, with its code and its advice. Undefined where it said nothing, or Events may
 * not be read: they are only for people. Throws KubeError where the API gives no answer.
 */
export async function agentsWord(
  client: KubeClient,
  { namespace, podUid }: { readonly namespace: string; readonly podUid: string },
  signal: AbortSignal,
): Promise<string | undefined> {
  const query = { fieldSelector: `involvedObject.uid=${podUid}` };
  const answer = await client
    .request<unknown>({ method: 'GET', path: eventPath(namespace), query, signal })
    .catch((error: unknown) => {
      if (error instanceof KubeError && error.status === 403) return {};
      throw error;
    });
  const said = (events.safeParse(answer).data?.items ?? []).filter(
    ({ source, reason = '' }) => source?.component === AGENT && REASONS.includes(reason),
  );
  const last = said.sort((a, b) => ((a.lastTimestamp ?? '') < (b.lastTimestamp ?? '') ? -1 : 1)).at(-1);
  return last?.message;
}
