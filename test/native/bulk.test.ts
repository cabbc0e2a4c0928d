import { createCipheriv, randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { failure, helperPath, run, scratch, start, statusOf, tidyUp, until, verb } from './programs.ts';

afterAll(tidyUp);

const MIB = 1 << 20;
const PAGE = 4096;
const BASE = 0x7e00_0000_0000;
const key = randomBytes(32);
/** The key comes by standard input here: any descriptor does. */
const withKey = { input: key.toString('hex') };

/** A pages image: random blocks, with zero ones between them and at both ends of a range. */
function pagesImage(directory: string, name: string, mebibytes: number): string {
  const path = join(directory, name);
  const blocks = Array.from({ length: mebibytes }, (_, i) => (i % 3 === 1 ? Buffer.alloc(MIB) : randomBytes(MIB)));
  writeFileSync(path, Buffer.concat([randomBytes(3 * PAGE), ...blocks, randomBytes(PAGE)]));
  return path;
}

/** What bulk-write makes of two images of two processes. */
async function written() {
  const at = scratch();
  const images = [pagesImage(at, 'pages-1.img', 9), pagesImage(at, 'pages 2.img', 4)];
  const addresses = { one: BASE + 5 * PAGE, hole: BASE + 64 * MIB, two: BASE };
  const moves = [
    // Out of order, and not at a multiple of the block size.
    { process: 7, image: 0, offset: 3 * PAGE + 6 * MIB, address: addresses.hole, length: 3 * MIB },
    { process: 7, image: 0, offset: 3 * PAGE, address: addresses.one, length: 6 * MIB },
    { process: 4000000000, image: 1, offset: 3 * PAGE, address: addresses.two, length: 4 * MIB },
  ];
  const files = { plan: join(at, 'plan'), bulk: join(at, 'bulk.pages'), index: join(at, 'bulk.index') };
  const outs = [join(at, 'new 1'), join(at, 'new-2')];
  const lines = [
    ...images.map((path, i) => `src ${i} ${path}`),
    ...outs.map((path, i) => `out ${i} ${path}`),
    `keep 0 0 0 ${3 * PAGE}`,
    `keep 1 1 ${3 * PAGE + 4 * MIB} ${PAGE}`,
    ...moves.map((m) => `move ${m.process} ${m.image} ${m.offset} ${m.address} ${m.length}`),
    `keep 0 0 ${3 * PAGE + 9 * MIB} ${PAGE}`,
    `keep 1 0 0 ${PAGE}`,
  ];
  writeFileSync(files.plan, `${lines.join('\n')}\n`);
  const args = ['--plan', files.plan, '--bulk', files.bulk, '--index', files.index, '--key-fd', '0'];
  const result = await verb(['bulk-write', ...args, '--threads', '3'], withKey);
  return { at, images: images.map((path) => readFileSync(path)), outs, moves, ...files, result };
}

const fillArgs = (files: { bulk: string; index: string }) => [
  '--bulk',
  files.bulk,
  '--index',
  files.index,
  '--key-fd',
  '0',
];

interface Block {
  process: number;
  address: number;
  length: number;
  offset: number;
  tag: string;
}
const parseIndex = (path: string): Block[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [process = '', address = '', length = '', offset = '', tag = ''] = line.split(' ');
      return {
        process: Number(process),
        address: Number(address),
        length: Number(length),
        offset: Number(offset),
        tag,
      };
    });

/** A stopped process with memory there, of which `memory` gives the content once it is continued. */
async function holder(areas: readonly { address: number; length: number }[]) {
  const file = join(scratch(), 'memory');
  const argv = ['python3', 'test/native/memory-holder.py', file, ...areas.map((a) => `${a.address}:${a.length}`)];
  const subject = await start(argv, { ready: true });
  await until(() => statusOf(subject.pid, 'State').startsWith('T'));
  return {
    ...subject,
    memory: async () => {
      process.kill(subject.pid, 'SIGCONT');
      await until(() => existsSync(file));
      return readFileSync(file);
    },
  };
}

