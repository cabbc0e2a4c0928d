import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { adoptBulk } from '../../../agent/criu/images/adoption.ts';
import { canBeFilled } from '../../../agent/criu/images/areas.ts';
import { type BulkPlan, planBulk } from '../../../agent/criu/images/bulk.ts';
import { worthSharing } from '../../../agent/criu/images/common.ts';
import { checkPages, presentSegments, readPagemap } from '../../../agent/criu/images/pagemap.ts';
import { intersect, lengthOf, merge, subtract } from '../../../agent/criu/images/ranges.ts';
import { type AreaSketch, makeDir, PAGE, putMemory, putPagemap, putProcesses } from './synthetic.ts';

const corrupt = expect.objectContaining({ code: 'ARTIFACT_CORRUPT' });
const BASE = 0x7f0000000000;

/** What the native helper does with a plan: writes the kept parts; returns the moved pages as "process address" → content. */
function followPlan(plan: BulkPlan): Map<string, string> {
  const files = new Map<string, string>();
  const kept = new Map<string, Buffer[]>();
  const moved = new Map<string, string>();
  for (const line of plan.text.trim().split('\n')) {
    const [verb = '', a = '', b = '', c = '', d = '', e = ''] = line.split(' ');
    if (verb === 'src') files.set(`s${a}`, b);
    if (verb === 'out') files.set(`o${a}`, b);
    if (verb === 'out') kept.set(a, []);
    const source = () => readFileSync(files.get(`s${b}`) ?? '');
    if (verb === 'keep') kept.get(a)?.push(source().subarray(Number(c), Number(c) + Number(d)));
    for (let at = 0; verb === 'move' && at < Number(e); at += PAGE) {
      const page = source().subarray(Number(c) + at, Number(c) + at + PAGE);
      moved.set(`${a} ${Number(d) + at}`, page.toString('hex'));
    }
  }
  for (const [out, parts] of kept) writeFileSync(files.get(`o${out}`) ?? '', Buffer.concat(parts));
  return moved;
}

/** All pages of a process in CRIU's images: "process address" → content. */
async function pagesOf(dir: string, pid: number): Promise<Map<string, string>> {
  const pagemap = await readPagemap(dir, `pagemap-${pid}.img`);
  const content = readFileSync(path.join(dir, `pages-${pagemap.pagesId}.img`));
  const pages = new Map<string, string>();
  for (const segment of presentSegments(pagemap)) {
    for (let at = segment.start; at < segment.end; at += PAGE) {
      const offset = segment.offset + at - segment.start;
      pages.set(`${pid} ${at}`, content.subarray(offset, offset + PAGE).toString('hex'));
    }
  }
  return pages;
}

const sorted = (pages: Map<string, string>) => [...pages].toSorted(([a], [b]) => (a < b ? -1 : 1));

/** Runs of pages: [gap before, length, seed of the content], in pages. */
const layout = fc.array(fc.tuple(fc.nat(5), fc.integer({ min: 1, max: 12 }), fc.nat(2)), {
  minLength: 1,
  maxLength: 8,
});
type Layout = [number, number, number][];

function putProcessMemory(dir: string, pid: number, runs: Layout, areas: AreaSketch[]): void {
  let at = BASE;
  const content: Buffer[] = [];
  const entries: { start: number; pages: number }[] = [];
  for (const [gap, length, seed] of runs) {
    at += gap * PAGE;
    entries.push({ start: at, pages: length });
    for (let page = 0; page < length; page++, at += PAGE) {
      const bytes = Buffer.alloc(PAGE);
      if (seed > 0) bytes.writeDoubleLE(at + seed);
      content.push(bytes);
    }
  }
  putPagemap(dir, pid, pid, entries);
  putMemory(dir, pid, areas);
  writeFileSync(path.join(dir, `pages-${pid}.img`), Buffer.concat(content));
}

const WHOLE: AreaSketch[] = [{ start: BASE, end: BASE + (1 << 24) }];

