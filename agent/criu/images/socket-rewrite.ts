import { SnapshotError } from '../../errors.ts';
import { type Addresses, addressMap, movedAddress, unmapped } from './addresses.ts';
import { bytesField, numberField, replaceFields, sameOutside } from './edit.ts';
import { replaceEntries } from './file.ts';
import { type Endpoint, FIELD, INET_ENTRY, type InetSocket, readSocketEntries, type SocketEntry } from './sockets.ts';
import { bytesOf } from './wire.ts';

/** What `rewriteSockets` did to one socket. */
export interface SocketChange {
  readonly id: number;
  readonly action: 'moved' | 'closed';
  readonly source: Endpoint;
  readonly peer: Endpoint;
}

const TCP = 6;
const STREAM = 1;
const CLOSED = 7;
const EDITED: ReadonlySet<number> = new Set([FIELD.state, FIELD.srcPort, FIELD.dstPort, FIELD.srcAddr, FIELD.dstAddr]);

/**
 * CRIU restores whatever is TCP and has a peer's port as a connection, whatever its state (established, SYN_SENT, the FIN states and
 * CLOSE_WAIT): into the middle of a stream that the other end believes in.
 */
const isConnection = (socket: InetSocket) =>
  socket.protocol === TCP && socket.type === STREAM && socket.peer.port !== 0;

const endpointKey = (bytes: Buffer, port: number) => `${unmapped(bytes).toString('hex')}:${port}`;
const key = (netns: number, from: string, to: string) => `${netns} ${from} ${to}`;

/** Connections of which both ends are in the image. */
function pairs(sockets: readonly SocketEntry[]): Set<SocketEntry> {
  const connections = sockets.filter(isConnection);
  const ends = new Map(connections.map((socket) => [ownKey(socket), socket]));
  return new Set(
    connections.filter((socket) => {
      const other = ends.get(
        key(
          socket.netns,
          endpointKey(socket.peerBytes, socket.peer.port),
          endpointKey(socket.sourceBytes, socket.source.port),
        ),
      );
      return other !== undefined && other !== socket;
    }),
  );
}

function ownKey(socket: SocketEntry): string {
  return key(
    socket.netns,
    endpointKey(socket.sourceBytes, socket.source.port),
    endpointKey(socket.peerBytes, socket.peer.port),
  );
}

interface Edit {
  readonly socket: SocketEntry;
  readonly action: SocketChange['action'];
  readonly state: number;
  readonly ports: readonly [number, number];
  readonly addresses: readonly [Buffer, Buffer];
}

function decide(socket: SocketEntry, paired: boolean, map: ReadonlyMap<string, Buffer | undefined>): Edit | undefined {
  const none = Buffer.alloc(socket.sourceBytes.length);
  if (isConnection(socket) && !paired)
    return { socket, action: 'closed', state: CLOSED, ports: [0, 0], addresses: [none, none] };
  const source = movedAddress(socket.sourceBytes, map);
  const peer = movedAddress(socket.peerBytes, map);
  if (source === undefined || peer === undefined) {
    const found = `${socket.source.address}:${socket.source.port}`;
    throw new SnapshotError(
      'RESTORE_REFUSED',
      `socket ${socket.id} at ${found}: the target pod has no ${socket.family} address`,
      {
        reasons: [
          {
            code: 'ADDRESS_FAMILY_MISSING',
            message: `a socket uses the source pod's ${socket.family} address, and the target pod has none`,
            found,
            wanted: `an ${socket.family} address of the target pod`,
            advice:
              'Bind to the wildcard address in the workload, or restore into a pod with the same address families.',
          },
        ],
      },
    );
  }
  if (source.equals(socket.sourceBytes) && peer.equals(socket.peerBytes)) return undefined;
  return {
    socket,
    action: 'moved',
    state: socket.state,
    ports: [socket.source.port, socket.peer.port],
    addresses: [source, peer],
  };
}

function encode({ socket, state, ports, addresses }: Edit): Uint8Array {
  const words = (number: number, bytes: Buffer) =>
    Array.from({ length: bytes.length / 4 }, (_, index) => numberField(number, bytes.readUInt32LE(index * 4)));
  const edited = replaceFields(
    socket.message,
    new Map([
      [FIELD.state, [numberField(FIELD.state, state)]],
      [FIELD.srcPort, [numberField(FIELD.srcPort, ports[0])]],
      [FIELD.dstPort, [numberField(FIELD.dstPort, ports[1])]],
      [FIELD.srcAddr, words(FIELD.srcAddr, addresses[0])],
      [FIELD.dstAddr, words(FIELD.dstAddr, addresses[1])],
    ]),
  );
  const before = bytesOf(socket.file, INET_ENTRY) ?? edited;
  if (!sameOutside(before, edited, EDITED))
    throw new SnapshotError('INTERNAL', `socket ${socket.id}: the edit changed other fields`);
  return replaceFields(socket.file, new Map([[INET_ENTRY, [bytesField(INET_ENTRY, edited)]]]));
}

/**
 * Rewrites files.img for another pod: the source pod's own addresses become the target's; a TCP connection whose other end is not in
 * the images becomes a closed, unconnected socket; connections within the images stay. Returns what was changed, as it was before.
 * Throws RESTORE_REFUSED where a socket needs an address family that the target lacks.
 */
export async function rewriteSockets(dir: string, addresses: Addresses): Promise<SocketChange[]> {
  const { file, image, sockets } = await readSocketEntries(dir);
  const paired = pairs(sockets);
  const map = addressMap(addresses);
  const edits = sockets.flatMap((socket) => decide(socket, paired.has(socket), map) ?? []);
  if (edits.length > 0)
    await replaceEntries(file, image, new Map(edits.map((edit) => [edit.socket.index, encode(edit)])));
  return edits.map(({ socket, action }) => ({ id: socket.id, action, source: socket.source, peer: socket.peer }));
}
