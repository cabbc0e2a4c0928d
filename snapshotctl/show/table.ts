import { widthOf } from './text.ts';

const GAP = '  ';

export interface Column {
  readonly title: string;
  /** Numbers stand to the right. */
  readonly right?: boolean;
}

/** Rows below titles, in columns as wide as their widest cell. Cells are shown as they are: `visible` is the caller's to call. */
export function tableText(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const titles = columns.map(({ title }) => title);
  const widths = columns.map((_, index) => Math.max(...[titles, ...rows].map((row) => widthOf(row[index] ?? ''))));
  const line = (row: readonly string[]) =>
    row
      .map((cell, index) => padded(cell, widths[index] ?? 0, columns[index]?.right ?? false))
      .join(GAP)
      .trimEnd();
  return [titles, ...rows].map((row) => `${line(row)}\n`).join('');
}

/** Names and values below each other, the values in one column. Empty values are left out. */
export function listText(pairs: readonly (readonly [name: string, value: string])[], indent = ''): string {
  const shown = pairs.filter(([, value]) => value !== '');
  const width = Math.max(0, ...shown.map(([name]) => widthOf(name)));
  return shown.map(([name, value]) => `${indent}${padded(name, width, false)}${GAP}${value}\n`).join('');
}

export function padded(text: string, width: number, right: boolean): string {
  const blanks = ' '.repeat(Math.max(0, width - widthOf(text)));
  return right ? blanks + text : text + blanks;
}