describe('bulk-write', () => {
  test('takes the ranges out, drops zeros, keeps the rest in plan order', async () => {
    const made = await written();
    const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = made.images;
    const index = parseIndex(made.index);
    const bytes = index.reduce((sum, { length }) => sum + length, 0);
    expect(made.result).toEqual({
      blocks: index.length,
      bytes,
      zeroBytes: 13 * MIB - bytes,
      keptBytes: 6 * PAGE,
    });
    // Process 7 is cut at addresses that are multiples of a block, so a zero block of the image is only dropped where the cuts agree.
    expect(Number(made.result['zeroBytes'])).toBeGreaterThan(0);
    expect(
      readFileSync(made.outs[0] ?? '').equals(Buffer.concat([first.subarray(0, 3 * PAGE), first.subarray(-PAGE)])),
    ).toBe(true);
    expect(
      readFileSync(made.outs[1] ?? '').equals(Buffer.concat([second.subarray(-PAGE), first.subarray(0, PAGE)])),
    ).toBe(true);
    const bulk = readFileSync(made.bulk);
    expect(bulk.length).toBe(bytes);
    const order = index.map(({ process, address }) => process * 2 ** 52 + address);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    for (const block of index) {
      const move = made.moves.find(
        (m) => m.process === block.process && m.address <= block.address && block.address < m.address + m.length,
      );
      if (move === undefined) throw new Error(`block ${block.address} is of no move`);
      const at = move.offset + block.address - move.address;
      const content = bulk.subarray(block.offset, block.offset + block.length);
      expect(content.equals(made.images[move.image]?.subarray(at, at + block.length) ?? Buffer.alloc(0))).toBe(true);
      expect(content.some((byte) => byte !== 0)).toBe(true);
      expect(block.address % MIB === 0 || block.address === move.address).toBe(true);
      // The tag is GMAC with the nonce that the contract says: computed here by another implementation's interface.
      const nonce = Buffer.alloc(12);
      nonce.writeBigUInt64BE(BigInt(block.offset), 4);
      const mac = createCipheriv('aes-256-gcm', key, nonce).setAAD(content);
      mac.final();
      expect(mac.getAuthTag().toString('hex')).toBe(block.tag);
    }
  });

  test.each([
    ['an unknown operation', 'shift 1 2 3'],
    ['an undeclared source', 'move 1 5 0 4096 4096'],
    ['an undeclared output', 'keep 3 0 0 4096'],
    ['a part that reaches out of the file', 'move 1 0 4096 4096 8192'],
    ['an offset beyond the file', 'keep 0 0 81920 4096'],
    ['an offset that overflows', 'keep 0 0 18446744073709547520 8192'],
    ['a length that is no page', 'move 1 0 0 4096 100'],
    ['an offset that is no page', 'move 1 0 100 4096 4096'],
    ['an address that is no page', 'move 1 0 0 100 4096'],
    ['no length', 'move 1 0 0 4096 0'],
    ['an address that overflows', 'move 1 0 0 18446744073709547520 8192'],
    ['a number that overflows', 'move 1 0 0 18446744073709551616 4096'],
    ['a negative number', 'keep 0 0 -4096 4096'],
    ['two spaces', 'keep 0 0  0 4096'],
    ['a field too many', 'keep 0 0 0 4096 1'],
    ['a field too few', 'keep 0 0 0'],
    ['a space at the end', 'keep 0 0 0 4096 '],
    ['a leading zero', 'keep 0 0 0 04096'],
    ['hexadecimal', 'keep 0 0 0 0x1000'],
    ['an empty line', ''],
    ['a source named twice', 'src 0 /dev/null'],
    ['a source number that is too large', 'src 4096 /dev/null'],
    ['a source that is no file', 'src 1 /dev/zero'],
    ['moves that overlap', 'move 1 0 0 4096 8192\nmove 1 0 0 8192 4096'],
  ])('refuses a plan with %s', async (_name, lines) => {
    const at = scratch();
    writeFileSync(join(at, 'pages'), randomBytes(2 * PAGE));
    writeFileSync(join(at, 'plan'), `src 0 ${at}/pages\nout 0 ${at}/out\n${lines}\n`);
    const args = ['--plan', `${at}/plan`, '--bulk', `${at}/bulk`, '--index', `${at}/index`, '--key-fd', '0'];
    expect(await failure(['bulk-write', ...args], withKey)).toMatchObject({ code: 'BAD_PLAN' });
    expect(existsSync(join(at, 'bulk'))).toBe(false);
  });

  test.each([
    ['cut off', key.toString('hex').slice(1)],
    ['too long', `${key.toString('hex')}00`],
    ['not hexadecimal', 'g'.repeat(64)],
    ['empty', ''],
  ])('refuses a key that is %s', async (_name, input) => {
    const args = ['--plan', '/dev/null', '--bulk', '/none', '--index', '/none', '--key-fd', '0'];
    expect(await failure(['bulk-write', ...args], { input })).toMatchObject({ code: 'BAD_KEY' });
  });

  test('never overwrites', async () => {
    const made = await written();
    const args = ['--plan', made.plan, '--bulk', made.bulk, '--index', made.index, '--key-fd', '0'];
    expect(await failure(['bulk-write', ...args], withKey)).toMatchObject({ step: 'create', errno: 'EEXIST' });
    expect(await verb(['bulk-fill', ...fillArgs(made), '--verify-only', '1'], withKey)).toMatchObject({
      bytes: made.result['bytes'],
    });
  });

  test('an empty plan makes an empty bulk file that can be verified', async () => {
    const at = scratch();
    writeFileSync(join(at, 'plan'), '');
    const args = ['--plan', `${at}/plan`, '--bulk', `${at}/bulk`, '--index', `${at}/index`, '--key-fd', '0'];
    const none = { blocks: 0, bytes: 0 };
    expect(await verb(['bulk-write', ...args], withKey)).toEqual({ ...none, zeroBytes: 0, keptBytes: 0 });
    const files = { bulk: `${at}/bulk`, index: `${at}/index` };
    expect(await verb(['bulk-fill', ...fillArgs(files), '--verify-only', '1'], withKey)).toEqual(none);
  });
});

