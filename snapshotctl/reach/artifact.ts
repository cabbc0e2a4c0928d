import type { CheckpointMessage } from '../../contract/agent-api/messages.ts';
import { idProblem } from '../../contract/ids.ts';
import { DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { CommandError } from '../failure.ts';
import { visible } from '../show/text.ts';

export interface ArtifactName {
  readonly checkpoint_id: string;
  readonly version: string;
}

/**
 * `ID` or `ID@VERSION` as it was typed. Nothing else is ever sent. `needsVersion`: where what is named is lost, it is named in full. Throws
 * CommandError.
 */
export function artifactName(text: string, { needsVersion = false } = {}): ArtifactName {
  const at = text.indexOf('@');
  const id = at < 0 ? text : text.slice(0, at);
  if (at < 0 && needsVersion)
    throw new CommandError(
      'usage',
      `name the version as well: ${visible(id)}@${DEFAULT_ARTIFACT_VERSION}, for example`,
    );
  const version = at < 0 ? DEFAULT_ARTIFACT_VERSION : text.slice(at + 1);
  for (const [what, value] of [
    ['checkpoint id', id],
    ['version', version],
  ] as const) {
    const problem = idProblem(value);
    if (problem !== undefined)
      throw new CommandError('usage', `the ${what} ${visible(JSON.stringify(value))} ${problem}`);
  }
  return { checkpoint_id: id, version };
}

/** `ID@VERSION`, for people. */
export function nameText({ checkpoint_id: id, version }: Pick<CheckpointMessage, 'checkpoint_id' | 'version'>): string {
  return visible(`${id}@${version}`);
}
