import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { type Reason, SnapshotError } from '../errors.ts';
import type { RecordKey, RecordKeys } from './key.ts';
import { type ArtifactRecord, FORMAT_VERSION, MAX_FILES, READER_VERSION, recordSchema } from './schema.ts';

export type { ArtifactRecord } from './schema.ts';

export const MAX_RECORD_BYTES = 8 * 1024 * 1024;

/** A record whose signature was good, and the key that made it: the bulk key is derived from that one. */
export interface SignedRecord {
  readonly record: ArtifactRecord;
  readonly key: RecordKey;
}

const HEAD = /^formatVersion: (\d{1,9})\nminReader: (\d{1,9})\n/;
const SIGNATURE =
  /\nsignature:\n {2}algorithm: HMAC-SHA-256\n {2}keyId: "([0-9a-f]{16})"\n {2}value: "([0-9a-f]{64})"\n$/;
const SIGNATURE_LENGTH = 200;

function mac(body: string, key: RecordKey): Buffer {
  return createHmac('sha256', key.secret).update('snapshot-record\n').update(body).digest();
}

/**
 * The record as the text of manifest.yaml, signed. The signature covers the text above it byte for byte: a reader can check it
 * before it parses anything.
 */
export function encodeRecord(record: ArtifactRecord, key: RecordKey): string {
  const checked = recordSchema.safeParse(record);
  if (!checked.success)
    throw new SnapshotError('INTERNAL', `the record cannot be written: ${z.prettifyError(checked.error)}`);
  const body = Object.entries(checked.data).map(encodeField).join('');
  const signature = `signature:\n  algorithm: HMAC-SHA-256\n  keyId: "${key.id}"\n  value: "${mac(body, key).toString('hex')}"\n`;
  if (Buffer.byteLength(body) + signature.length > MAX_RECORD_BYTES) {
    throw new SnapshotError('INTERNAL', `the record has more than ${MAX_RECORD_BYTES} bytes`);
  }
  return body + signature;
}

const draftSchema = recordSchema.omit({
  formatVersion: true,
  minReader: true,
  checkpointId: true,
  version: true,
  files: true,
  sizes: true,
  bulk: true,
  timings: true,
});
/** Images are not all: bulk file and index, diff, removed paths, shared memory, CRIU's log and figures. */
const OTHER_FILES = 7;

/** Throws where a record of this draft and so many images could not be written in the end: to be asked as long as it costs nothing. */
export function requireRecordable(draft: z.input<typeof draftSchema>, images: number): void {
  const checked = draftSchema.safeParse(draft);
  if (!checked.success)
    throw new SnapshotError('INTERNAL', `the record cannot be written: ${z.prettifyError(checked.error)}`);
  if (Buffer.byteLength(JSON.stringify(draft, null, 2)) > MAX_RECORD_BYTES / 4)
    throw new SnapshotError('CHECKPOINT_REFUSED', 'the workload has more mounts than a record can hold');
  if (images + OTHER_FILES > MAX_FILES)
    throw new SnapshotError('CHECKPOINT_REFUSED', `CRIU wrote ${images} images, an artifact holds ${MAX_FILES} files`);
}

/** The record in `text`, once its format is known and its signature is good. `keys.accepted` says whose signatures count. */
export function decodeRecord(text: string, keys: RecordKeys): SignedRecord {
  if (Buffer.byteLength(text) > MAX_RECORD_BYTES) {
    throw new SnapshotError('ARTIFACT_CORRUPT', `the record has more than ${MAX_RECORD_BYTES} bytes`);
  }
  requireFormat(text);
  const { body, key } = requireSignature(text, keys);
  const checked = recordSchema.safeParse(parseFields(body));
  if (checked.success) return { record: checked.data, key };
  throw new SnapshotError(
    'ARTIFACT_CORRUPT',
    `the record does not have its form: ${z.prettifyError(checked.error).slice(0, 2000)}`,
  );
}

/** The key of an artifact's bulk pages: 64 hex digits, new with each salt, so that no nonce ever repeats under one key. */
export function deriveBulkKey(key: RecordKey, salt: string): string {
  if (!/^[0-9a-f]{64}$/.test(salt)) throw new SnapshotError('INTERNAL', 'the salt of a bulk key is 64 hex digits');
  return Buffer.from(hkdfSync('sha256', key.secret, Buffer.from(salt, 'hex'), 'snapshot-bulk', 32)).toString('hex');
}

function requireFormat(text: string): void {
  const head = HEAD.exec(text.slice(0, 64));
  if (head === null) {
    const isForeign = /^checkpointId:/m.test(text.slice(0, 65_536));
    if (isForeign)
      throw new SnapshotError('ARTIFACT_FORMAT', 'the record has no formatVersion: another system wrote it');
    throw new SnapshotError('ARTIFACT_CORRUPT', 'the record does not begin with formatVersion and minReader');
  }
  const [formatVersion, minReader] = [Number(head[1]), Number(head[2])];
  if (formatVersion === FORMAT_VERSION && minReader <= READER_VERSION) return;
  const found = `formatVersion ${formatVersion}, minReader ${minReader}`;
  throw new SnapshotError(
    'ARTIFACT_FORMAT',
    `the record has ${found}; this agent reads formatVersion ${FORMAT_VERSION}, as reader ${READER_VERSION}`,
  );
}

function requireSignature(text: string, keys: RecordKeys): { body: string; key: RecordKey } {
  const block = SIGNATURE.exec(text.slice(-SIGNATURE_LENGTH));
  if (block === null) throw unsigned('SIGNATURE_MISSING', 'the record is not signed', '');
  const [matched, keyId = '', value = ''] = block;
  const key = keys.accepted.find((candidate) => candidate.id === keyId);
  if (key === undefined)
    throw unsigned('KEY_UNKNOWN', `the record is signed with key ${keyId}, which this agent does not have`, keyId);
  const body = text.slice(0, text.length - matched.length + 1);
  if (timingSafeEqual(mac(body, key), Buffer.from(value, 'hex'))) return { body, key };
  throw unsigned('SIGNATURE_WRONG', `the signature of the record is wrong (key ${keyId})`, keyId);
}

function unsigned(code: string, message: string, found: string): SnapshotError {
  const advice = 'Give the agent the key that signed it as an older key, or delete the artifact.';
  const reason: Reason = { code, message, found, wanted: '', advice };
  return new SnapshotError('ARTIFACT_UNSIGNED', message, { reasons: [reason] });
}

/** A field as a line of YAML whose value is JSON, which YAML contains: people and YAML tools read it, and no YAML parser is needed here. */
function encodeField([name, value]: [string, unknown]): string {
  return `${name}: ${JSON.stringify(value, null, 2).replaceAll('\n', '\n  ')}\n`;
}

/** Reads what `encodeField` wrote. A field begins at the start of a line; lines that begin with a blank belong to it. */
function parseFields(body: string): unknown {
  try {
    const fields = body.split(/\n(?! )/).filter((text) => text !== '');
    const decoded = fields.map(decodeField);
    const names = decoded.map(([name]) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) throw new Error(`${twice} is there twice`);
    return Object.fromEntries(decoded);
  } catch (cause) {
    throw new SnapshotError('ARTIFACT_CORRUPT', `the record does not have its form: ${String(cause).slice(0, 500)}`, {
      cause,
    });
  }
}

function decodeField(text: string): [string, unknown] {
  const colon = text.indexOf(': ');
  if (colon < 0) throw new Error(`no field: ${text.slice(0, 80)}`);
  return [text.slice(0, colon), JSON.parse(text.slice(colon + 2)) as unknown];
}
