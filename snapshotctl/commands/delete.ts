import { createInterface } from 'node:readline/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { CheckpointMessage } from '../../contract/agent-api/messages.ts';
import { CommandError } from '../failure.ts';
import { type ArtifactName, artifactName, nameText } from '../reach/artifact.ts';
import { type VolumeFlags, withVolumeFlags } from '../reach/flags.ts';
import { type ReachedVolume, withVolume } from '../reach/volume.ts';
import { bytesText, timeText } from '../show/amounts.ts';
import { type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import { isoTime } from '../show/plain.ts';
import { whileShowing } from '../show/progress.ts';
import { visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';

const MAX_WAIT_SECONDS = 86_400;

interface DeleteFlags extends VolumeFlags, OutputFlags {
  readonly yes?: boolean;
  readonly wait: number;
}

/** `snapshotctl delete`: an artifact that nobody reads, for good. */
export function deleteCommand(terminal: Terminal): Command {
  const command = new Command('delete')
    .argument('<id@version>', 'which artifact, with its version')
    .description('Delete an artifact that nobody is reading. It cannot be brought back.')
    .addOption(new Option('-y, --yes', 'do not ask; needed where nobody can be asked'))
    .addOption(
      new Option('--wait <seconds>', 'how long to wait for restores that read it').default(0).argParser(seconds),
    );
  return withOutputFlag(withVolumeFlags(command)).action((text: string, flags: DeleteFlags) => {
    const name = artifactName(text, { needsVersion: true });
    if (!flags.yes && !(terminal.input.isTTY && terminal.err.isTerminal))
      throw new CommandError('usage', 'delete needs --yes where nobody can be asked');
    return withVolume(flags, terminal, (volume) => remove(name, volume, flags, terminal));
  });
}

async function remove(
  name: ArtifactName,
  { client, storage, name: agent }: ReachedVolume,
  flags: DeleteFlags,
  terminal: Terminal,
): Promise<void> {
  const { signal } = terminal;
  const request = { ...name, storage };
  if (!flags.yes) {
    const found = await client.getCheckpoint(request, { signal });
    terminal.err.write(`${aboutText(found)}\n`);
    if (!(await isWanted(`Delete ${nameText(name)}, by ${visible(agent)}? [y/N] `, terminal)))
      throw new CommandError('failed', 'nothing was deleted');
  }
  const shown = () => `deleting ${nameText(name)}; restores that read it are waited for`;
  await whileShowing(terminal, shown, () =>
    client.deleteCheckpoint({ ...request, wait_seconds: flags.wait }, { signal }),
  );
  writeResult(terminal, flags, {
    value: { checkpointId: name.checkpoint_id, version: name.version, deleted: true },
    text: () => `${nameText(name)} is deleted\n`,
  });
}

/** What would be lost. */
function aboutText(found: CheckpointMessage): string {
  const { record, readers } = found;
  const read = readers.length > 0 ? `; read by ${visible(readers.join(', '))}` : '';
  if (record === null) return `${nameText(found)}: its record cannot be trusted${read}`;
  const { source, sizes, create_time: created } = record;
  const parts = [
    sizes === null ? '' : bytesText(sizes.total_bytes),
    source === null ? '' : visible(`of ${source.namespace}/${source.pod}/${source.container}`),
    created === null ? '' : `made ${timeText(isoTime(created))} UTC`,
  ];
  return `${nameText(found)}: ${parts.filter((part) => part !== '').join(', ')}${read}`;
}

async function isWanted(question: string, { input, err, signal }: Terminal): Promise<boolean> {
  const asked = createInterface({ input, terminal: false });
  // An input that ends without an answer is a no.
  const closed = new Promise<string>((resolve) => asked.once('close', () => resolve('')));
  err.write(question);
  try {
    const answer = await Promise.race([asked.question('', { signal }), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    asked.close();
  }
}

function seconds(text: string): number {
  const value = Number(text);
  if (/^[0-9]+$/.test(text) && value <= MAX_WAIT_SECONDS) return value;
  throw new InvalidArgumentError(`It is a number of seconds, at most ${MAX_WAIT_SECONDS} (a day).`);
}
