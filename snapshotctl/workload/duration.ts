import { InvalidArgumentError } from 'commander';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
/** What a timer can wait. */
const MAX_MS = 2 ** 31 - 1;

/** A time as it is written on a command line (`45m`, `1h30m`, `90s`), in milliseconds. Throws what commander shows. */
export function parseDuration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text.replace(/^-/, ''))
    throw new InvalidArgumentError(`"${text}" is no time; write 90s, 45m or 1h30m`);
  const ms = parts.reduce((sum, [, amount, unit = '']) => sum + Number(amount) * (UNIT_MS[unit] ?? 0), 0);
  return Math.min(text.startsWith('-') ? -ms : ms, MAX_MS);
}

/** A time as people say it: `45m`, `1h30m`, `2m5s`. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1_000);
  const parts = [
    [Math.floor(seconds / 3_600), 'h'],
    [Math.floor((seconds % 3_600) / 60), 'm'],
    [seconds % 60, 's'],
  ] as const;
  return parts.flatMap(([amount, unit]) => (amount === 0 ? [] : `${amount}${unit}`)).join('') || '0s';
}
