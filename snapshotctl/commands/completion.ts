import { Argument, Command } from 'commander';
import { bashScript } from '../completion/bash.ts';
import { fishScript } from '../completion/fish.ts';
import { wordsOf } from '../completion/words.ts';
import { zshScript } from '../completion/zsh.ts';
import type { Terminal } from '../terminal.ts';

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const;

/** `snapshotctl completion SHELL`: a script for the shell, made from the commands and flags of `program`. */
export function completionCommand(program: Command, terminal: Terminal): Command {
  return new Command('completion')
    .description('Print a completion script for a shell.')
    .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SCRIPTS)))
    .addHelpText('after', HOW)
    .action((shell: keyof typeof SCRIPTS) => terminal.out.write(SCRIPTS[shell](wordsOf(program))));
}

const HOW = `
bash:  eval "$(snapshotctl completion bash)"
zsh:   eval "$(snapshotctl completion zsh)"       after compinit
fish:  snapshotctl completion fish | source
`;
