import { readPlaceholder } from '../container/placeholder.ts';
import { type Reason, SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { ArtifactName } from '../store/paths.ts';
import type { ArtifactRecord } from '../store/record.ts';
import { readArtifact } from '../store/verify.ts';
import { inspect, requireFit } from './capture.ts';
import { NEEDS_CONTAINER, platformMismatches } from './compatibility.ts';
import type { AgentContext } from './context.ts';
import { cudaReasonsOfNode, matchCuda } from './cuda-target.ts';
import type { Found } from './find.ts';
import { requireMatch } from './revive.ts';
import { together } from './steps.ts';
import { reachTarget, type Target } from './target.ts';

/** What a checkpoint of this container would be refused for. The workload is only looked at. */
export async function checkpointReasons(
  context: AgentContext,
  { pod, container }: Found,
  { basePath, signal }: { readonly basePath: string; readonly signal: AbortSignal },
): Promise<readonly Reason[]> {
  const wanted = { container, basePath: basePath || undefined };
  return await withTarget(context, { pod, wanted }, async (target) => {
    const subject = await inspect(context, target);
    try {
      await requireFit(context, { target, subject }, { mayCollect: false, signal });
    } finally {
      if (subject.root !== target.main) subject.root.release();
    }
  });
}

/** What a restore of this artifact into this container would be refused for. Between its looks it heeds the signal. */
export async function restoreReasons(
  context: AgentContext,
  { pod, container }: Found,
  { id, version, basePath, signal }: ArtifactName & { readonly basePath: string; readonly signal: AbortSignal },
): Promise<readonly Reason[]> {
  signal.throwIfAborted();
  const wanted = { container, basePath: basePath || undefined };
  return await withTarget(context, { pod, wanted }, async (target) => {
    signal.throwIfAborted();
    const query = { id, version, keys: context.keys, namespace: pod.namespace };
    const [artifact, placeholder] = await together([
      readArtifact(target.volume, query),
      readPlaceholder(context.native, target.main.id),
    ]);
    signal.throwIfAborted();
    const cuda = await matchCuda(context, target, artifact.record);
    requireMatch(context, target, { artifact, placeholder, cuda });
  });
}

/** What of this node a restore of an artifact with this record would be refused for, whatever the container; and what that leaves out. */
export async function nodeReasons(
  { config, cuda, node }: Pick<AgentContext, 'config' | 'cuda' | 'node'>,
  record: ArtifactRecord,
): Promise<{ reasons: readonly Reason[]; notChecked: readonly string[] }> {
  return {
    reasons: [
      ...platformMismatches({ record, node, rules: config.restore }),
      ...(await cudaReasonsOfNode({ config, cuda }, record)),
    ],
    notChecked: [...NEEDS_CONTAINER, ...(record.cuda === undefined ? [] : ['GPUs of the container'])],
  };
}

/** The reasons with which `look` refuses; whatever else it throws is thrown on. */
async function withTarget(
  context: AgentContext,
  request: {
    readonly pod: Found['pod'];
    readonly wanted: Pick<CheckpointWanted | RestoreWanted, 'container' | 'basePath'>;
  },
  look: (target: Target) => Promise<void>,
): Promise<readonly Reason[]> {
  const target = await reachTarget(context, request);
  try {
    await look(target);
    return [];
  } catch (error) {
    if (error instanceof SnapshotError && error.reasons.length > 0) return error.reasons;
    throw error;
  } finally {
    await target.release();
  }
}
