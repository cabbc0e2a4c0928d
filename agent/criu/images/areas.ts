import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { readOnlyEntry } from './file.ts';
import type { Range } from './ranges.ts';
import { big, corrupt, eachInner, type Message, parseMessage, required, uint } from './wire.ts';

/** A memory area (VMA) of a process, as mm-PID.img has it. */
export interface Area extends Range {
  readonly protection: number;
  /** MAP_ flags of mmap(2). */
  readonly flags: number;
  /** CRIU's kinds of areas, a bit mask. */
  readonly status: number;
  /** Where in what is mapped it begins, in bytes. */
  readonly offset: number;
  /** Id of the mapped file in files.img; of shared memory without a file, that of its own images. 0: neither. */
  readonly mapped: number;
}

/** The memory of a process: its areas in the order of their addresses and its executable's file id. */
export interface Memory {
  readonly executable: number;
  readonly areas: readonly Area[];
}

const PROT_WRITE = 2;
/** Areas after which others get their turn: 100000 take a second. */
const AT_A_STRETCH = 2_000;

const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_DROPPABLE = 8;
const MAP_ANONYMOUS = 0x20;
const MAP_GROWSDOWN = 0x100;
const MAP_HUGETLB = 0x40000;

const REGULAR = 1 << 0;
const STACK = 1 << 1;
const HEAP = 1 << 5;
const ANONYMOUS_PRIVATE = 1 << 9;
const FILES = (1 << 6) | (1 << 7);
const ANONYMOUS_SHARED = 1 << 8;
const SYSTEM_V = 1 << 10;
const MEMFD = 1 << 14;
/** vDSO and its data, packet rings, AIO rings, shadow stacks, probes. */
const KERNEL_MADE = (1 << 3) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 15) | (1 << 17);
const OF_PLUGIN = 1 << 27;

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
    offset: Number(big(message, 3) ?? 0n),
    mapped: Number(big(message, 4) ?? 0n),
  };
}

/** Reads mm-PID.img. Areas must be in order and must not overlap, but for guards, which CRIU puts at the end. */
export async function readMemory(dir: string, pid: number): Promise<Memory> {
  const name = `mm-${pid}.img`;
  const message = parseMessage(await readOnlyEntry(path.join(dir, name), 'mm'), name);
  const regular: Area[] = [];
  let read = 0;
  for (const found of eachInner(message, 14, `${name} area`)) {
    const area = readArea(found);
    if (area.status & REGULAR) regular.push(area);
    read += 1;
    if (read % AT_A_STRETCH === 0) await setImmediate();
  }
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
export function canBeFilled(area: Omit<Area, 'offset' | 'mapped'>): boolean {
  const plain = (area.status & ~HEAP) === (REGULAR | ANONYMOUS_PRIVATE);
  const anonymous = (area.flags & (MAP_ANONYMOUS | MAP_PRIVATE)) === (MAP_ANONYMOUS | MAP_PRIVATE);
  const special = (area.flags & (MAP_GROWSDOWN | MAP_HUGETLB | MAP_DROPPABLE)) !== 0 && anonymous;
  return plain && anonymous && !special && (area.protection & PROT_WRITE) !== 0;
}

/** What an area is. `file`: its content comes from a file of files.img, `shared`: from memory that has images of its own. */
export type AreaKind = 'anonymous' | 'heap' | 'stack' | 'file' | 'memfd' | 'shared' | 'device' | 'special';

export function kindOf({ status, flags }: Area): AreaKind {
  if (status & KERNEL_MADE) return 'special';
  if (status & OF_PLUGIN) return 'device';
  if (status & MEMFD) return 'memfd';
  if (status & (ANONYMOUS_SHARED | SYSTEM_V)) return 'shared';
  if (status & FILES) return 'file';
  if (status & HEAP) return 'heap';
  return status & STACK || flags & MAP_GROWSDOWN ? 'stack' : 'anonymous';
}

/** Whether what one process writes there others see, or the file. */
export function isShared({ flags }: Area): boolean {
  return (flags & MAP_SHARED) !== 0;
}

/** As /proc/PID/maps writes it: `rw-`. */
export function protectionText({ protection }: Area): string {
  return ['r', 'w', 'x'].map((letter, bit) => (protection & (1 << bit) ? letter : '-')).join('');
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
