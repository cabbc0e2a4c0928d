import { rename, rm, writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { VERSION } from '../../contract/version.ts';
import { CommandError } from '../failure.ts';
import { type ArtifactName, artifactName, nameText } from '../reach/artifact.ts';
import { readArtifact } from '../reach/contents.ts';
import { type VolumeFlags, withVolumeFlags } from '../reach/flags.ts';
import { type ReachedVolume, withVolume } from '../reach/volume.ts';
import { type Limit, limitOf, verificationLimit } from '../report/figures.ts';
import { reportPage } from '../report/page.ts';
import { secondsText } from '../show/amounts.ts';
import { whileShowing } from '../show/progress.ts';
import { visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';

interface ReportFlags extends VolumeFlags {
  readonly file?: string;
  readonly verify?: boolean;
  readonly limit: readonly Limit[];
}

/** `snapshotctl report`: all that is known of an artifact, as one page for a browser. */
export function reportCommand(terminal: Terminal): Command {
  const command = new Command('report')
    .argument('<id[@version]>', 'which artifact')
    .description(
      'Write a page about an artifact: timeline, rates, sizes, processes and memory map. One HTML file that loads nothing.',
    )
    .addOption(new Option('-f, --file <file>', 'where to; -: standard output').default(undefined, 'ID@VERSION.html'))
    .addOption(new Option('--verify', 'verify it, and show the rate as a limit: reads all of it'))
    .addOption(
      new Option('--limit <name=rate>', 'a limit to show rates against, as in storage=2.4GB/s; may be repeated')
        .default([], 'none')
        .argParser(addLimit),
    );
  return withVolumeFlags(command).action((text: string, flags: ReportFlags) => {
    const name = artifactName(text);
    return withVolume(flags, terminal, (volume) => report(name, volume, flags, terminal));
  });
}

async function report(
  name: ArtifactName,
  volume: ReachedVolume,
  flags: ReportFlags,
  terminal: Terminal,
): Promise<void> {
  const { client, storage } = volume;
  const { checkpoint, contents } = await readArtifact(name, volume, terminal);
  const { record, problem } = checkpoint;
  if (record === null || !checkpoint.complete) {
    const why = problem === null ? 'it is incomplete' : visible(client.errorOf(problem).message);
    throw new CommandError('failed', `there is nothing to report of ${nameText(name)}: ${why}`);
  }
  const limits = [...flags.limit];
  if (flags.verify) {
    const shown = (seconds: number) => `verifying ${nameText(name)}: ${secondsText(Math.round(seconds))} so far`;
    const verify = () => client.verifyCheckpoint({ ...name, storage }, { signal: terminal.signal });
    const { node } = await client.getNodeInfo({ signal: terminal.signal });
    const limit = verificationLimit(await whileShowing(terminal, shown, verify), node);
    if (limit !== undefined) limits.push(limit);
  }
  const page = reportPage({
    ...{ checkpoint, record, contents, limits },
    agent: volume.name,
    madeAt: new Date(),
    version: VERSION,
  });
  if (flags.file === '-') return terminal.out.write(page);
  const file = flags.file ?? `${name.checkpoint_id}@${name.version}.html`;
  await writeWhole(file, page);
  terminal.err.write(`${visible(file)} is written: open it in a browser\n`);
}

/** A page that was there stays until the new one is whole. */
async function writeWhole(file: string, text: string): Promise<void> {
  const unfinished = `${file}.${process.pid}.part`;
  try {
    await writeFile(unfinished, text, { flag: 'wx' });
    await rename(unfinished, file);
  } catch (cause) {
    await rm(unfinished, { force: true });
    throw new CommandError('failed', `${visible(file)} cannot be written: ${(cause as Error).message}`, { cause });
  }
}

function addLimit(text: string, before: readonly Limit[]): Limit[] {
  const limit = limitOf(text);
  if (limit === undefined) throw new InvalidArgumentError('It is NAME=RATE, as in storage=2.4GB/s.');
  return [...before, limit];
}
