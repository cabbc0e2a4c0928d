import type { Command } from 'commander';

/** What can follow a word, and what it is. */
export interface Flag {
  /** `--output` and, where there is one, `-o`. */
  readonly names: readonly string[];
  readonly about: string;
  /** Undefined: it takes no value. Empty: any. */
  readonly values: readonly string[] | undefined;
  /** Its value is a file. */
  readonly isFile: boolean;
}

export interface CommandWords {
  readonly name: string;
  readonly about: string;
  readonly flags: readonly Flag[];
  /** What its arguments may be: the commands below it, too, whose flags are among its own. */
  readonly values: readonly string[];
}

/** What a command line may consist of, read from the tree of commands: whoever adds a flag adds its completion. Hidden commands are left out. */
export function wordsOf(program: Command): CommandWords[] {
  const commands = program.createHelp().visibleCommands(program);
  const names = commands.map((command) => command.name());
  return commands.map((command) => ({
    name: command.name(),
    about: plainText(command.description()),
    flags: [
      ...[command, ...command.commands]
        .flatMap(({ options }) => options)
        .filter(({ hidden }) => !hidden)
        .map(({ long, short, description, argChoices, required, optional, flags }) => ({
          names: [long, short].filter((name) => name !== undefined && name !== null),
          about: plainText(description),
          values: required || optional ? (argChoices ?? []) : undefined,
          isFile: /<(file|path|directory)>/.test(flags),
        })),
      { names: ['--help', '-h'], about: 'print the usage', values: undefined, isFile: false },
    ],
    values:
      command.name() === 'help'
        ? names
        : [
            ...command.commands.map((below) => below.name()),
            ...command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
          ],
  }));
}

/** One line without what shells take for more than text. */
function plainText(text: string): string {
  return text.replace(/\s+/g, ' ').replace(/["`$\\]/g, '');
}
