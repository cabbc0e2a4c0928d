import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import { idProblem } from '../../contract/ids.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { checkpointIdProblem, idCheckpointJobName } from '../../contract/names.ts';
import type { Attempt, Failure } from './facts.ts';

/** What the next artifact of this checkpoint is called, or why it can be called nothing. */
export function attemptOf(checkpoint: DynamoCheckpoint): Attempt | Failure {
  const checkpointId = checkpointIdOf(checkpoint);
  const problem = checkpointIdProblem(checkpointId);
  if (problem !== undefined)
    return { do: 'fail', reason: 'InvalidCheckpointID', message: `checkpoint ID "${checkpointId}" ${problem}` };
  const version = versionOf(checkpoint);
  const wrong = idProblem(version);
  if (wrong !== undefined)
    return {
      do: 'fail',
      reason: 'InvalidArtifactVersion',
      message: `artifact version "${version}" of annotation ${ANNOTATIONS.artifactVersion} ${wrong}`,
    };
  return { checkpointId, version, jobName: idCheckpointJobName(checkpointId, version) };
}

function versionOf({ metadata }: DynamoCheckpoint): string {
  return metadata.annotations?.[ANNOTATIONS.artifactVersion]?.trim() || DEFAULT_ARTIFACT_VERSION;
}

/** Whether somebody asks a failed checkpoint to try once more. */
export function wantsRetry({ metadata }: Pick<DynamoCheckpoint, 'metadata'>): boolean {
  return (metadata.annotations?.[ANNOTATIONS.retry]?.trim() ?? '') !== '';
}
