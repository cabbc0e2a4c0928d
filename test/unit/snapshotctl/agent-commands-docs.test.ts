import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { completionCommand } from '../../../snapshotctl/commands/completion.ts';
import { deleteCommand } from '../../../snapshotctl/commands/delete.ts';
import { diffCommand } from '../../../snapshotctl/commands/diff.ts';
import { inspectCommand } from '../../../snapshotctl/commands/inspect.ts';
import { listCommand } from '../../../snapshotctl/commands/list.ts';
import { nodesCommand } from '../../../snapshotctl/commands/nodes.ts';
import { relayCommand } from '../../../snapshotctl/commands/relay.ts';
import { reportCommand } from '../../../snapshotctl/commands/report.ts';
import { verifyCommand } from '../../../snapshotctl/commands/verify.ts';
import { watchCommand } from '../../../snapshotctl/commands/watch.ts';
import { EXIT } from '../../../snapshotctl/failure.ts';
import { withAgentFlags, withVolumeFlags } from '../../../snapshotctl/reach/flags.ts';
import { withOutputFlag } from '../../../snapshotctl/show/output.ts';
import type { Terminal } from '../../../snapshotctl/terminal.ts';

const page = readFileSync('docs/snapshotctl.md', 'utf8');
const terminal = {} as Terminal;
const section = (heading: string) => page.split(/^##+ /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
/** What is between backquotes in the first cells of a section's tables. */
const firstCells = (heading: string) =>
  section(heading)
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((row) => [...(row.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, text]) => text ?? ''))
    .sort();
const flagsOf = ({ options }: Pick<Command, 'options'>) => options.map(({ flags }) => flags).sort();

const shared = {
  'Which agent': withAgentFlags(new Command()),
  'Which volume': {
    options: withVolumeFlags(new Command()).options.slice(withAgentFlags(new Command()).options.length),
  },
  Output: withOutputFlag(new Command()),
};
const commands = [
  listCommand,
  inspectCommand,
  verifyCommand,
  diffCommand,
  watchCommand,
  deleteCommand,
  reportCommand,
  nodesCommand,
].map((make) => make(terminal));

describe('docs/snapshotctl.md', () => {
  it('has the exit statuses as they are', () => {
    const table = [...section('Exit status').matchAll(/^\| (\d+) \| `(\w+)` \|/gm)].map(([, code, name]) => [
      name,
      Number(code),
    ]);
    expect(Object.fromEntries(table)).toEqual(EXIT);
  });

  it.each(Object.entries(shared))('has the flags of "%s", and no other', (heading, command) => {
    expect(firstCells(heading)).toEqual(flagsOf(command));
  });

  it.each(commands.map((command) => [command.name(), command] as const))(
    'has the flags of %s, and no other',
    (name, command) => {
      const known = new Set(Object.values(shared).flatMap(flagsOf));
      const own = flagsOf(command).filter((flags) => !known.has(flags));
      expect(firstCells(name)).toEqual(own);
      // Which of the shared ones it has is said in words.
      const has = (heading: keyof typeof shared) =>
        flagsOf(shared[heading]).every((flags) => flagsOf(command).includes(flags));
      const said = (heading: string) => section(name).includes(`](#${heading.toLowerCase().replaceAll(' ', '-')})`);
      expect([said('Which agent'), said('Which volume'), said('Output')]).toEqual([
        has('Which agent') && !has('Which volume'),
        has('Which volume'),
        has('Output'),
      ]);
    },
  );

  it("says where the agent's socket is, which the relay connects to by itself", () => {
    const [socket] = relayCommand(terminal).options;
    expect(section('Which agent')).toContain(`\`${socket?.defaultValue}\``);
  });

  it('names the shells that there is a completion for', () => {
    const { registeredArguments } = completionCommand(new Command(), terminal);
    for (const shell of registeredArguments[0]?.argChoices ?? [])
      expect(section('completion')).toContain(`completion ${shell}`);
  });
});
