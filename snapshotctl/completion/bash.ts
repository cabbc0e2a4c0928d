import type { CommandWords, Flag } from './words.ts';

/** A script for bash 4 and later. */
export function bashScript(commands: readonly CommandWords[]): string {
  const names = commands.map(({ name }) => name).join(' ');
  return `# bash completion for snapshotctl, made by: snapshotctl completion bash
_snapshotctl() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" words='' files=''
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    words='${names} --help --version'
  else
    case "\${COMP_WORDS[1]} $previous" in
${commands.map(valueCases).join('')}      *)
        case "\${COMP_WORDS[1]}" in
${commands.map(flagCase).join('')}        esac
        ;;
    esac
  fi
  if [[ -n $files ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  fi
}
complete -F _snapshotctl snapshotctl
`;
}

/** What comes behind a flag that takes a value. */
function valueCases({ name, flags }: CommandWords): string {
  return flags
    .filter(({ values }) => values !== undefined)
    .map(({ names, values = [], isFile }) => {
      const patterns = names.map((flag) => `'${name} ${flag}'`).join('|');
      return `      ${patterns}) ${isFile ? 'files=1' : `words='${values.join(' ')}'`} ;;\n`;
    })
    .join('');
}

function flagCase({ name, flags, values }: CommandWords): string {
  return `          ${name}) words='${[...values, ...flags.flatMap(longName)].join(' ')}' ;;\n`;
}

function longName({ names }: Flag): string[] {
  return names.filter((name) => name.startsWith('--'));
}