describe('planBulk', () => {
  it('loses no page and doubles none, whatever the layout', async () => {
    const cut = fc.array(fc.tuple(fc.nat(60), fc.boolean()), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(layout, layout, cut, fc.integer({ min: 1, max: 6 }), async (parent, child, cuts, least) => {
        const dir = makeDir();
        let at = BASE;
        const areas = cuts.map(([pages, writable]) => {
          const area = { start: at, end: at + (pages + 1) * PAGE, protection: writable ? 3 : 1 };
          at = area.end;
          return area;
        });
        putProcesses(dir, [
          { pid: 1, ppid: 0 },
          { pid: 7, ppid: 1 },
        ]);
        putProcessMemory(dir, 1, parent, areas);
        putProcessMemory(dir, 7, child, areas);
        const before = new Map([...(await pagesOf(dir, 1)), ...(await pagesOf(dir, 7))]);
        const plan = await planBulk(dir, { minRangeBytes: least * PAGE });
        const moved = plan.text === '' ? new Map<string, string>() : followPlan(plan);
        await adoptBulk(dir, plan);
        await checkPages(dir);
        const kept = new Map([...(await pagesOf(dir, 1)), ...(await pagesOf(dir, 7))]);
        expect(moved.size * PAGE).toBe(plan.movedBytes);
        expect([...moved.keys()].filter((key) => kept.has(key))).toEqual([]);
        expect(sorted(new Map([...kept, ...moved]))).toEqual(sorted(before));
        for (const key of moved.keys()) {
          const address = Number(key.split(' ')[1]);
          expect(areas.some((area) => area.protection === 3 && address >= area.start && address < area.end)).toBe(true);
        }
      }),
      { numRuns: 25 },
    );
  });

  it('leaves in both what parent and child share, and moves what differs', async () => {
    const dir = makeDir();
    const block = 256;
    putProcesses(dir, [
      { pid: 1, ppid: 0 },
      { pid: 7, ppid: 1 },
    ]);
    putProcessMemory(
      dir,
      1,
      [
        [0, block, 1],
        [0, block, 1],
        [0, block, 0],
      ],
      WHOLE,
    );
    putProcessMemory(
      dir,
      7,
      [
        [0, block, 1],
        [0, block, 2],
        [0, block, 0],
      ],
      WHOLE,
    );
    const plan = await planBulk(dir, { minRangeBytes: block * PAGE });
    expect(plan.sharedBytes).toBe(2 * block * PAGE);
    expect(plan.movedBytes).toBe(4 * block * PAGE);
    const moves = plan.text.split('\n').filter((line) => line.startsWith('move'));
    expect(moves).toEqual(
      [1, 7].map((pid, index) => `move ${pid} ${index} ${block * PAGE} ${BASE + block * PAGE} ${2 * block * PAGE}`),
    );
  });

  it('does not compare processes that are not parent and child, or whose areas differ', async () => {
    for (const [ppid, areas] of [
      [0, WHOLE],
      [1, [{ start: BASE, end: BASE + (1 << 23) }]],
    ] as [number, AreaSketch[]][]) {
      const dir = makeDir();
      putProcesses(dir, [
        { pid: 1, ppid: 0 },
        { pid: 7, ppid },
      ]);
      putProcessMemory(dir, 1, [[0, 256, 1]], WHOLE);
      putProcessMemory(dir, 7, [[0, 256, 1]], areas);
      expect((await planBulk(dir, { minRangeBytes: PAGE })).sharedBytes).toBe(0);
    }
  });

  it('merges the pieces that CRIU writes and respects the least length', async () => {
    const dir = makeDir();
    putProcesses(dir, [{ pid: 1, ppid: 0 }]);
    putProcessMemory(
      dir,
      1,
      [
        [0, 4, 1],
        [0, 4, 1],
        [1, 7, 1],
      ],
      WHOLE,
    );
    const plan = await planBulk(dir, { minRangeBytes: 8 * PAGE });
    expect(plan.text.split('\n').filter((line) => line.startsWith('move'))).toEqual([`move 1 0 0 ${BASE} ${8 * PAGE}`]);
    expect((await planBulk(dir, { minRangeBytes: 9 * PAGE })).text).toBe('');
  });

  it('leaves a half adopted directory in a state that is refused', async () => {
    const dir = makeDir();
    putProcesses(dir, [{ pid: 1, ppid: 0 }]);
    putProcessMemory(
      dir,
      1,
      [
        [0, 4, 1],
        [2, 40, 1],
      ],
      WHOLE,
    );
    const plan = await planBulk(dir, { minRangeBytes: 8 * PAGE });
    followPlan(plan);
    const old = readFileSync(path.join(dir, 'pagemap-1.img'));
    await adoptBulk(dir, plan);
    writeFileSync(path.join(dir, 'pagemap-1.img'), old);
    await expect(checkPages(dir)).rejects.toEqual(corrupt);
    await expect(planBulk(dir, { minRangeBytes: 8 * PAGE })).rejects.toEqual(corrupt);
  });

  it('refuses kept pages of another size than planned', async () => {
    const dir = makeDir();
    putProcesses(dir, [{ pid: 1, ppid: 0 }]);
    putProcessMemory(
      dir,
      1,
      [
        [0, 4, 1],
        [2, 40, 1],
      ],
      WHOLE,
    );
    const plan = await planBulk(dir, { minRangeBytes: 8 * PAGE });
    followPlan(plan);
    truncateSync(path.join(dir, 'pages-1.img.kept'), PAGE);
    await expect(adoptBulk(dir, plan)).rejects.toThrow(/planned were/);
    expect(statSync(path.join(dir, 'pages-1.img')).size).toBe(44 * PAGE);
  });
});

