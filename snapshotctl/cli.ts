import { Command, CommanderError } from 'commander';
import { VERSION } from '../contract/version.ts';
import { checkpointCommand } from './commands/checkpoint.ts';
import { completionCommand } from './commands/completion.ts';
import { credentialsCommand } from './commands/credentials.ts';
import { deleteCommand } from './commands/delete.ts';
import { diffCommand } from './commands/diff.ts';
import { inspectCommand } from './commands/inspect.ts';
import { listCommand } from './commands/list.ts';
import { nodesCommand } from './commands/nodes.ts';
import { relayCommand } from './commands/relay.ts';
import { reportCommand } from './commands/report.ts';
import { restoreCommand } from './commands/restore.ts';
import { verifyCommand } from './commands/verify.ts';
import { watchCommand } from './commands/watch.ts';
import { CommandError, EXIT } from './failure.ts';
import { visibleLines } from './show/text.ts';
import type { Terminal } from './terminal.ts';

/** Runs one command line, without the program's name. Returns the exit status; never throws. */
export async function runSnapshotctl(argv: readonly string[], terminal: Terminal): Promise<number> {
  const program = newProgram(terminal);
  if (argv.length === 0) {
    terminal.err.write(program.helpInformation());
    return EXIT.ok;
  }
  try {
    await program.parseAsync(withTwoDashes(argv, program), { from: 'user' });
    return EXIT.ok;
  } catch (error) {
    return explain(error, terminal);
  }
}

function newProgram(terminal: Terminal): Command {
  const program = new Command('snapshotctl')
    .description('Checkpoints and restores GPU pods, and looks after what was checkpointed.')
    .version(VERSION, '--version', 'print the version')
    .helpOption('-h, --help', 'print this')
    .helpCommand('help [command]', 'print the usage of a command')
    .showHelpAfterError('(snapshotctl help COMMAND prints its usage)')
    .exitOverride()
    .configureOutput({ writeOut: (text) => terminal.err.write(text), writeErr: (text) => terminal.err.write(text) });
  const commands = [
    checkpointCommand(terminal),
    restoreCommand(terminal),
    listCommand(terminal),
    inspectCommand(terminal),
    verifyCommand(terminal),
    diffCommand(terminal),
    watchCommand(terminal),
    deleteCommand(terminal),
    reportCommand(terminal),
    nodesCommand(terminal),
    credentialsCommand(program, terminal),
    completionCommand(program, terminal),
  ];
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program));
  program.addCommand(relayCommand(terminal).copyInheritedSettings(program), { hidden: true });
  return program;
}

/** Flags of the original are Go's, where one dash is as good as two: `-pod NAME` is `--pod NAME`, but `-ojson` is `-o json`. */
function withTwoDashes(argv: readonly string[], program: Command): string[] {
  const commands = program.commands.flatMap((command) => [command, ...command.commands]);
  const flags = new Set(commands.flatMap(({ options }) => options.map(({ long }) => long)));
  return argv.map((argument) => (flags.has(`-${argument.split('=', 1)[0]}`) ? `-${argument}` : argument));
}

function explain(error: unknown, terminal: Terminal): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  if (terminal.signal.aborted) {
    terminal.err.write('snapshotctl: interrupted\n');
    return EXIT.interrupted;
  }
  // Whoever made a pod, a manifest or an answer may have put anything into what is quoted here.
  terminal.err.write(`snapshotctl: ${visibleLines(error instanceof Error ? error.message : String(error))}\n`);
  return error instanceof CommandError ? EXIT[error.exit] : EXIT.failed;
}
