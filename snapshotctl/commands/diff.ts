import { Command, Option } from 'commander';
import type { CompatibilityMessage, ContainerReference } from '../../contract/agent-api/messages.ts';
import { CommandError } from '../failure.ts';
import { getPod } from '../reach/agents.ts';
import { type ArtifactName, artifactName, nameText } from '../reach/artifact.ts';
import { type VolumeFlags, withVolumeFlags } from '../reach/flags.ts';
import { withReach } from '../reach/open.ts';
import { containerOf, reachVolume } from '../reach/volume.ts';
import { type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import { plain } from '../show/plain.ts';
import { counted, visible } from '../show/text.ts';
import { PIPE_COLUMNS, wrappedTable } from '../show/wrapped.ts';
import type { Terminal } from '../terminal.ts';

interface DiffFlags extends VolumeFlags, OutputFlags {
  readonly pod?: string;
  readonly container?: string;
}

/** `snapshotctl diff`: would the artifact restore there, and why not. Nothing is changed. */
export function diffCommand(terminal: Terminal): Command {
  const command = new Command('diff')
    .argument('<id[@version]>', 'which artifact')
    .description('Say whether an artifact would restore on a node or into a pod, and every reason why not.')
    .addOption(new Option('--pod <name>', 'compare with this placeholder pod as well, on its node'))
    .addOption(new Option('--container <name>', 'its container; default: the only one, or the one with the volume'));
  return withOutputFlag(withVolumeFlags(command)).action((text: string, flags: DiffFlags) => {
    const name = artifactName(text);
    if (flags.container !== undefined && flags.pod === undefined)
      throw new CommandError('usage', '--container is a container of --pod');
    return diff(name, flags, terminal);
  });
}

/** What an artifact was compared with. */
interface Comparison {
  readonly with: string;
  readonly answer: CompatibilityMessage;
}

async function diff(name: ArtifactName, flags: DiffFlags, terminal: Terminal): Promise<void> {
  const compared = await withReach(flags, terminal, async (reach): Promise<Comparison> => {
    const { signal } = terminal;
    const target = await targetOf(flags, reach.cluster);
    // The pod's own mounts lead to the volume: nothing else is needed.
    const volume =
      target === undefined || flags.through !== undefined
        ? await reachVolume(flags, terminal, reach)
        : { ...(await reach.agent(target.node ?? flags.node)), storage: undefined };
    const request = { restore: name, storage: volume.storage, target: target?.reference };
    const answer = await volume.client.checkCompatibility(request, { signal });
    if (target !== undefined) return { with: `pod ${target.reference.namespace}/${target.reference.pod}`, answer };
    const { node } = await volume.client.getNodeInfo({ signal });
    return { with: `node ${node}`, answer };
  });
  const { answer } = compared;
  const columns = terminal.out.isTerminal ? terminal.out.columns : PIPE_COLUMNS;
  writeResult(terminal, flags, {
    value: {
      checkpointId: name.checkpoint_id,
      version: name.version,
      comparedWith: compared.with,
      ...plain(answer, { errorOf: () => undefined as never }),
    },
    text: () => diffText(nameText(name), compared, columns),
  });
  if (!answer.compatible)
    throw new CommandError(
      'refused',
      `${nameText(name)} would not restore: ${counted(answer.mismatches.length, 'reason')}`,
    );
}

async function targetOf(
  { pod, container, namespace }: DiffFlags,
  cluster: Parameters<typeof getPod>[0] | undefined,
): Promise<{ readonly reference: ContainerReference; readonly node: string | undefined } | undefined> {
  if (pod === undefined) return undefined;
  if (cluster !== undefined) {
    const found = await getPod(cluster, cluster.namespace, pod);
    if (found.spec?.nodeName === undefined)
      throw new CommandError('failed', `pod ${visible(pod)} is not on a node yet: there is nothing to compare with`);
    return { reference: containerOf(found, container, '--container CONTAINER'), node: found.spec.nodeName };
  }
  if (container === undefined || namespace === undefined)
    throw new CommandError('usage', 'with --socket or --address, --pod needs --container and --namespace');
  return { reference: { namespace, pod, container }, node: undefined };
}

function diffText(name: string, { with: place, answer }: Comparison, columns: number): string {
  const { compatible, mismatches, not_checked: unchecked } = answer;
  const verdict = compatible
    ? `${name} would restore: nothing on ${visible(place)} is in the way\n`
    : `${name} would not restore on ${visible(place)}\n\n`;
  const rows = mismatches.map(({ code, message, found, wanted, advice }) =>
    [code, found || '-', wanted || '-', `${message}. ${advice}`].map(visible),
  );
  const table = compatible
    ? ''
    : wrappedTable(['REASON', 'FOUND', 'WANTED', 'WHAT IT IS, AND WHAT TO DO'], rows, columns);
  if (unchecked.length === 0) return verdict + table;
  return `${verdict}${table}\nNot compared, as that takes a pod (--pod): ${visible(unchecked.join(', '))}\n`;
}
