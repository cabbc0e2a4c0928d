import { readFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseAddress, printAddress } from '../../../agent/criu/images/addresses.ts';
import { readImage } from '../../../agent/criu/images/file.ts';
import { rewriteSockets } from '../../../agent/criu/images/socket-rewrite.ts';
import { readInetSockets } from '../../../agent/criu/images/sockets.ts';
import { makeDir, message, put, REGULAR_FILE, type SocketSketch, socketEntry } from './synthetic.ts';

const ANY = [0, 0, 0, 0];
const LOOP = [127, 0, 0, 1];
const OWN = [10, 0, 0, 5];
const TARGET = [10, 0, 7, 9];
const FAR = [93, 184, 216, 34];
const MAPPED = (four: number[]) => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...four];
const OWN6 = [0xfd, 0, ...Array<number>(13).fill(0), 5];

const ADDRESSES = { sourceIps: ['10.0.0.5', 'fd00::5'], targetIps: ['10.0.7.9', 'fd00:0::9'] };

function dirWith(sockets: readonly SocketSketch[]): string {
  const dir = makeDir();
  put(dir, 'files.img', 'files', [REGULAR_FILE, ...sockets.map(socketEntry), REGULAR_FILE]);
  return dir;
}

async function rewritten(sockets: readonly SocketSketch[], addresses = ADDRESSES) {
  const dir = dirWith(sockets);
  const changes = await rewriteSockets(dir, addresses);
  const after = (await readInetSockets(dir)).map(({ state, source, peer }) => [
    state,
    source.address,
    source.port,
    peer.address,
    peer.port,
  ]);
  return { dir, changes, after };
}

