import { isIPv4, isIPv6 } from 'node:net';
import { SnapshotError } from '../../errors.ts';

/** IP addresses as bytes: 4 for IPv4, 16 for IPv6. An IPv4 address inside IPv6 (::ffff:10.0.0.1) is the same address as the IPv4 one. */

const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');
const isMapped = (bytes: Buffer) => bytes.length === 16 && bytes.subarray(0, 12).equals(MAPPED);

/** For people: 10.0.0.1, fd00::1, ::ffff:10.0.0.1. */
export function printAddress(bytes: Buffer): string {
  const v4 = (four: Buffer) => [...four].join('.');
  if (bytes.length === 4) return v4(bytes);
  if (isMapped(bytes)) return `::ffff:${v4(bytes.subarray(12))}`;
  const words = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return new URL(`http://[${words.join(':')}]/`).hostname.slice(1, -1);
}

/** Bytes of an address in any of its spellings. */
export function parseAddress(text: string): Buffer {
  if (isIPv4(text)) return Buffer.from(text.split('.').map(Number));
  if (!isIPv6(text) || text.includes('%')) throw new SnapshotError('INTERNAL', `${text} is not an IP address`);
  const full = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const [left = '', right] = full.split('::');
  const groups = (part: string) => part.split(':').filter((group) => group !== '');
  const head = groups(left);
  const tail = right === undefined ? [] : groups(right);
  const words = [...head, ...Array<string>(8 - head.length - tail.length).fill('0'), ...tail];
  return Buffer.from(words.map((word) => word.padStart(4, '0')).join(''), 'hex');
}

/** The IPv4 bytes of a mapped address; others unchanged. */
export const unmapped = (bytes: Buffer) => (isMapped(bytes) ? bytes.subarray(12) : bytes);

/** The source pod's own addresses and the target pod's. */
export interface Addresses {
  readonly sourceIps: readonly string[];
  readonly targetIps: readonly string[];
}

/** Source address (hex) → target address of the same family, by order; a further source address goes to the first target address. */
export function addressMap({ sourceIps, targetIps }: Addresses): Map<string, Buffer | undefined> {
  const map = new Map<string, Buffer | undefined>();
  for (const length of [4, 16]) {
    const ofFamily = (ips: readonly string[]) =>
      ips.map((ip) => unmapped(parseAddress(ip))).filter((bytes) => bytes.length === length);
    const targets = ofFamily(targetIps);
    for (const [index, source] of ofFamily(sourceIps).entries())
      map.set(source.toString('hex'), targets[index] ?? targets[0]);
  }
  return map;
}

/** The address as it is at the target; undefined where the target has none of its family. */
export function movedAddress(bytes: Buffer, map: ReadonlyMap<string, Buffer | undefined>): Buffer | undefined {
  const from = unmapped(bytes);
  if (!map.has(from.toString('hex'))) return bytes;
  const to = map.get(from.toString('hex'));
  return to !== undefined && isMapped(bytes) ? Buffer.concat([MAPPED, to]) : to;
}
