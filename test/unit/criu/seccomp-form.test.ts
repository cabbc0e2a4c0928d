import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { filterForm } from '../../../agent/criu/images/seccomp-form.ts';

/** code, jump if true, jump if false, constant */
type Instruction = readonly [number, number, number, number];

const LOAD = 0x20;
const EQUAL = 0x15;
const GREATER = 0x25;
const ANY_BIT = 0x45;
const JUMP = 0x05;
const RETURN = 0x06;

function hex(program: readonly Instruction[]): string {
  return program
    .map(([code, onTrue, onFalse, k]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16LE(code, 0);
      bytes.writeUInt8(onTrue, 2);
      bytes.writeUInt8(onFalse, 3);
      bytes.writeUInt32LE(k, 4);
      return bytes.toString('hex');
    })
    .join('');
}

/** What a program returns for an input, or undefined where it runs out of its end. */
function result(program: readonly Instruction[], input: readonly number[]): number | undefined {
  let accumulator = 0;
  for (let at = 0; at < program.length; ) {
    const [code, onTrue, onFalse, k] = program[at] ?? [0, 0, 0, 0];
    at += 1;
    if (code === LOAD) accumulator = input[k % input.length] ?? 0;
    else if (code === RETURN) return k;
    else if (code === JUMP) at += k;
    else if (code === EQUAL) at += accumulator === k ? onTrue : onFalse;
    else at += accumulator > k ? onTrue : onFalse;
  }
  return undefined;
}

/** The begin of two filters that runc made from one profile: it jumps by architecture. */
const ARCHITECTURES: readonly Instruction[][] = [
  [
    [LOAD, 0, 0, 4],
    [EQUAL, 2, 0, 0x40000003],
    [EQUAL, 2, 0, 0xc000003e],
    [RETURN, 0, 0, 0],
    [RETURN, 0, 0, 1],
    [RETURN, 0, 0, 2],
  ],
  [
    [LOAD, 0, 0, 4],
    [EQUAL, 3, 0, 0xc000003e],
    [EQUAL, 1, 0, 0x40000003],
    [RETURN, 0, 0, 0],
    [RETURN, 0, 0, 1],
    [RETURN, 0, 0, 2],
  ],
];

const CHECK_64: readonly Instruction[] = [
  [LOAD, 0, 0, 0],
  [ANY_BIT, 1, 0, 0x40000000],
];
/** The begins of four filters that runc 1.1.5 made from containerd's default profile: two blocks and two branches, in any order. */
const MADE_BY_RUNC = [
  ...branched(
    [2, 4],
    [...oldBlock(7), [JUMP, 0, 0, 7], ...CHECK_64, [GREATER, 3, 1, 0x1c1], [GREATER, 2, 0, 0x40000223]],
  ),
  ...branched(
    [7, 1],
    [...CHECK_64, [GREATER, 6, 1, 0x1c1], [GREATER, 5, 0, 0x40000223], [JUMP, 0, 0, 5], ...oldBlock(2)],
  ),
];

function oldBlock(toEnd: number): Instruction[] {
  return [
    [LOAD, 0, 0, 0],
    [GREATER, toEnd, 0, 0x1c1],
  ];
}

/** Both orders of the branches to the blocks for 32 and for 64 bits. */
function branched([to32, to64]: readonly [number, number], blocks: readonly Instruction[]): Instruction[][] {
  const orders: Instruction[][] = [
    [
      [EQUAL, to32, 0, 0x40000003],
      [EQUAL, to64, 0, 0xc000003e],
    ],
    [
      [EQUAL, to64 + 1, 0, 0xc000003e],
      [EQUAL, to32 - 1, 0, 0x40000003],
    ],
  ];
  return orders.map((branches) => [
    [LOAD, 0, 0, 4],
    ...branches,
    [JUMP, 0, 0, 10],
    ...blocks,
    [JUMP, 0, 0, 2],
    [JUMP, 0, 0, 1],
    [RETURN, 0, 0, 0x50026],
    [RETURN, 0, 0, 0x7fff0000],
  ]);
}

