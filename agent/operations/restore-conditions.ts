import { SENTINELS } from '../../contract/keys.ts';
import { hasContext, hostFile } from '../container/control.ts';
import { SnapshotError } from '../errors.ts';
import type { RestoreWanted } from '../plan/decide.ts';
import { artifactDir, hasDirectory } from '../store/paths.ts';
import type { Artifact } from '../store/verify.ts';
import type { AgentContext, OperationRequest, TooEarly } from './context.ts';
import type { Target } from './target.ts';

type Request = OperationRequest<RestoreWanted>;

/** Why the container cannot be restored yet. */
export async function notReady(context: AgentContext, request: Request, target: Target): Promise<TooEarly | undefined> {
  const { checkpointId: id, version } = request.wanted;
  // An artifact gets its name when it is complete: before that there is nothing to look into.
  if (!(await hasDirectory(target.volume.root, artifactDir(target.volume, { id, version })))) {
    // Another volume can be looked at only through its pod.
    const artifact = context.config.storage.accessMode === 'agentMount' ? { id, version } : undefined;
    return { result: 'too-early', reason: 'the artifact is not there yet', code: 'ARTIFACT_NOT_FOUND', artifact };
  }
  const isReady = await hasContext(context.native, target.main.id, target.running.env);
  const waited = (Date.now() - target.running.startedAtMs) / 1000;
  if (isReady || waited >= context.config.restore.standbySeconds) return undefined;
  return {
    result: 'too-early',
    reason: `the placeholder has not written ${SENTINELS.context} yet`,
    code: 'QUIESCE_TIMEOUT',
    file: hostFile(target.running, SENTINELS.context),
  };
}

/**
 * A container that restarts after a refusal asks again; nothing has changed, so the answer is given without another look. A caller who
 * asks again gets the look, and the reasons.
 */
export function requireNotRefusedBefore(context: AgentContext, request: Request, { record }: Artifact): void {
  if (request.fingerprint !== '') return;
  const refused = context.journal.refusalOf(request.pod.uid, request.wanted.container.name);
  if (refused === undefined || refused.details['artifact'] !== record.operationId) return;
  throw new SnapshotError(
    'RESTORE_REFUSED',
    `this artifact was refused for this pod on this node before (operation ${refused.operationId}): it is not tried again`,
  );
}
