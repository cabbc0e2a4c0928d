import path from 'node:path';
import { readOnlyEntry } from './file.ts';
import type { Range } from './ranges.ts';
import { big, corrupt, inners, type Message, parseMessage, required, uint } from './wire.ts';

/** A memory area (VMA) of a process, as mm-PID.img has it. */
export interface Area extends Range {
  readonly protection: number;
  /** MAP_ flags of mmap(2). */
  readonly flags: number;
  /** CRIU's kinds of areas, a bit mask. */
  readonly status: number;
}

/** The memory of a process: its areas in the order of their addresses and its executable's file id. */
export interface Memory {
  readonly executable: number;
  readonly areas: readonly Area[];
}

const PROT_WRITE = 2;
const MAP_PRIVATE = 2;
const MAP_DROPPABLE = 8;
const MAP_ANONYMOUS = 0x20;
const MAP_GROWSDOWN = 0x100;
const MAP_HUGETLB = 0x40000;

const REGULAR = 1 << 0;
const HEAP = 1 << 5;
const ANONYMOUS_PRIVATE = 1 << 9;

function readArea(message: Message): Area {
  const start = required(big(message, 1), message, 'the start');
  const end = required(big(message, 2), message, 'the end');
  if (start >= end || start % 4096n !== 0n || end % 4096n !== 0n)
    throw corrupt(`${message.name}: area ${start} to ${end} cannot be`);
  return {
    start: Number(start),
    end: Number(end),
    protection: required(uint(message, 5), message, 'the protection'),
    flags: required(uint(message, 6), message, 'the flags'),
    status: required(uint(message, 7), message, 'the status'),
  };
}

/** Reads mm-PID.img. Areas must be in order and must not overlap, but for guards, which CRIU puts at the end. */
export async function readMemory(dir: string, pid: number): Promise<Memory> {
  const name = `mm-${pid}.img`;
  const message = parseMessage(await readOnlyEntry(path.join(dir, name), 'mm'), name);
  const areas = inners(message, 14, `${name} area`).map(readArea);
  const regular = areas.filter((area) => area.status & REGULAR);
  for (const [index, area] of regular.entries()) {
    if (index > 0 && area.start < (regular[index - 1]?.end ?? 0))
      throw corrupt(`${name}: areas overlap at ${area.start}`);
  }
  return { executable: required(uint(message, 12), message, 'the executable'), areas: regular };
}

/**
 * True where memory of the area may be written into the stopped process after CRIU made it: private, anonymous, writable and nothing
 * special (no stack that grows, huge pages, vDSO, AIO ring, shadow stack or guard). A stack is left to CRIU, which knows its guard page.
 */
export function canBeFilled(area: Area): boolean {
  const plain = (area.status & ~HEAP) === (REGULAR | ANONYMOUS_PRIVATE);
  const anonymous = (area.flags & (MAP_ANONYMOUS | MAP_PRIVATE)) === (MAP_ANONYMOUS | MAP_PRIVATE);
  const special = (area.flags & (MAP_GROWSDOWN | MAP_HUGETLB | MAP_DROPPABLE)) !== 0 && anonymous;
  return plain && anonymous && !special && (area.protection & PROT_WRITE) !== 0;
}

/**
 * Areas of a child that CRIU lets it inherit from its parent at a restore, where equal pages stay shared: same executable, same
 * start and end, and both such as can be filled.
 */
export function inheritedAreas(child: Memory, parent: Memory): Area[] {
  if (child.executable !== parent.executable) return [];
  const ends = new Map(parent.areas.filter(canBeFilled).map((area) => [area.start, area.end]));
  return child.areas.filter((area) => canBeFilled(area) && ends.get(area.start) === area.end);
}