describe('the form of a filter', () => {
  it('is one for all that runc makes of one profile', () => {
    expect(new Set(MADE_BY_RUNC.map(hex)).size).toBe(4);
    expect(new Set(MADE_BY_RUNC.map((program) => filterForm(hex(program)))).size).toBe(1);
  });

  it('is the same where comparisons that exclude each other come in another order', () => {
    const [one = [], other = []] = ARCHITECTURES;
    expect(hex(one)).not.toBe(hex(other));
    expect(filterForm(hex(one))).toBe(filterForm(hex(other)));
  });

  it.each<[string, Instruction[]]>([
    ['a constant', [...(ARCHITECTURES[0] ?? [])].with(2, [EQUAL, 2, 0, 0xc000003f])],
    ['the place that is jumped to', [...(ARCHITECTURES[0] ?? [])].with(2, [EQUAL, 1, 0, 0xc000003e])],
    ['what is returned', [...(ARCHITECTURES[0] ?? [])].with(5, [RETURN, 0, 0, 0x7fff0000])],
    ['what is compared', [...(ARCHITECTURES[0] ?? [])].with(0, [LOAD, 0, 0, 0])],
    ['one that is missing', (ARCHITECTURES[0] ?? []).slice(0, 5)],
  ])('is another one with another %s', (_, program) => {
    expect(filterForm(hex(program))).not.toBe(filterForm(hex(ARCHITECTURES[0] ?? [])));
  });

  it.each<[string, Instruction[]]>([
    [
      'of equal constants the first one counts',
      [
        [EQUAL, 1, 0, 1],
        [EQUAL, 1, 0, 1],
        [RETURN, 0, 0, 0],
        [RETURN, 0, 0, 1],
      ],
    ],
    [
      'somebody jumps between two',
      [
        [GREATER, 1, 0, 5],
        [EQUAL, 2, 0, 2],
        [EQUAL, 2, 0, 1],
        [RETURN, 0, 0, 0],
        [RETURN, 0, 0, 1],
        [RETURN, 0, 0, 2],
      ],
    ],
  ])('keeps the order where it matters: %s', (_, program) => {
    const at = program.findIndex(([code]) => code === EQUAL);
    const [first, second] = program.slice(at, at + 2) as [Instruction, Instruction];
    const swapped = program
      .with(at, [second[0], second[1] + 1, 0, second[3]])
      .with(at + 1, [first[0], first[1] - 1, 0, first[3]]);
    expect(filterForm(hex(swapped))).not.toBe(filterForm(hex(program)));
  });

  it('tells a comparison that leaves the run from one that goes on in it', () => {
    const rest: Instruction[] = [
      [RETURN, 0, 0, 0],
      [RETURN, 0, 0, 1],
      [RETURN, 0, 0, 2],
    ];
    const goesOn: Instruction[] = [[EQUAL, 2, 0, 1], [EQUAL, 2, 0, 2], ...rest];
    const leaves: Instruction[] = [[EQUAL, 2, 1, 1], [EQUAL, 2, 0, 2], ...rest];
    expect(filterForm(hex(leaves))).not.toBe(filterForm(hex(goesOn)));
  });

  it('is the text itself where that is no program', () => {
    expect(filterForm('')).toBe('');
    expect(filterForm('060000')).toBe('060000');
  });

  it('never makes programs equal that do different things', () => {
    const small = fc.nat(3);
    const instruction: fc.Arbitrary<Instruction> = fc.oneof(
      fc.tuple(fc.constant(EQUAL), small, fc.constant(0), small),
      fc.tuple(fc.constant(EQUAL), small, small, small),
      fc.tuple(fc.constant(GREATER), small, small, small),
      fc.tuple(fc.constant(JUMP), fc.constant(0), fc.constant(0), fc.nat(2)),
      fc.tuple(fc.constant(LOAD), fc.constant(0), fc.constant(0), fc.nat(1)),
      fc.tuple(fc.constant(RETURN), fc.constant(0), fc.constant(0), small),
    );
    const inputs = [0, 1, 2, 3, 4].flatMap((a) => [0, 1, 2, 3, 4].map((b) => [a, b]));
    /** Two neighbours change places, with or without their jumps adjusted. */
    const swapped = (program: readonly Instruction[], a: number, by: number) => {
      const at = a % (program.length - 1);
      const [first, second] = program.slice(at, at + 2) as [Instruction, Instruction];
      const shifted = ([code, onTrue, onFalse, k]: Instruction, places: number): Instruction => [
        code,
        Math.max(0, onTrue + places),
        onFalse,
        k,
      ];
      return program.with(at, shifted(second, by)).with(at + 1, shifted(first, -by));
    };
    /** One field of one instruction is another one. */
    const altered = (program: readonly Instruction[], a: number, b: number) => {
      const at = a % program.length;
      const changed = [...(program[at] ?? [0, 0, 0, 0])] as [number, number, number, number];
      const field = 1 + (b % 3);
      changed[field] = (changed[field] ?? 0) + 1;
      return program.with(at, changed);
    };
    let same = 0;
    fc.assert(
      fc.property(fc.array(instruction, { minLength: 2, maxLength: 7 }), fc.nat(30), fc.nat(5), (program, a, b) => {
        const others = [swapped(program, a, 0), swapped(program, a, 1), altered(program, a, b)];
        for (const other of others) {
          if (filterForm(hex(program)) !== filterForm(hex(other))) continue;
          if (hex(program) !== hex(other)) same += 1;
          for (const input of inputs) expect(result(other, input)).toBe(result(program, input));
        }
      }),
      { numRuns: 5000 },
    );
    expect(same).toBeGreaterThan(10);
  });
});
