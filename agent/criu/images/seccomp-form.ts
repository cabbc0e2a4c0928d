import { createHash } from 'node:crypto';

/** One instruction of classic BPF. */
interface Instruction {
  readonly code: number;
  readonly k: number;
  readonly onTrue: number;
  readonly onFalse: number;
}

const INSTRUCTION_BYTES = 8;
/** The kernel takes no longer ones. */
const MAX_INSTRUCTIONS = 4096;
const CLASS_MASK = 0x07;
const CLASS_JUMP = 0x05;
const CLASS_RETURN = 0x06;
/** Unconditional jump, and jump where the accumulator equals a constant. */
const JUMP_ALWAYS = 0x05;
const JUMP_EQUAL = 0x15;

const JUMP = 'jump';
/** A place after the end of the program: the kernel takes no program that leads there. */
const OUTSIDE = 'outside';

/**
 * Says in a digest what a seccomp filter does, whatever the order of its blocks and of comparisons that exclude each other: filters of
 * the same form do the same. runc writes the branches to its architectures in random order, so that two containers of one
 * profile have filters that differ in their bytes. What is no program is given back as it is.
 */
export function filterForm(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  const length = bytes.length / INSTRUCTION_BYTES;
  if (!Number.isInteger(length) || length === 0 || length > MAX_INSTRUCTIONS) return hex;
  const program = Array.from({ length }, (_, at) => instructionAt(bytes, at));
  // Programs only jump forward: who is needed is known from the begin on, what an instruction leads to from the end on.
  const steps = new Map<number, Step>();
  const needed = new Set([0]);
  for (let at = 0; at < length; at++) {
    if (!needed.has(at)) continue;
    const step = stepAt(program, at);
    steps.set(at, step);
    for (const next of step.next) needed.add(next);
  }
  const forms = new Map<number, string>();
  for (const [at, { what, next }] of [...steps].toReversed()) {
    // A jump does nothing but lead elsewhere.
    const [target] = next;
    if (what === JUMP && target !== undefined) {
      forms.set(at, forms.get(target) ?? OUTSIDE);
      continue;
    }
    const hash = createHash('sha256').update(what);
    for (const place of next) hash.update(` ${forms.get(place) ?? OUTSIDE}`);
    forms.set(at, hash.digest('hex'));
  }
  return forms.get(0) ?? hex;
}

function instructionAt(bytes: Buffer, index: number): Instruction {
  const at = index * INSTRUCTION_BYTES;
  const next = index + 1;
  return {
    code: bytes.readUInt16LE(at),
    k: bytes.readUInt32LE(at + 4),
    onTrue: next + bytes.readUInt8(at + 2),
    onFalse: next + bytes.readUInt8(at + 3),
  };
}

/** What is done at a place, and the places that it leads to, in an order that belongs to what is done. */
interface Step {
  readonly what: string;
  readonly next: readonly number[];
}

function stepAt(program: readonly Instruction[], at: number): Step {
  const one = program[at];
  if (one === undefined) return { what: OUTSIDE, next: [] };
  if (one.code === JUMP_ALWAYS) return { what: JUMP, next: [at + 1 + one.k] };
  if (one.code === JUMP_EQUAL) return comparisons(program, at);
  const what = `${one.code} ${one.k}`;
  if ((one.code & CLASS_MASK) === CLASS_RETURN) return { what, next: [] };
  return { what, next: (one.code & CLASS_MASK) === CLASS_JUMP ? [one.onTrue, one.onFalse] : [at + 1] };
}

/** All comparisons that are reached one after the other while none holds, as a table; of equal constants the first one counts. */
function comparisons(program: readonly Instruction[], from: number): Step {
  const table = new Map<number, number>();
  let at = from;
  for (let one = program[at]; one?.code === JUMP_EQUAL; one = program[at]) {
    if (!table.has(one.k)) table.set(one.k, one.onTrue);
    at = one.onFalse;
  }
  const rows = [...table].sort(([a], [b]) => a - b);
  return { what: `table ${rows.map(([k]) => k).join(' ')}`, next: [...rows.map(([, place]) => place), at] };
}