describe('rewriteSockets', () => {
  it('moves what is bound to the own address, listening, connected by UDP or merely bound', async () => {
    const { after, changes } = await rewritten([
      { id: 1, state: 10, source: [OWN, 80], peer: [ANY, 0] },
      { id: 2, state: 7, proto: 17, type: 2, source: [OWN, 53], peer: [FAR, 53] },
      { id: 3, state: 10, source: [ANY, 81], peer: [ANY, 0] },
      { id: 4, state: 10, source: [LOOP, 82], peer: [ANY, 0] },
      { id: 5, state: 7, source: [OWN, 83], peer: [ANY, 0] },
    ]);
    expect(after).toEqual([
      [10, '10.0.7.9', 80, '0.0.0.0', 0],
      [7, '10.0.7.9', 53, '93.184.216.34', 53],
      [10, '0.0.0.0', 81, '0.0.0.0', 0],
      [10, '127.0.0.1', 82, '0.0.0.0', 0],
      [7, '10.0.7.9', 83, '0.0.0.0', 0],
    ]);
    expect(changes.map(({ id, action }) => [id, action])).toEqual([
      [1, 'moved'],
      [2, 'moved'],
      [5, 'moved'],
    ]);
  });

  it.each([1, 2, 4, 5, 8, 9, 11])('closes a connection to elsewhere in state %i', async (state) => {
    const { after, changes } = await rewritten([{ id: 1, state, source: [OWN, 4000], peer: [FAR, 443] }]);
    expect(after).toEqual([[7, '0.0.0.0', 0, '0.0.0.0', 0]]);
    expect(changes).toEqual([
      {
        id: 1,
        action: 'closed',
        source: { address: '10.0.0.5', port: 4000 },
        peer: { address: '93.184.216.34', port: 443 },
      },
    ]);
  });

  it('keeps connections within the images: loopback, own address, IPv6, and IPv4 seen through IPv6', async () => {
    const { after, changes } = await rewritten([
      { id: 1, source: [LOOP, 1000], peer: [LOOP, 2000] },
      { id: 2, source: [LOOP, 2000], peer: [LOOP, 1000] },
      { id: 3, source: [OWN, 1001], peer: [OWN, 2001] },
      { id: 4, state: 8, family: 10, source: [MAPPED(OWN), 2001], peer: [MAPPED(OWN), 1001] },
      { id: 5, family: 10, source: [OWN6, 7], peer: [OWN6, 8] },
      { id: 6, family: 10, source: [OWN6, 8], peer: [OWN6, 7] },
    ]);
    expect(after).toEqual([
      [1, '127.0.0.1', 1000, '127.0.0.1', 2000],
      [1, '127.0.0.1', 2000, '127.0.0.1', 1000],
      [1, '10.0.7.9', 1001, '10.0.7.9', 2001],
      [8, '::ffff:10.0.7.9', 2001, '::ffff:10.0.7.9', 1001],
      [1, 'fd00::9', 7, 'fd00::9', 8],
      [1, 'fd00::9', 8, 'fd00::9', 7],
    ]);
    expect(changes.map(({ id }) => id)).toEqual([3, 4, 5, 6]);
  });

  it('does not take a connection for its own other end', async () => {
    const { after } = await rewritten([{ id: 1, source: [LOOP, 1000], peer: [LOOP, 1000] }]);
    expect(after).toEqual([[7, '0.0.0.0', 0, '0.0.0.0', 0]]);
  });

  it('refuses where the target lacks the address family of a bound socket', async () => {
    const dir = dirWith([{ id: 1, state: 10, family: 10, source: [OWN6, 80], peer: [Array(16).fill(0), 0] }]);
    const before = readFileSync(path.join(dir, 'files.img'));
    await expect(rewriteSockets(dir, { sourceIps: ['fd00::5'], targetIps: ['10.0.7.9'] })).rejects.toEqual(
      expect.objectContaining({
        code: 'RESTORE_REFUSED',
        reasons: [expect.objectContaining({ code: 'ADDRESS_FAMILY_MISSING' })],
      }),
    );
    expect(readFileSync(path.join(dir, 'files.img')).equals(before)).toBe(true);
  });

  it('touches nothing but the addresses, ports and states of the sockets it reports', async () => {
    const address = fc.constantFrom(ANY, LOOP, OWN, TARGET, FAR);
    const socket = fc.record({
      proto: fc.constantFrom(6, 17),
      state: fc.constantFrom(1, 2, 7, 8, 10),
      type: fc.constantFrom(1, 2),
      source: fc.tuple(address, fc.nat(3)),
      peer: fc.tuple(address, fc.nat(3)),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(socket, { maxLength: 8 }), async (sketches) => {
        const sockets = sketches.map((sketch, index) => ({ ...sketch, id: index + 2 }));
        const original = [REGULAR_FILE, ...sockets.map(socketEntry), REGULAR_FILE];
        const { dir, changes, after } = await rewritten(sockets);
        const { entries } = await readImage(path.join(dir, 'files.img'), 'files');
        const changed = new Set(changes.map(({ id }) => id - 1));
        expect(entries).toHaveLength(original.length);
        for (const [index, entry] of entries.entries()) {
          expect(Buffer.compare(entry, original[index] ?? message()) === 0).toBe(!changed.has(index));
        }
        expect(after.flat().filter((value) => value === '10.0.0.5')).toEqual([]);
        const second = await rewriteSockets(dir, ADDRESSES);
        expect(second).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });
});

describe('hostile sockets', () => {
  const corrupt = expect.objectContaining({ code: 'ARTIFACT_CORRUPT' });
  it.each([
    ['an address of three words', { id: 1, source: [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 1], peer: [ANY, 0] }],
    ['an unknown family', { id: 1, family: 17 as 2, source: [ANY, 1], peer: [ANY, 0] }],
  ] as [string, SocketSketch][])('with %s are refused', async (_, sketch) => {
    await expect(readInetSockets(dirWith([sketch]))).rejects.toEqual(corrupt);
  });
});

describe('addresses', () => {
  it('are the same after printing and parsing', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })),
        (bytes) => {
          expect(parseAddress(printAddress(Buffer.from(bytes))).equals(bytes)).toBe(true);
        },
      ),
    );
    expect(printAddress(parseAddress('0:0:0:0:0:FFFF:10.1.2.3'))).toBe('::ffff:10.1.2.3');
    expect(printAddress(parseAddress('FD00:0:0:0::1'))).toBe('fd00::1');
  });

  it('that are none are refused', () => {
    for (const text of ['', 'pod', '10.0.0', 'fe80::1%eth0', '1::2::3'])
      expect(() => parseAddress(text)).toThrow(/not an IP/);
  });
});
