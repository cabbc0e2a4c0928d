import type { CommandWords, Flag } from './words.ts';

/** A script for zsh, to be evaluated after compinit. */
export function zshScript(commands: readonly CommandWords[]): string {
  return `#compdef snapshotctl
# zsh completion for snapshotctl, made by: snapshotctl completion zsh
_snapshotctl() {
  local -a commands=(
${commands.map(({ name, about }) => `    ${quoted(`${name}:${about.replaceAll(':', ' -')}`)}\n`).join('')}  )
  if (( CURRENT == 2 )); then
    _describe 'command' commands
    return
  fi
  local command="\${words[2]}"
  shift words
  (( CURRENT-- ))
  case "$command" in
${commands.map(commandCase).join('')}  esac
}
compdef _snapshotctl snapshotctl
`;
}

function commandCase({ name, flags, values }: CommandWords): string {
  const specs = flags.flatMap(specsOf);
  const rest = values.length > 0 ? `':value:(${values.join(' ')})'` : `'*:value:'`;
  return `    ${name})\n      _arguments ${[...specs, rest].join(' \\\n        ')}\n      ;;\n`;
}

function specsOf({ names, about, values, isFile }: Flag): string[] {
  const text = about.replace(/[[\]:]/g, ' ');
  const action = isFile ? '_files' : values === undefined || values.length === 0 ? ' ' : `(${values.join(' ')})`;
  const value = values === undefined ? '' : `:value:${action}`;
  return names.map((name) => quoted(`${name}[${text}]${value}`));
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