describe('bulk-fill', () => {
  test('makes the memory of two processes what it was', async () => {
    const made = await written();
    const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = made.images;
    const [hole, one, two] = made.moves;
    if (hole === undefined || one === undefined || two === undefined) throw new Error('three moves');
    const seven = await holder([one, hole]);
    const other = await holder([two]);
    const processes = [`4000000000=${other.pid}:${other.start}`, `7=${seven.pid}:${seven.start}`];
    const result = await verb(['bulk-fill', ...fillArgs(made), '--threads', '4', ...processes], withKey);
    expect(result).toEqual({ blocks: made.result['blocks'], bytes: made.result['bytes'] });
    expect((await seven.memory()).equals(first.subarray(3 * PAGE, 3 * PAGE + 9 * MIB))).toBe(true);
    expect((await other.memory()).equals(second.subarray(3 * PAGE, 3 * PAGE + 4 * MIB))).toBe(true);
  });

  test('refuses a tag that does not match, wherever the difference is', async () => {
    const made = await written();
    const verify = ['bulk-fill', ...fillArgs(made), '--verify-only', '1'];
    const mismatch = { code: 'DIGEST_MISMATCH' };
    expect(await failure(verify, { input: 'ab'.repeat(32) })).toMatchObject(mismatch);
    const index = readFileSync(made.index, 'utf8');
    writeFileSync(
      made.index,
      index.replace(/.\n$/, (end) => (end === '0\n' ? '1\n' : '0\n')),
    );
    expect(await failure(verify, withKey)).toMatchObject(mismatch);
    writeFileSync(made.index, index);
    const bulk = readFileSync(made.bulk);
    bulk[5 * MIB + 77] = (bulk[5 * MIB + 77] ?? 0) ^ 1;
    writeFileSync(made.bulk, bulk);
    expect(await failure(verify, withKey)).toMatchObject(mismatch);
  });

  test('blocks that changed places do not match', async () => {
    const made = await written();
    const blocks = parseIndex(made.index).filter(({ length }) => length === MIB);
    const [a, b] = blocks;
    if (a === undefined || b === undefined) throw new Error('two blocks');
    const swapped = readFileSync(made.index, 'utf8')
      .replace(` ${a.offset} ${a.tag}`, ' first')
      .replace(` ${b.offset} ${b.tag}`, ` ${a.offset} ${b.tag}`)
      .replace(' first', ` ${b.offset} ${a.tag}`);
    writeFileSync(made.index, swapped);
    expect(await failure(['bulk-fill', ...fillArgs(made), '--verify-only', '1'], withKey)).toMatchObject({
      code: 'DIGEST_MISMATCH',
    });
  });

  test('writes nothing of a block that does not match', async () => {
    const made = await written();
    const two = made.moves[2];
    if (two === undefined) throw new Error('three moves');
    writeFileSync(made.bulk, Buffer.alloc(statSync(made.bulk).size, 'x'));
    const seven = await holder(made.moves.slice(0, 2));
    const other = await holder([two]);
    const processes = [`4000000000=${other.pid}:${other.start}`, `7=${seven.pid}:${seven.start}`];
    expect(await failure(['bulk-fill', ...fillArgs(made), ...processes], withKey)).toMatchObject({
      code: 'DIGEST_MISMATCH',
    });
    expect((await seven.memory()).every((byte) => byte === 0)).toBe(true);
    expect((await other.memory()).every((byte) => byte === 0)).toBe(true);
  });

  test('refuses a bulk file that is cut off', async () => {
    const made = await written();
    truncateSync(made.bulk, statSync(made.bulk).size - 1);
    expect(await failure(['bulk-fill', ...fillArgs(made), '--verify-only', '1'], withKey)).toMatchObject({
      code: 'BAD_INDEX',
    });
  });

  test('refuses another process, a missing mapping, memory that is not there', async () => {
    const made = await written();
    const [hole, one, two] = made.moves;
    if (hole === undefined || one === undefined || two === undefined) throw new Error('three moves');
    const seven = await holder([one, { address: hole.address, length: MIB }]);
    const other = await holder([two]);
    const good = `4000000000=${other.pid}:${other.start}`;
    const fill = (...processes: string[]) => failure(['bulk-fill', ...fillArgs(made), ...processes], withKey);
    expect(await fill(good, `7=${seven.pid}:${seven.start + 1}`)).toMatchObject({ code: 'TARGET_GONE' });
    expect(await fill(good, '7=4194304:1')).toMatchObject({ code: 'TARGET_GONE' });
    expect(await fill(good)).toMatchObject({ code: 'BAD_INDEX' });
    expect(await fill(good, `7=${seven.pid}:${seven.start}`)).toMatchObject({ code: 'FILL_SHORT' });
    seven.child.kill('SIGKILL');
    await seven.ended;
    expect(await fill(good, `7=${seven.pid}:${seven.start}`)).toMatchObject({ code: 'TARGET_GONE' });
    for (const processes of [['x'], ['7=1'], ['7=0:1'], [good, good]])
      expect((await run([helperPath, 'bulk-fill', ...fillArgs(made), ...processes], withKey.input)).code).toBe(2);
  });

  const tag = 'a'.repeat(32);
  test.each([
    ['another order', `1 8192 4096 0 ${tag}\n1 4096 4096 4096 ${tag}\n`],
    ['processes in another order', `2 4096 4096 0 ${tag}\n1 4096 4096 4096 ${tag}\n`],
    ['blocks that overlap in memory', `1 4096 8192 0 ${tag}\n1 8192 4096 8192 ${tag}\n`],
    ['blocks that overlap in the file', `1 4096 8192 0 ${tag}\n1 16384 4096 4096 ${tag}\n`],
    ['a block beyond the file', `1 4096 4096 12288 ${tag}\n`],
    ['a block that reaches out of the file', `1 4096 8192 8192 ${tag}\n`],
    ['an offset that overflows', `1 4096 4096 18446744073709547520 ${tag}\n`],
    ['an address that overflows', `1 18446744073709547520 8192 0 ${tag}\n`],
    ['a number that overflows', `1 99999999999999999999 4096 0 ${tag}\n`],
    ['a block that is too large', `1 4096 1052672 0 ${tag}\n`],
    ['an empty block', `1 4096 0 0 ${tag}\n`],
    ['no whole pages', `1 4096 100 0 ${tag}\n`],
    ['an address that is no page', `1 4097 4096 0 ${tag}\n`],
    ['a short tag', `1 4096 4096 0 ${tag.slice(1)}\n`],
    ['a long tag', `1 4096 4096 0 ${tag}a\n`],
    ['an upper-case tag', `1 4096 4096 0 ${tag.toUpperCase()}\n`],
    ['a sign', `+1 4096 4096 0 ${tag}\n`],
    ['a last line without its end', `1 4096 4096 0 ${tag}`],
    ['a zero byte', `1 4096 4096 0 ${tag}\0\n`],
    ['an empty line', `\n1 4096 4096 0 ${tag}\n`],
    ['a carriage return', `1 4096 4096 0 ${tag}\r\n`],
    ['words', 'this is not an index, and was never meant to be one\n'],
  ])('refuses an index with %s', async (_name, text) => {
    const at = scratch();
    const files = { bulk: join(at, 'bulk'), index: join(at, 'index') };
    writeFileSync(files.bulk, Buffer.alloc(3 * PAGE));
    writeFileSync(files.index, text);
    expect(await failure(['bulk-fill', ...fillArgs(files), '--verify-only', '1'], withKey)).toMatchObject({
      code: 'BAD_INDEX',
    });
  });

  test('a damaged index is refused or does not match, and never a crash', async () => {
    const made = await written();
    const good = readFileSync(made.index);
    const damagedIndex = join(scratch(), 'index');
    const alphabet = Buffer.from('0123456789abcdef \n\0-x\xff', 'latin1');
    for (let round = 0; round < 120; round++) {
      const damaged = Buffer.from(good);
      const at = randomBytes(8);
      for (let i = 0; i <= (at[7] ?? 0) % 3; i++)
        damaged[at.readUInt16LE(i) % damaged.length] = alphabet[(at[6 - i] ?? 0) % alphabet.length] ?? 0;
      const cut = round % 4 === 0 ? damaged.subarray(0, at.readUInt16LE(0) % damaged.length) : damaged;
      writeFileSync(damagedIndex, cut);
      const files = { bulk: made.bulk, index: damagedIndex };
      const result = await run([helperPath, 'bulk-fill', ...fillArgs(files), '--verify-only', '1'], withKey.input);
      if (result.code === 1)
        expect(['BAD_INDEX', 'DIGEST_MISMATCH']).toContain((JSON.parse(result.stderr) as { code: string }).code);
      else expect(result.code, result.stderr).toBe(0);
    }
  });

  test('says how far it is, several times a second', async () => {
    const at = scratch();
    const image = join(at, 'pages');
    writeFileSync(image, randomBytes(64 * MIB));
    writeFileSync(join(at, 'plan'), `src 0 ${image}\nmove 1 0 0 ${BASE} ${64 * MIB}\n`);
    const files = { bulk: join(at, 'bulk'), index: join(at, 'index') };
    await verb(['bulk-write', '--plan', join(at, 'plan'), ...fillArgs(files)], withKey);
    // A process that is traced and slow is not at hand, so the reader is slowed down: one thread, on the idle class, many times.
    const slow = ['chrt', '--idle', '0'];
    let lines: string[] = [];
    for (let round = 0; round < 20 && lines.length < 2; round++) {
      const busy = Array.from({ length: 4 }, () => start(['sh', '-c', 'while :; do :; done'], { comm: 'sh' }));
      const spinning = await Promise.all(busy);
      const argv = [...slow, helperPath, 'bulk-fill', ...fillArgs(files), '--threads', '1', '--verify-only', '1'];
      lines = (await run(argv, withKey.input)).stdout.trimEnd().split('\n');
      for (const { child } of spinning) child.kill('SIGKILL');
    }
    const progress = lines.slice(0, -1).map((line) => JSON.parse(line) as { done: number });
    expect(progress.length).toBeGreaterThan(0);
    const done = progress.map((line) => line.done);
    expect(done).toEqual([...done].sort((a, b) => a - b));
    expect(JSON.parse(lines.at(-1) ?? '')).toEqual({ blocks: 64, bytes: 64 * MIB });
  });
});

describe('prefetch', () => {
  test('reads every byte of every file', async () => {
    const at = scratch();
    const sizes = [0, 1, 4 * MIB, 9 * MIB + 5];
    const files = sizes.map((size, i) => {
      writeFileSync(join(at, `${i}`), Buffer.alloc(size, 'x'));
      return join(at, `${i}`);
    });
    expect(await verb(['prefetch', '--threads', '3', ...files])).toEqual({ bytes: 13 * MIB + 6 });
  });

  test('refuses what is no regular file, and does not hang on a fifo', async () => {
    const at = scratch();
    await run(['mkfifo', join(at, 'fifo')]);
    copyFileSync('/etc/hostname', join(at, 'file'));
    for (const path of ['fifo', 'missing', '.'])
      expect(await failure(['prefetch', '--threads', '2', join(at, 'file'), join(at, path)])).toMatchObject({
        step: 'open',
      });
    for (const threads of ['0', '257', 'x'])
      expect((await run([helperPath, 'prefetch', '--threads', threads, join(at, 'file')])).code).toBe(2);
    expect((await run([helperPath, 'prefetch', '--threads', '2'])).code).toBe(2);
  });
});
