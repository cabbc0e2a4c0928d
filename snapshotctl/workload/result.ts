import { Option } from 'commander';
import { stringify } from 'yaml';
import type { Terminal } from '../terminal.ts';

const FORMATS = ['text', 'json', 'yaml'] as const;

/** How a result is written: lines of `key=value`, or as a program reads it. */
export type Format = (typeof FORMATS)[number];

export const newOutputOption = () =>
  new Option('-o, --output <format>', 'lines of key=value, or for programs').choices(FORMATS).default('text');

/** Writes the result of a command, its keys in their order. */
export function writeResult({ out }: Terminal, format: Format, result: Readonly<Record<string, string>>): void {
  if (format === 'json') out.write(`${JSON.stringify(result, undefined, 2)}\n`);
  else if (format === 'yaml') out.write(stringify(result));
  else out.write(Object.entries(result).reduce((text, [key, value]) => `${text}${key}=${value}\n`, ''));
}
