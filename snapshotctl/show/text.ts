/**
 * What steers a terminal or hides how a line reads: control characters, line and paragraph separators, and the marks that turn the
 * direction of writing. Whatever comes from an artifact or an agent may hold them.
 */
const STEERING = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Text of others as one line of it may be shown: what steers a terminal is spelt out, as in `\x1b`. */
export function visible(text: string): string {
  return text.replace(STEERING, (character) => SHORT[character] ?? spelt(character));
}

/** Text of others as one line to read, with blanks for what steers a terminal: for messages that people write with several lines. */
export function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').replace(STEERING, ' ').trim();
}

/** As `visible`, but line ends stay: for messages of several lines. */
export function visibleLines(text: string): string {
  return text.split('\n').map(visible).join('\n');
}

/** For what is inside a quoted string of JSON or YAML. */
export function escaped(text: string): string {
  return text.replace(STEERING, (character) =>
    character === '\n' ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function spelt(character: string): string {
  const code = character.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
}

/** The letters of a text, whole where UTF-16 has two halves. */
export function lettersOf(text: string): string[] {
  return Array.from(text);
}

/** How many columns a text takes, for texts of letters that take one each. */
export function widthOf(text: string): number {
  return lettersOf(text).length;
}

/** "1 file", "2 files". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
