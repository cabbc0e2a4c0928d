/** Plain text for a terminal or a pipe: no colours, nothing that is overwritten. */

/** One `#` of a bar. */
const SECONDS_PER_MARK = 0.1;
const MAX_MARKS = 30;
const TEXT_WIDTH = 62;

export function say(text = ''): void {
  process.stdout.write(`${text}\n`);
}

/** Runs a step and prints how long it took. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await work();
  timeLine(what, (performance.now() - began) / 1000);
  return result;
}

/** A line with a time and its bar; parts of a step are shown below it, with an indent. */
export function timeLine(what: string, seconds: number, indent = ''): void {
  const text = `${indent}${what}`.padEnd(TEXT_WIDTH);
  say(`${seconds.toFixed(3).padStart(8)} s  ${text} ${bar(seconds)}`.trimEnd());
}

function bar(seconds: number): string {
  const marks = Math.round(seconds / SECONDS_PER_MARK);
  return marks > MAX_MARKS ? `${'#'.repeat(MAX_MARKS)}+` : '#'.repeat(marks);
}

/** Rows of equal length as columns; the first column is text, the others are figures. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const cell = (text: string, column: number) =>
    column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0);
  return rows.map((row) => `  ${row.map(cell).join('  ').trimEnd()}`).join('\n');
}

/** Bytes as people read them. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10));
  const value = count / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${units[power]}`;
}
