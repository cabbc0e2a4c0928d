import { AgentError } from '../../contract/agent-api/failure.ts';
import type { CheckpointContents, CheckpointMessage } from '../../contract/agent-api/messages.ts';
import { visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';
import type { ArtifactName } from './artifact.ts';
import type { ReachedVolume } from './volume.ts';

/**
 * An artifact by its record, and what is inside, where it is complete. Its images may be damaged where the record is not, and an older agent
 * does not look inside: then the record is shown, and standard error says what is missing.
 */
export async function readArtifact(
  name: ArtifactName,
  { client, storage }: ReachedVolume,
  { signal, err }: Terminal,
): Promise<{ readonly checkpoint: CheckpointMessage; readonly contents: CheckpointContents | undefined }> {
  const request = { ...name, storage };
  const checkpoint = await client.getCheckpoint(request, { signal });
  if (!checkpoint.complete) return { checkpoint, contents: undefined };
  try {
    const contents = await client.inspectCheckpoint(request, { signal });
    return { checkpoint: contents.checkpoint ?? checkpoint, contents };
  } catch (error) {
    if (!(error instanceof AgentError) || (error.reason === '' && error.status !== 'UNIMPLEMENTED')) throw error;
    const why = error.status === 'UNIMPLEMENTED' ? 'this agent is too old for it' : error.message;
    err.write(`what is inside cannot be shown: ${visible(why)}\n`);
    return { checkpoint, contents: undefined };
  }
}
