import { SnapshotError } from '../../errors.ts';

/**
 * The protobuf wire format, read and written without a schema compiler: what is not understood is carried along byte for byte.
 * Images are hostile input and CRIU's own parser merges fields that are given twice, so a reader that took the last of them
 * would judge something else than CRIU uses. Such messages are refused here.
 */

/** One field as it stands on the wire. `bits` holds wire types 0, 1 and 5; `payload` wire type 2; `raw` the tag too. */
interface Field {
  readonly number: number;
  readonly wire: 0 | 1 | 2 | 5;
  readonly bits: bigint;
  readonly payload: Uint8Array;
  readonly raw: Uint8Array;
}

/** A parsed message; `name` says in errors which message it was. */
export interface Message {
  readonly name: string;
  readonly fields: readonly Field[];
}

const MAX_FIELDS = 1 << 20;
const EMPTY = new Uint8Array(0);
const UTF8 = new TextDecoder('utf-8', { fatal: true });

/** The error for every malformed image: what it was, and what is wrong with it. */
export function corrupt(what: string): SnapshotError {
  return new SnapshotError('ARTIFACT_CORRUPT', `CRIU image: ${what}`);
}

interface Varint {
  readonly value: bigint;
  readonly end: number;
}

function readVarint(bytes: Uint8Array, start: number, name: string): Varint {
  let low = 0;
  for (let at = start, shift = 0; at < bytes.length && shift < 28; at++, shift += 7) {
    const byte = bytes[at] ?? 0;
    low |= (byte & 0x7f) << shift;
    if (byte < 0x80) return { value: BigInt(low), end: at + 1 };
  }
  let value = 0n;
  for (let at = start, shift = 0n; at < bytes.length && shift < 70n; at++, shift += 7n) {
    const byte = bytes[at] ?? 0;
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (value >> 64n !== 0n) break;
      return { value, end: at + 1 };
    }
  }
  throw corrupt(`${name}: a number at byte ${start} is cut off or too long`);
}

function littleEndian(bytes: Uint8Array, start: number, size: 4 | 8): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, size);
  return size === 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true));
}

function readField(bytes: Uint8Array, start: number, name: string): { field: Field; end: number } {
  const tag = readVarint(bytes, start, name);
  const number = Number(tag.value >> 3n);
  const wire = Number(tag.value & 7n);
  if (number < 1 || number >= 1 << 29) throw corrupt(`${name}: field number ${number} cannot be`);
  const finish = (kind: Field['wire'], end: number, bits: bigint, payload: Uint8Array) => {
    if (end > bytes.length) throw corrupt(`${name}: field ${number} ends behind the message`);
    return { field: { number, wire: kind, bits, payload, raw: bytes.subarray(start, end) }, end };
  };
  if (wire === 0) {
    const varint = readVarint(bytes, tag.end, name);
    return finish(0, varint.end, varint.value, EMPTY);
  }
  if (wire === 1 || wire === 5) {
    const size = wire === 1 ? 8 : 4;
    if (tag.end + size > bytes.length) throw corrupt(`${name}: field ${number} ends behind the message`);
    return finish(wire, tag.end + size, littleEndian(bytes, tag.end, size), EMPTY);
  }
  if (wire === 2) {
    const length = readVarint(bytes, tag.end, name);
    if (length.value > BigInt(bytes.length - length.end)) throw corrupt(`${name}: field ${number} is cut off`);
    const end = length.end + Number(length.value);
    return finish(2, end, 0n, bytes.subarray(length.end, end));
  }
  throw corrupt(`${name}: field ${number} has wire type ${wire}`);
}

/** Cuts a message into its fields. Throws ARTIFACT_CORRUPT for anything that is not exactly a sequence of fields. */
export function parseMessage(bytes: Uint8Array, name: string): Message {
  const fields: Field[] = [];
  for (let at = 0; at < bytes.length; ) {
    const { field, end } = readField(bytes, at, name);
    if (fields.length >= MAX_FIELDS) throw corrupt(`${name} has more than ${MAX_FIELDS} fields`);
    fields.push(field);
    at = end;
  }
  return { name, fields };
}