/** Memory of which every other page was written to, as a worker can make it, in a heap that is a quarter of the agent's. */
it('are read and planned with little memory, however many pieces the memory has', () => {
  const dir = makeDir();
  putProcesses(dir, [{ pid: 1, ppid: 0 }]);
  putMemory(dir, 1, WHOLE);
  const pieces = 400_000;
  putPagemap(
    dir,
    1,
    1,
    Array.from({ length: pieces }, (_, index) => ({ start: BASE + 2 * index * PAGE, pages: 1 })),
  );
  const pages = path.join(dir, 'pages-1.img');
  writeFileSync(pages, '');
  truncateSync(pages, pieces * PAGE);
  const script = `
    import { planBulk } from './agent/criu/images/bulk.ts';
    import { checkPages } from './agent/criu/images/pagemap.ts';
    await checkPages(process.argv[1]);
    const { movedBytes } = await planBulk(process.argv[1], { minRangeBytes: 65536 });
    console.log(movedBytes);`;
  const args = ['--max-old-space-size=256', '--import', 'tsx', '--input-type=module', '-e', script, dir];
  expect(execFileSync(process.execPath, args, { encoding: 'utf8', stdio: 'pipe' })).toBe('0\n');
}, 60_000);

describe('hostile pagemaps', () => {
  const plan = async (entries: { start: number; pages: number; flags?: number }[], bytes: number) => {
    const dir = makeDir();
    putProcesses(dir, [{ pid: 1, ppid: 0 }]);
    putMemory(dir, 1, WHOLE);
    putPagemap(dir, 1, 1, entries);
    writeFileSync(path.join(dir, 'pages-1.img'), Buffer.alloc(bytes));
    return planBulk(dir, { minRangeBytes: PAGE });
  };

  it.each([
    [
      'overlapping entries',
      [
        { start: BASE, pages: 4 },
        { start: BASE + PAGE, pages: 4 },
      ],
      8,
    ],
    [
      'entries out of order',
      [
        { start: BASE + 9 * PAGE, pages: 1 },
        { start: BASE, pages: 1 },
      ],
      2,
    ],
    ['no pages', [{ start: BASE, pages: 0 }], 0],
    ['pages without end', [{ start: BASE, pages: Number.MAX_SAFE_INTEGER }], 1],
    ['an address inside a page', [{ start: BASE + 1, pages: 1 }], 1],
    ['an address of the kernel', [{ start: 2 ** 57, pages: 1 }], 1],
    ['pages of an earlier dump', [{ start: BASE, pages: 1, flags: 1 }], 0],
    ['a pages image that is too short', [{ start: BASE, pages: 2 }], 1],
    ['a pages image that is too long', [{ start: BASE, pages: 2 }], 3],
  ])('with %s are refused', async (_, entries, pages) => {
    await expect(plan(entries, pages * PAGE)).rejects.toEqual(corrupt);
  });

  it('that share a pages image are refused', async () => {
    const dir = makeDir();
    for (const pid of [1, 7]) putPagemap(dir, pid, 1, [{ start: BASE, pages: 1 }]);
    writeFileSync(path.join(dir, 'pages-1.img'), Buffer.alloc(PAGE));
    await expect(checkPages(dir)).rejects.toEqual(corrupt);
  });

  it('of many entries are planned quickly', async () => {
    const entries = Array.from({ length: 50_000 }, (_, index) => ({ start: BASE + index * 2 * PAGE, pages: 1 }));
    const dir = makeDir();
    putProcesses(dir, [{ pid: 1, ppid: 0 }]);
    putMemory(dir, 1, [{ start: BASE, end: BASE + 2 ** 32 }]);
    putPagemap(dir, 1, 1, entries);
    writeFileSync(path.join(dir, 'pages-1.img'), '');
    truncateSync(path.join(dir, 'pages-1.img'), entries.length * PAGE);
    const started = performance.now();
    expect((await planBulk(dir, { minRangeBytes: PAGE })).movedBytes).toBe(entries.length * PAGE);
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

describe('canBeFilled', () => {
  const area = (changes: Partial<AreaSketch>) => ({
    start: 0,
    end: PAGE,
    protection: 3,
    flags: 0x22,
    status: 0x201,
    ...changes,
  });

  it('takes plain private anonymous memory and the heap', () => {
    expect(canBeFilled(area({}))).toBe(true);
    expect(canBeFilled(area({ status: 0x221 }))).toBe(true);
    expect(canBeFilled(area({ flags: 0x20022 }))).toBe(true);
  });

  it.each([
    ['read-only', { protection: 1 }],
    ['a stack', { flags: 0x122 }],
    ['huge pages', { flags: 0x40022 }],
    ['droppable', { flags: 0x28 }],
    ['shared', { flags: 0x21 }],
    ['a file', { flags: 2, status: 0x41 }],
    ['the vDSO', { status: 0x209 }],
    ['an AIO ring', { status: 0x2201 }],
    ['a shadow stack', { status: 0x8201 }],
    ['a guard', { status: 0x10000 }],
    ['a plugin', { status: 0x8000201 }],
  ])('leaves %s to CRIU', (_, changes) => {
    expect(canBeFilled(area(changes))).toBe(false);
  });
});

describe('worthSharing', () => {
  const pages = (count: number, seed: number) =>
    Buffer.concat(Array.from({ length: count }, (_, i) => Buffer.alloc(PAGE, (i % 200) + seed)));

  it('counts equal pages that are not zero', () => {
    const left = pages(256, 1);
    const right = pages(256, 40);
    expect(worthSharing(left, left)).toBe(true);
    expect(worthSharing(left, right)).toBe(false);
    left.copy(right, 0, 0, 15 * PAGE);
    expect(worthSharing(left, right)).toBe(false);
    left.copy(right, 0, 0, 16 * PAGE);
    expect(worthSharing(left, right)).toBe(true);
    expect(worthSharing(Buffer.alloc(1 << 20), Buffer.alloc(1 << 20))).toBe(false);
  });
});

describe('ranges', () => {
  const ranges = fc
    .array(fc.tuple(fc.nat(60), fc.nat(9)).map(([start, length]) => ({ start, end: start + length })))
    .map(merge);
  const members = (list: readonly { start: number; end: number }[]) =>
    new Set(list.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, index) => start + index)));

  it('behave as sets of addresses', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const [left, right] = [members(a), members(b)];
        expect(members(intersect(a, b))).toEqual(new Set([...left].filter((one) => right.has(one))));
        expect(members(subtract(a, b))).toEqual(new Set([...left].filter((one) => !right.has(one))));
        expect(lengthOf(a)).toBe(left.size);
      }),
      { numRuns: 500 },
    );
  });
});
