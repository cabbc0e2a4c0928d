import { type Logger, pino } from 'pino';

/** One line of a log. */
export type LogLine = { readonly level: number; readonly msg: string } & Readonly<Record<string, unknown>>;

/** A real logger whose lines stay in memory. */
export function memoryLog(): { readonly log: Logger; readonly lines: LogLine[]; said(message: string): LogLine[] } {
  const lines: LogLine[] = [];
  const log = pino({ level: 'trace' }, { write: (line: string) => lines.push(JSON.parse(line) as LogLine) });
  return { log, lines, said: (message) => lines.filter(({ msg }) => msg === message) };
}