function single(message: Message, number: number, wire: Field['wire']): Field | undefined {
  const found = message.fields.filter((field) => field.number === number);
  if (found.length > 1) throw corrupt(`${message.name}: field ${number} is given ${found.length} times`);
  const field = found[0];
  if (field !== undefined && field.wire !== wire) throw corrupt(`${message.name}: field ${number} has the wrong type`);
  return field;
}

/** A 64-bit number, or undefined where the field is absent. */
export function big(message: Message, number: number): bigint | undefined {
  return single(message, number, 0)?.bits;
}

/** An unsigned 32-bit number, enum or bool, or undefined where the field is absent. */
export function uint(message: Message, number: number): number | undefined {
  const value = big(message, number);
  if (value !== undefined && value > 0xffffffffn) throw corrupt(`${message.name}: field ${number} passes 32 bits`);
  return value === undefined ? undefined : Number(value);
}

/** A zigzag-encoded 32-bit number (sint32), or undefined where the field is absent. */
export function sint(message: Message, number: number): number | undefined {
  const value = big(message, number);
  return value === undefined ? undefined : Number(BigInt.asIntN(32, (value >> 1n) ^ -(value & 1n)));
}

/** The value of a field that must be there; `field` says in the error which one it was. */
export function required<T>(value: T | undefined, message: Message, field: string): T {
  if (value === undefined) throw corrupt(`${message.name}: ${field} is missing`);
  return value;
}

/** The payload of a bytes field, or undefined. */
export function bytesOf(message: Message, number: number): Uint8Array | undefined {
  return single(message, number, 2)?.payload;
}

/** A string field, or undefined. A NUL inside is refused: C would read a shorter string than we judge. */
export function text(message: Message, number: number): string | undefined {
  const payload = bytesOf(message, number);
  if (payload === undefined) return undefined;
  if (payload.includes(0)) throw corrupt(`${message.name}: field ${number} has a NUL in its text`);
  try {
    return UTF8.decode(payload);
  } catch {
    return Buffer.from(payload).toString('latin1');
  }
}

/** A nested message, or undefined. */
export function inner(message: Message, number: number, name: string): Message | undefined {
  const payload = bytesOf(message, number);
  return payload === undefined ? undefined : parseMessage(payload, name);
}

/** All nested messages of a repeated field, in order. */
export function inners(message: Message, number: number, name: string): Message[] {
  return [...eachInner(message, number, name)];
}

/** As `inners`, one after the other: a process can have 100000 areas. */
export function* eachInner(message: Message, number: number, name: string): Generator<Message> {
  const found = message.fields.filter((field) => field.number === number);
  if (found.some((field) => field.wire !== 2)) throw corrupt(`${message.name}: field ${number} has the wrong type`);
  for (const { payload } of found) yield parseMessage(payload, name);
}

/** A repeated unsigned 32-bit field, packed or not, in order. */
export function uints(message: Message, number: number): number[] {
  const values: bigint[] = [];
  for (const field of message.fields) {
    if (field.number !== number) continue;
    if (field.wire === 0) values.push(field.bits);
    else if (field.wire === 2) for (const value of unpack(field.payload, message.name)) values.push(value);
    else throw corrupt(`${message.name}: field ${number} has the wrong type`);
  }
  if (values.some((value) => value > 0xffffffffn)) throw corrupt(`${message.name}: field ${number} passes 32 bits`);
  return values.map(Number);
}

function* unpack(payload: Uint8Array, name: string): Generator<bigint> {
  if (payload.length > MAX_FIELDS) throw corrupt(`${name}: a packed field is too long`);
  for (let at = 0; at < payload.length; ) {
    const { value, end } = readVarint(payload, at, name);
    yield value;
    at = end;
  }
}
