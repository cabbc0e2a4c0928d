import { Command } from 'commander';
import type { AgentClient } from '../../contract/agent-api/client.ts';
import type { CheckpointMessage } from '../../contract/agent-api/messages.ts';
import { nameText } from '../reach/artifact.ts';
import { type VolumeFlags, withVolumeFlags } from '../reach/flags.ts';
import { withVolume } from '../reach/volume.ts';
import { bytesText, timeText } from '../show/amounts.ts';
import { type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import { isoTime, plain } from '../show/plain.ts';
import { tableText } from '../show/table.ts';
import { visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';

/** `snapshotctl list`: every artifact of the volume, also those that something is wrong with. */
export function listCommand(terminal: Terminal): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List the artifacts of the volume, also those that something is wrong with.');
  return withOutputFlag(withVolumeFlags(command)).action((flags: VolumeFlags & OutputFlags) =>
    withVolume(flags, terminal, async ({ client, storage }) => {
      const found: CheckpointMessage[] = [];
      for await (const one of client.listCheckpoints(storage, { signal: terminal.signal })) found.push(one);
      writeResult(terminal, flags, {
        value: { checkpoints: found.map((one) => plain(one, client)) },
        text: () => listText(found, client),
      });
    }),
  );
}

const COLUMNS = [
  { title: 'ID' },
  { title: 'VERSION' },
  { title: 'NAMESPACE' },
  { title: 'STATE' },
  { title: 'SIZE', right: true },
  { title: 'CREATED (UTC)' },
  { title: 'FROM' },
  { title: 'GPU' },
  { title: 'READERS', right: true },
];

function listText(found: readonly CheckpointMessage[], client: Pick<AgentClient, 'errorOf'>): string {
  if (found.length === 0) return 'there are no artifacts\n';
  const rows = found.map((one) => rowOf(one, client).map(visible));
  const problems = found.flatMap((one) => {
    if (one.problem === null) return [];
    const { reason, message } = client.errorOf(one.problem);
    return [`${nameText(one)}: ${visible(reason)}: ${visible(message)}\n`];
  });
  return `${tableText(COLUMNS, rows)}${problems.length > 0 ? `\n${problems.join('')}` : ''}`;
}

function rowOf(one: CheckpointMessage, client: Pick<AgentClient, 'errorOf'>): string[] {
  const { record } = one;
  const state = one.problem === null ? (one.complete ? 'complete' : 'incomplete') : client.errorOf(one.problem).reason;
  const readers = String(one.readers.length);
  if (record === null) return [one.checkpoint_id, one.version, '-', state, '-', '-', '-', '-', readers];
  const { source, sizes, platform, create_time: created } = record;
  return [
    one.checkpoint_id,
    one.version,
    source?.namespace ?? '-',
    state,
    sizes === null ? '-' : bytesText(sizes.total_bytes),
    created === null ? '-' : timeText(isoTime(created)),
    source === null ? '-' : `${source.pod}/${source.container}`,
    gpuText(platform?.gpu_models ?? []),
    readers,
  ];
}

/** `NVIDIA H200`, `2 x NVIDIA H200`, or a dash. */
function gpuText(models: readonly string[]): string {
  const kinds = [...new Set(models)];
  const count = (model: string) => models.filter((one) => one === model).length;
  return kinds.map((model) => (count(model) > 1 ? `${count(model)} x ${model}` : model)).join(', ') || '-';
}
