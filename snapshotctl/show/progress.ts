import type { Terminal } from '../terminal.ts';
import { lettersOf, widthOf } from './text.ts';

/** One line that is written over again and again, where a person watches. Elsewhere it is silent. */
export interface Progress {
  show(text: string): void;
  /** Takes the line away, so that something else can be written. */
  clear(): void;
}

/** The line is on standard error, cut to the width of the terminal: one that wraps could not be taken away. */
export function newProgress({ err }: Pick<Terminal, 'err'>): Progress {
  if (!err.isTerminal) return { show: () => undefined, clear: () => undefined };
  let isShown = false;
  return {
    show: (text) => {
      const room = err.columns - 1;
      const cut = widthOf(text) > room ? lettersOf(text).slice(0, room).join('') : text;
      err.write(`\r\x1b[K${cut}`);
      isShown = true;
    },
    clear: () => {
      if (isShown) err.write('\r\x1b[K');
      isShown = false;
    },
  };
}

/** Shows a text that changes with time until the work is done. */
export async function whileShowing<T>(
  terminal: Pick<Terminal, 'err'>,
  text: (seconds: number) => string,
  work: () => Promise<T>,
): Promise<T> {
  const progress = newProgress(terminal);
  const began = performance.now();
  const show = () => progress.show(text((performance.now() - began) / 1000));
  show();
  const timer = setInterval(show, 250);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    progress.clear();
  }
}
