import { padded } from './table.ts';
import { lettersOf, widthOf } from './text.ts';

const GAP = '  ';
/** Where nobody knows the width: in files and pipes. */
export const PIPE_COLUMNS = 120;
const NARROWEST = 12;

/** A table whose cells go over several lines where they are long: the first column keeps its width, the others share what is left. */
export function wrappedTable(titles: readonly string[], rows: readonly (readonly string[])[], columns: number): string {
  const natural = titles.map((_, index) => Math.max(...[titles, ...rows].map((row) => widthOf(row[index] ?? ''))));
  const widths = share(natural, columns - GAP.length * (titles.length - 1));
  const lines = [titles, ...rows].flatMap((row) => {
    const cells = row.map((cell, index) => wrapped(cell, widths[index] ?? NARROWEST));
    const height = Math.max(...cells.map((cell) => cell.length));
    return Array.from({ length: height }, (_, line) =>
      cells
        .map((cell, index) => padded(cell[line] ?? '', widths[index] ?? 0, false))
        .join(GAP)
        .trimEnd(),
    );
  });
  return lines.map((line) => `${line}\n`).join('');
}

/** Narrow columns get what they need, wide ones the same of what is left. */
function share(natural: readonly number[], room: number): number[] {
  const widths = natural.map(() => 0);
  let [left, open] = [room, natural.map((_, index) => index)];
  for (;;) {
    const even = Math.max(NARROWEST, Math.floor(left / Math.max(1, open.length)));
    const small = open.filter((index) => (natural[index] ?? 0) <= even);
    if (small.length === 0) {
      for (const index of open) widths[index] = even;
      return widths;
    }
    for (const index of small) {
      widths[index] = natural[index] ?? 0;
      left -= widths[index] ?? 0;
    }
    open = open.filter((index) => !small.includes(index));
    if (open.length === 0) return widths;
  }
}

/** Lines of at most `width`; words that are longer are cut. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`;
    if (widthOf(longer) <= width) {
      line = longer;
      continue;
    }
    if (line !== '') lines.push(line);
    const letters = lettersOf(word);
    while (letters.length > width) lines.push(letters.splice(0, width).join(''));
    line = letters.join('');
  }
  return [...lines, line];
}
