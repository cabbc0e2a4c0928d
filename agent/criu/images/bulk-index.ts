import { createReadStream } from 'node:fs';
import type { Range } from './ranges.ts';
import { corrupt } from './wire.ts';

/** The bulk file's index as text: which memory of which process is in the bulk file. docs/native.md has its form. */

export interface BulkIndex {
  /** By PID inside the container: its memory in the bulk file, in the order of addresses, neighbours as one. */
  readonly memory: ReadonlyMap<number, readonly Range[]>;
  readonly blocks: number;
  readonly bytes: number;
}

const LINE = /^(0|[1-9]\d{0,9}) (0|[1-9]\d{0,15}) ([1-9]\d{0,6}) (0|[1-9]\d{0,15}) [0-9a-f]{32}$/;
/** Longer than any line of the index. */
const MAX_LINE = 100;
const PAGE = 4096;
const MAX_BLOCK = 1 << 20;

/** Reads the index. Its tags are not looked at: these belong to the pages. Throws ARTIFACT_CORRUPT for one that bulk-write does not write. */
export async function readBulkIndex(path: string): Promise<BulkIndex> {
  const memory = new Map<number, Range[]>();
  let [blocks, bytes, last, end] = [0, 0, 0, 0];
  const take = (line: string) => {
    blocks += 1;
    const [, pid = 0, start = 0, length = 0] = LINE.exec(line)?.map(Number) ?? [];
    if (length === 0) throw corrupt(`line ${blocks} of the bulk index has not its form`);
    if (start % PAGE !== 0 || length % PAGE !== 0 || length > MAX_BLOCK)
      throw corrupt(`line ${blocks} of the bulk index: not whole pages, or more than a block`);
    if (pid < last || (pid === last && start < end))
      throw corrupt(`line ${blocks} of the bulk index: blocks overlap or are not in order`);
    [last, end] = [pid, start + length];
    bytes += length;
    const ranges = memory.get(pid) ?? [];
    const before = ranges.at(-1);
    if (before?.end === start) ranges[ranges.length - 1] = { start: before.start, end };
    else ranges.push({ start, end });
    memory.set(pid, ranges);
  };
  let rest = '';
  for await (const chunk of createReadStream(path, { encoding: 'latin1' })) {
    const lines = `${rest}${chunk}`.split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > MAX_LINE) throw corrupt(`line ${blocks + lines.length + 1} of the bulk index has no end`);
    for (const line of lines) take(line);
  }
  if (rest !== '') throw corrupt('the bulk index is cut off inside a line');
  return { memory, blocks, bytes };
}
