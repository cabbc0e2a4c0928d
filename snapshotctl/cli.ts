import { Command, CommanderError } from 'commander';
import { VERSION } from '../contract/version.ts';
import { checkpointCommand } from './commands/checkpoint.ts';
import { completionCommand } from './commands/completion.ts';
import { credentialsCommand } from './commands/credentials.ts';
import { restoreCommand } from './commands/restore.ts';
import { CommandError, EXIT } from './failure.ts';
import type { Terminal } from './terminal.ts';

/** Runs one command line, without the program's name. Returns the exit status; never throws. */
export async function runSnapshotctl(argv: readonly string[], terminal: Terminal): Promise<number> {
  const program = newProgram(terminal);
  if (argv.length === 0) {
    terminal.err.write(program.helpInformation());
    return EXIT.ok;
  }
  try {
    await program.parseAsync(argv.map(withTwoDashes), { from: 'user' });
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
    credentialsCommand(program, terminal),
    completionCommand(program, terminal),
  ];
  for (const command of commands) program.addCommand(command.copyInheritedSettings(program));
  return program;
}

/** Flags of the original are Go's, where one dash is as good as two. */
function withTwoDashes(argument: string): string {
  return /^-[a-z][a-z-]+(=|$)/.test(argument) ? `-${argument}` : argument;
}

function explain(error: unknown, terminal: Terminal): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  if (terminal.signal.aborted) {
    terminal.err.write('snapshotctl: interrupted\n');
    return EXIT.interrupted;
  }
  terminal.err.write(`snapshotctl: ${error instanceof Error ? error.message : String(error)}\n`);
  return error instanceof CommandError ? EXIT[error.exit] : EXIT.failed;
}
