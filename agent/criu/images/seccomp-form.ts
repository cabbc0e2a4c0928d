/** One instruction of classic BPF with the places it goes to, counted from the begin of the program. */
interface Instruction {
  readonly code: number;
  readonly k: number;
  readonly onTrue: number;
  readonly onFalse: number;
}

const INSTRUCTION_BYTES = 8;
const CLASS_MASK = 0x07;
const CLASS_JUMP = 0x05;
/** Unconditional jump, and jump where the accumulator equals a constant. */
const JUMP_ALWAYS = 0x05;
const JUMP_EQUAL = 0x15;

/**
 * A seccomp filter in a form that does not depend on the order of comparisons that exclude each other: programs of the same form
 * do the same. runc writes the branches to its architectures in random order, so that two containers of one profile have
 * filters that differ in their bytes. Takes and gives text; what is no program of whole instructions is given back as it is.
 */
export function filterForm(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  if (bytes.length === 0 || bytes.length % INSTRUCTION_BYTES !== 0) return hex;
  const program = Array.from({ length: bytes.length / INSTRUCTION_BYTES }, (_, index) => instructionAt(bytes, index));
  const entered = new Set(program.flatMap((one, at) => [one.onTrue, one.onFalse].filter((to) => to !== at + 1)));
  const lines: string[] = [];
  for (let at = 0; at < program.length; ) {
    const end = endOfRun(program, entered, at);
    lines.push(...linesOf(program.slice(at, end), end));
    at = end;
  }
  return lines.join('\n');
}

function instructionAt(bytes: Buffer, index: number): Instruction {
  const at = index * INSTRUCTION_BYTES;
  const code = bytes.readUInt16LE(at);
  const k = bytes.readUInt32LE(at + 4);
  const next = index + 1;
  if ((code & CLASS_MASK) !== CLASS_JUMP) return { code, k, onTrue: next, onFalse: next };
  if (code === JUMP_ALWAYS) return { code, k, onTrue: next + k, onFalse: next + k };
  return { code, k, onTrue: next + bytes.readUInt8(at + 2), onFalse: next + bytes.readUInt8(at + 3) };
}

/**
 * Where the run of comparisons that begins at `from` ends: all of one accumulator, each going on with the next where it does not hold,
 * with different constants, and entered by nobody but through its first one.
 */
function endOfRun(program: readonly Instruction[], entered: ReadonlySet<number>, from: number): number {
  const constants = new Set<number>();
  let at = from;
  for (; at < program.length; at++) {
    const one = program[at];
    if (one?.code !== JUMP_EQUAL || one.onFalse !== at + 1 || constants.has(one.k)) break;
    if (at > from && entered.has(at)) break;
    constants.add(one.k);
  }
  return Math.max(at, from + 1);
}

/** A run by its constants, as what it is: where none holds, it goes on at its end, wherever a comparison stands in it. */
function linesOf(run: readonly Instruction[], end: number): string[] {
  if (run.length < 2) return run.map(({ code, k, onTrue, onFalse }) => `${code} ${k} ${onTrue} ${onFalse}`);
  return run.toSorted((a, b) => a.k - b.k).map(({ k, onTrue }) => `one of: ${k} ${onTrue}, or ${end}`);
}
