import { type Command, Option } from 'commander';
import { stringify } from 'yaml';
import type { Terminal } from '../terminal.ts';
import { escaped, visible } from './text.ts';

const FORMATS = ['text', 'json', 'yaml'] as const;

export interface OutputFlags {
  readonly output: (typeof FORMATS)[number];
}

/** Adds `-o, --output` to a command. */
export function withOutputFlag(command: Command, formats = 'for people, or for programs'): Command {
  return command.addOption(new Option('-o, --output <format>', formats).choices(FORMATS).default('text'));
}

/** Writes a result as its reader wants it. Nothing in it can steer a terminal, whatever the format. */
export function writeResult(
  { out }: Pick<Terminal, 'out'>,
  { output }: OutputFlags,
  result: { readonly value: object; readonly text: () => string },
): void {
  if (output === 'text') out.write(result.text());
  else if (output === 'json') out.write(`${escaped(JSON.stringify(result.value, undefined, 2))}\n`);
  else out.write(yamlText(result.value));
}

/** The same for one of several results that come one after the other: a line of JSON each, or a document of YAML. */
export function writeNext(
  { out }: Pick<Terminal, 'out'>,
  flags: OutputFlags,
  result: { readonly value: object; readonly text: () => string },
): void {
  if (flags.output === 'yaml') out.write('---\n');
  if (flags.output === 'json') out.write(`${escaped(JSON.stringify(result.value))}\n`);
  else writeResult({ out }, flags, result);
}

/** The lines of the original, which scripts read: `key=value`, in their order. */
export function keyValueLines(result: Readonly<Record<string, string>>): string {
  return Object.entries(result).reduce((text, [key, value]) => `${text}${key}=${visible(value)}\n`, '');
}

/** Every text is quoted, so that what must be escaped can be. */
function yamlText(value: object): string {
  const options = { defaultStringType: 'QUOTE_DOUBLE', defaultKeyType: 'PLAIN', lineWidth: 0 } as const;
  return escaped(stringify(value, options));
}
