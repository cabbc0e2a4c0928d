import path from 'node:path';
import { printAddress } from './addresses.ts';
import { readImage } from './file.ts';
import { bytesOf, corrupt, type Message, parseMessage, required, uint, uints } from './wire.ts';

/** An IPv4 or IPv6 socket of the images. Addresses are as `source` and `peer` print them: 10.0.0.1, fd00::1, ::ffff:10.0.0.1. */
export interface InetSocket {
  readonly id: number;
  readonly family: 'ipv4' | 'ipv6';
  readonly protocol: number;
  /** SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_RAW 3. */
  readonly type: number;
  /** TCP state: 1 established, 7 closed, 10 listening. */
  readonly state: number;
  readonly source: Endpoint;
  readonly peer: Endpoint;
}

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

const AF_INET = 2;
const AF_INET6 = 10;
/** Field of a file entry that holds an inet socket. */
export const INET_ENTRY = 4;

/** Field numbers of CRIU's inet_sk_entry. */
export const FIELD = {
  id: 1,
  family: 3,
  type: 4,
  proto: 5,
  state: 6,
  srcPort: 7,
  dstPort: 8,
  srcAddr: 11,
  dstAddr: 12,
  netns: 18,
};
/** A socket with the messages that it was read from. */
export interface SocketEntry extends InetSocket {
  readonly index: number;
  readonly netns: number;
  readonly file: Message;
  readonly message: Message;
  readonly sourceBytes: Buffer;
  readonly peerBytes: Buffer;
}

/** The address bytes as they are on the wire; CRIU stores each four of them as one number in the byte order of x86 and arm64. */
function addressBytes(message: Message, number: number, words: number): Buffer {
  const values = uints(message, number);
  if (values.length !== words)
    throw corrupt(`${message.name}: an address has ${values.length} words instead of ${words}`);
  const bytes = Buffer.alloc(words * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * 4);
  return bytes;
}

function readSocket(file: Message, index: number): SocketEntry | undefined {
  const payload = bytesOf(file, INET_ENTRY);
  if (payload === undefined) return undefined;
  const message = parseMessage(payload, `files.img entry ${index}`);
  const number = (field: keyof typeof FIELD) => required(uint(message, FIELD[field]), message, field);
  const family = number('family');
  if (family !== AF_INET && family !== AF_INET6) throw corrupt(`${message.name}: address family ${family}`);
  const words = family === AF_INET ? 1 : 4;
  const sourceBytes = addressBytes(message, FIELD.srcAddr, words);
  const peerBytes = addressBytes(message, FIELD.dstAddr, words);
  return {
    index,
    file,
    message,
    sourceBytes,
    peerBytes,
    id: number('id'),
    family: family === AF_INET ? 'ipv4' : 'ipv6',
    protocol: number('proto'),
    type: number('type'),
    state: number('state'),
    netns: uint(message, FIELD.netns) ?? 0,
    source: { address: printAddress(sourceBytes), port: number('srcPort') },
    peer: { address: printAddress(peerBytes), port: number('dstPort') },
  };
}

/** files.img and the inet sockets in it. */
export async function readSocketEntries(dir: string) {
  const file = path.join(dir, 'files.img');
  const image = await readImage(file, 'files');
  const sockets = image.entries.flatMap(
    (entry, index) => readSocket(parseMessage(entry, `files.img entry ${index}`), index) ?? [],
  );
  return { file, image, sockets };
}

/** All inet sockets of the images. */
export async function readInetSockets(dir: string): Promise<InetSocket[]> {
  const { sockets } = await readSocketEntries(dir);
  return sockets.map(({ id, family, protocol, type, state, source, peer }) => ({
    id,
    family,
    protocol,
    type,
    state,
    source,
    peer,
  }));
}
