import { Command } from 'commander';
import { AgentError } from '../../contract/agent-api/failure.ts';
import { CommandError } from '../failure.ts';
import { artifactName, nameText } from '../reach/artifact.ts';
import { asCommandError } from '../reach/failure.ts';
import { type VolumeFlags, withVolumeFlags } from '../reach/flags.ts';
import { type ReachedVolume, withVolume } from '../reach/volume.ts';
import { bytesText, rateText, secondsText } from '../show/amounts.ts';
import { type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import { whileShowing } from '../show/progress.ts';
import { counted } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';

/** What says that an artifact is there and must not be used; the rest says nothing of it. */
const DAMAGE = new Set(['ARTIFACT_CORRUPT', 'ARTIFACT_UNSIGNED', 'ARTIFACT_FORMAT']);

/** `snapshotctl verify`: all of an artifact is read and compared with its digests, by the agent. */
export function verifyCommand(terminal: Terminal): Command {
  const command = new Command('verify')
    .argument('<id[@version]>', 'which artifact')
    .description('Read all of an artifact and compare every digest.');
  return withOutputFlag(withVolumeFlags(command)).action((text: string, flags: VolumeFlags & OutputFlags) => {
    const name = artifactName(text);
    return withVolume(flags, terminal, (volume) => verify(name, volume, flags, terminal));
  });
}

async function verify(
  name: ReturnType<typeof artifactName>,
  { client, storage }: ReachedVolume,
  flags: OutputFlags,
  terminal: Terminal,
): Promise<void> {
  const { signal } = terminal;
  const request = { ...name, storage };
  const { record } = await client.getCheckpoint(request, { signal });
  const size = record?.sizes ? bytesText(record.sizes.total_bytes) : 'an unknown size';
  const shown = (seconds: number) => `verifying ${nameText(name)}, ${size}: ${secondsText(Math.round(seconds))} so far`;
  const id = { checkpointId: name.checkpoint_id, version: name.version };
  try {
    const done = await whileShowing(terminal, shown, () => client.verifyCheckpoint(request, { signal }));
    const { files, bytes, seconds } = done;
    const bytesPerSecond = seconds > 0 ? bytes / seconds : 0;
    writeResult(terminal, flags, {
      value: { ...id, intact: true, files, bytes, seconds, bytesPerSecond },
      text: () =>
        `${nameText(name)} is intact: ${counted(files, 'file')}, ${bytesText(bytes)}, read and compared in ${secondsText(seconds)} (${rateText(bytesPerSecond)})\n`,
    });
  } catch (error) {
    if (!(error instanceof AgentError) || !DAMAGE.has(error.reason)) throw error;
    const { reason, message } = error;
    if (flags.output !== 'text')
      writeResult(terminal, flags, { value: { ...id, intact: false, reason, message }, text: () => '' });
    const { message: said } = asCommandError(error) as CommandError;
    throw new CommandError('failed', `${nameText(name)} is not intact: ${said}`, { cause: error });
  }
}
