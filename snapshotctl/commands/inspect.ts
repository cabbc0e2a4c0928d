import { Command } from 'commander';
import type { AgentClient } from '../../contract/agent-api/client.ts';
import type { CheckpointContents } from '../../contract/agent-api/messages.ts';
import { artifactName } from '../reach/artifact.ts';
import { readArtifact } from '../reach/contents.ts';
import { type VolumeFlags, withVolumeFlags } from '../reach/flags.ts';
import { withVolume } from '../reach/volume.ts';
import { inspectText } from '../show/inspection.ts';
import { type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import { plain } from '../show/plain.ts';
import { PIPE_COLUMNS } from '../show/wrapped.ts';
import type { Terminal } from '../terminal.ts';

/** `snapshotctl inspect`: what an artifact was captured with, what is in it, and how long it took. */
export function inspectCommand(terminal: Terminal): Command {
  const command = new Command('inspect')
    .argument('<id[@version]>', 'which artifact')
    .description('Show what an artifact was captured with, its sizes, its processes, and how long it took.');
  return withOutputFlag(withVolumeFlags(command)).action((text: string, flags: VolumeFlags & OutputFlags) => {
    const name = artifactName(text);
    return withVolume(flags, terminal, async (volume) => {
      const { checkpoint, contents } = await readArtifact(name, volume, terminal);
      const { client } = volume;
      const columns = terminal.out.isTerminal ? terminal.out.columns : PIPE_COLUMNS;
      writeResult(terminal, flags, {
        value: { ...plain(checkpoint, client), ...(contents && contentsValue(contents, client)) },
        text: () => inspectText(checkpoint, contents, { columns, errorOf: client.errorOf }),
      });
    });
  });
}

function contentsValue(contents: CheckpointContents, client: AgentClient): object {
  const { checkpoint: _, ...inside } = plain(contents, client);
  return { contents: inside };
}
