import type { CommandWords, Flag } from './words.ts';

/** A script for fish 3 and later. */
export function fishScript(commands: readonly CommandWords[]): string {
  const top = commands.map(
    ({ name, about }) => `complete -c snapshotctl -n __fish_use_subcommand -a ${name} -d ${quoted(about)}\n`,
  );
  const below = commands.flatMap((command) => {
    const when = `complete -c snapshotctl -n '__fish_seen_subcommand_from ${command.name}'`;
    const values = command.values.length > 0 ? [`${when} -a ${quoted(command.values.join(' '))}\n`] : [];
    return [...values, ...command.flags.map((flag) => `${when}${flagText(flag)}\n`)];
  });
  return `# fish completion for snapshotctl, made by: snapshotctl completion fish
complete -c snapshotctl -f
${top.join('')}${below.join('')}`;
}

function flagText({ names, about, values, isFile }: Flag): string {
  const parts = names.map((name) => (name.startsWith('--') ? ` -l ${name.slice(2)}` : ` -s ${name.slice(1)}`));
  const value =
    values === undefined ? '' : isFile ? ' -r -F' : values.length > 0 ? ` -x -a ${quoted(values.join(' '))}` : ' -x';
  return `${parts.join('')}${value} -d ${quoted(about)}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "\\'")}'`;
}
