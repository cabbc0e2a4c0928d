import { type Message, parseMessage } from './wire.ts';

/** Writing at the wire level: fields that are not replaced keep their bytes and their order. */

function varint(value: bigint): number[] {
  const out: number[] = [];
  let rest = value;
  for (; rest > 0x7fn; rest >>= 7n) out.push(Number(rest & 0x7fn) | 0x80);
  out.push(Number(rest));
  return out;
}

/** A field of wire type 0: tag and value. `value` is unsigned, below 2^64. */
export function numberField(number: number, value: bigint | number): Uint8Array {
  return Uint8Array.from([...varint(BigInt(number) << 3n), ...varint(BigInt(value))]);
}

/** A field of wire type 2: tag, length, payload. */
export function bytesField(number: number, payload: Uint8Array): Uint8Array {
  return Buffer.concat([
    Uint8Array.from([...varint((BigInt(number) << 3n) | 2n), ...varint(BigInt(payload.length))]),
    payload,
  ]);
}

/** New wire bytes of a field by its number; several for a repeated field. */
export type Replacements = ReadonlyMap<number, readonly Uint8Array[]>;

/**
 * The message with the fields of these numbers replaced where the first of them stood (appended where there was none) and all
 * others unchanged.
 */
export function replaceFields(message: Message, replacements: Replacements): Uint8Array {
  const parts: Uint8Array[] = [];
  const done = new Set<number>();
  for (const field of message.fields) {
    const instead = replacements.get(field.number);
    if (instead === undefined) parts.push(field.raw);
    else if (!done.has(field.number)) parts.push(...instead);
    if (instead !== undefined) done.add(field.number);
  }
  for (const [number, instead] of replacements) if (!done.has(number)) parts.push(...instead);
  return Buffer.concat(parts);
}

/** True where the fields outside `numbers` are the same bytes in the same order in both encodings. */
export function sameOutside(before: Uint8Array, after: Uint8Array, numbers: ReadonlySet<number>): boolean {
  const rest = (bytes: Uint8Array) =>
    Buffer.concat(
      parseMessage(bytes, 'edited message')
        .fields.filter((field) => !numbers.has(field.number))
        .map((field) => field.raw),
    );
  return rest(before).equals(rest(after));
}
