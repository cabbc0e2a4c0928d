import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkpointCommand } from '../../../snapshotctl/commands/checkpoint.ts';
import { restoreCommand } from '../../../snapshotctl/commands/restore.ts';
import type { Terminal } from '../../../snapshotctl/terminal.ts';

const page = readFileSync(join(resolve(import.meta.dirname, '../../..'), 'docs/snapshotctl.md'), 'utf8');
const terminal = {} as Terminal;

describe.each([checkpointCommand(terminal), restoreCommand(terminal)])('docs/snapshotctl.md', (command) => {
  const section = page.split(/^### /m).find((text) => text.startsWith(`${command.name()}\n`)) ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('| `'));

  it(`has every flag of ${command.name()}, and no other`, () => {
    const named = rows.flatMap((row) =>
      [...(row.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map(([, flags]) => flags),
    );
    expect(named.sort()).toEqual(command.options.map(({ flags }) => flags).sort());
  });

  it(`says the defaults of ${command.name()}`, () => {
    for (const { flags, defaultValue, defaultValueDescription } of command.options) {
      const wanted = defaultValueDescription ?? (defaultValue as string | undefined);
      if (wanted === undefined) continue;
      expect(rows.find((row) => row.includes(`\`${flags}\``))?.split('|')[2]).toBe(` \`${wanted}\` `);
    }
  });
});
