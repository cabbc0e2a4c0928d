import { Argument, Command } from 'commander';
import type { Terminal } from '../terminal.ts';

/** `snapshotctl completion bash`: a script for the shell, made from the commands and flags of `program`. */
export function completionCommand(program: Command, terminal: Terminal): Command {
  return new Command('completion')
    .description('Print a completion script: eval "$(snapshotctl completion bash)"')
    .addArgument(new Argument('<shell>').choices(['bash']))
    .action(() => terminal.out.write(bashScript(program)));
}

function bashScript(program: Command): string {
  const visible = program.commands.filter((command) => command.name() !== 'help');
  const cases = visible.map((command) => `    ${command.name()}) words='${flagsOf(command).join(' ')}' ;;`);
  return `_snapshotctl() {
  local words
  case "\${COMP_WORDS[1]}" in
${cases.join('\n')}
    *) words='${visible.map((command) => command.name()).join(' ')}' ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}")
}
complete -o default -F _snapshotctl snapshotctl
`;
}

function flagsOf(command: Command): string[] {
  return [...command.options.flatMap(({ long }) => long ?? []), '--help'];
}
