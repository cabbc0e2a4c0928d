import { CommandError } from '../failure.ts';

/** The parts of a v1 Secret that are used; whatever else its metadata has is kept as it is. */
export interface SecretObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly resourceVersion?: string;
    readonly creationTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>> | null;
    readonly annotations?: Readonly<Record<string, string>> | null;
  };
  readonly type?: string;
  readonly immutable?: boolean;
  /** Values in base64. */
  readonly data?: Readonly<Record<string, string>> | null;
}

/** Files of a Secret, by name. */
export type SecretData = Readonly<Record<string, Buffer>>;

/** What a Secret is to hold. */
export interface SecretContent {
  readonly data: SecretData;
  /** Ours alone; an undefined one is taken away. Those of others stay. */
  readonly annotations: Readonly<Record<string, string | undefined>>;
  /** Of a Secret that is made; one that is there keeps its own, which cannot change. */
  readonly type: 'Opaque' | 'kubernetes.io/tls';
}

/** What the Secrets say about themselves: whose they are, and since when what is in them is there. Times are ISO 8601. */
export const NOTES = {
  /** What the Secret is for. Without it a Secret with certificates is somebody else's. */
  credential: 'nvidia.com/snapshot-credential',
  signsSince: 'nvidia.com/snapshot-signs-since',
  nextSince: 'nvidia.com/snapshot-next-since',
  /** Ids of former record keys, the oldest first, with commas between them. */
  previousKeys: 'nvidia.com/snapshot-previous-keys',
  /** No certificate of the present authority is good for longer. */
  issuedUntil: 'nvidia.com/snapshot-issued-until',
  /** No certificate of the former authorities is good for longer. */
  previousUntil: 'nvidia.com/snapshot-previous-until',
  /** When an authority was last added to `ca.crt`. */
  trustsSince: 'nvidia.com/snapshot-trusts-since',
} as const;

/** The files of a Secret. One that is not there, or was made empty, has none. */
export function dataOf(secret: SecretObject | undefined): SecretData {
  return Object.fromEntries(
    Object.entries(secret?.data ?? {}).map(([name, value]) => [name, Buffer.from(value, 'base64')]),
  );
}

export const isEmpty = (data: SecretData) => Object.keys(data).length === 0;

export function noteOf(secret: SecretObject | undefined, note: keyof typeof NOTES): string | undefined {
  return secret?.metadata.annotations?.[NOTES[note]];
}

/** A time that was noted, in ms; undefined where none is, or what is there is no time. */
export function timeOf(secret: SecretObject | undefined, note: keyof typeof NOTES): number | undefined {
  const ms = Date.parse(noteOf(secret, note) ?? '');
  return Number.isNaN(ms) ? undefined : ms;
}

export const isoTime = (ms: number) => new Date(ms).toISOString();

/** A Secret that holds what nobody here wrote. Nothing is replaced that is not understood. */
export function foreign(secret: string, what: string): CommandError {
  return new CommandError(
    'refused',
    `Secret ${secret} ${what}: nothing was changed in it. Name another Secret, or move this one away if it is of no use any more.`,
  );
}
