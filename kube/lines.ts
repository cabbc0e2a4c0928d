/** Collects text that comes in pieces and gives it out by lines. */
export interface LineSplitter {
  /** The lines that this piece completes, without their ends; empty lines are left out. */
  push(text: string): string[];
  /** What has come since the last line's end. */
  readonly rest: string;
}

/** `maxLength` in UTF-16 units: a line that gets longer is a RangeError, so that an endless one does not fill the memory. */
export function newLineSplitter(maxLength: number): LineSplitter {
  // Pieces are joined once for each line: a long line in many pieces costs no more than its length.
  let pieces: string[] = [];
  let length = 0;
  const keep = (piece: string) => {
    if (piece === '') return;
    pieces.push(piece);
    length += piece.length;
    if (length > maxLength) throw new RangeError(`a line of more than ${maxLength} characters`);
  };
  return {
    push: (text) => {
      const lines: string[] = [];
      let from = 0;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
        keep(text.slice(from, end));
        if (length > 0) lines.push(pieces.join(''));
        pieces = [];
        length = 0;
        from = end + 1;
      }
      keep(text.slice(from));
      return lines;
    },
    get rest() {
      return pieces.join('');
    },
  };
}
