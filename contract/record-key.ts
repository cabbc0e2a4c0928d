import { createHash } from 'node:crypto';

/** Name of the key that signs, in a Secret and in the directory where it is mounted. Every other file with the ending is accepted. */
export const SIGNING_KEY_FILE = 'record.key';
export const RECORD_KEY_ENDING = '.key';

/** So many keys one directory may hold for the agent, the signing one among them. Who adds one beyond it stops every agent from reading them. */
export const MAX_RECORD_KEYS = 32;

export const MIN_RECORD_KEY_BYTES = 32;
export const MAX_RECORD_KEY_BYTES = 4096;

/** A secret that only agents have. It signs completion records and is the root of the bulk keys. */
export interface RecordKey {
  /** The first 16 hex digits of the secret's SHA-256: says which key signed, tells nothing about it. */
  readonly id: string;
  readonly secret: Buffer;
}

/**
 * A key from the content of its file: hexadecimal text of at least 64 digits stands for the bytes it spells, anything else for
 * itself. Text, where it is none: what is wrong with it.
 */
export function recordKeyOf(content: Buffer): RecordKey | string {
  const text = content.toString('latin1').trimEnd();
  const isHex = /^(?:[0-9a-fA-F]{2})+$/.test(text) && text.length >= 2 * MIN_RECORD_KEY_BYTES;
  const secret = isHex ? Buffer.from(text, 'hex') : content;
  if (secret.length < MIN_RECORD_KEY_BYTES || secret.length > MAX_RECORD_KEY_BYTES)
    return `has ${secret.length} bytes, ${MIN_RECORD_KEY_BYTES} to ${MAX_RECORD_KEY_BYTES} are allowed`;
  return { id: createHash('sha256').update(secret).digest('hex').slice(0, 16), secret };
}
