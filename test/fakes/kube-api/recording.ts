import { readdirSync, readFileSync } from 'node:fs';
import type { Json } from './resources.ts';

const DIRECTORY = new URL('../../data/kubernetes/', import.meta.url);

/** One exchange with a real API server, as test/data/kubernetes/README.md describes it. */
export interface Recording {
  readonly shows: string;
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    /** Absent: an administrator. */
    readonly auth?: string;
    readonly body?: unknown;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly events?: readonly RecordedEvent[];
  };
}

export interface RecordedEvent {
  readonly type: string;
  readonly object: Json;
}

/** The numbers of all recordings that are kept, `0101` and so on. */
export function recordedNumbers(): string[] {
  return readdirSync(DIRECTORY)
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.slice(0, 4))
    .sort();
}

/** Reads a recording by its number. */
export function readRecording(number: string): Recording {
  const name = readdirSync(DIRECTORY).find((candidate) => candidate.startsWith(`${number}-`));
  if (name === undefined) throw new Error(`there is no recording ${number}`);
  return JSON.parse(readFileSync(new URL(name, DIRECTORY), 'utf8')) as Recording;
}

/** What may differ between a recording and its replay, by the name of the field. */
const VOLATILE: Readonly<Record<string, 'paired' | 'shape' | 'given'>> = {
  // One value of the recording stands for one value of the replay, everywhere.
  uid: 'paired',
  'controller-uid': 'paired',
  'batch.kubernetes.io/controller-uid': 'paired',
  resourceVersion: 'paired',
  // Another moment, written in the same way.
  creationTimestamp: 'shape',
  deletionTimestamp: 'shape',
  // The same, unless the request says which moment.
  lastTransitionTime: 'given',
  lastProbeTime: 'given',
  startTime: 'given',
  startedAt: 'given',
  finishedAt: 'given',
  completionTime: 'given',
};
const CUT = '…';
const isMap = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
const shapeOf = (text: unknown) => String(text).replace(/\d/g, '0');

/** What the values of a recording are in its replay: versions, uids, generated names. */
export class Pairs {
  readonly #actualOf = new Map<string, string>();
  readonly #recordedOf = new Map<string, string>();

  /** Notes a pair; answers what is wrong with it if one of the two already has another partner. */
  learn(field: string, recorded: string, actual: string): string | undefined {
    const kind = field.endsWith('uid') ? 'uid' : field;
    const [known, other] = [this.#actualOf.get(`${kind} ${recorded}`), this.#recordedOf.get(`${kind} ${actual}`)];
    if (known !== undefined && known !== actual) return `${kind} ${recorded} was ${known} and is now ${actual}`;
    if (other !== undefined && other !== recorded) return `${kind} ${actual} stands for ${other} and for ${recorded}`;
    this.#actualOf.set(`${kind} ${recorded}`, actual);
    this.#recordedOf.set(`${kind} ${actual}`, recorded);
    return undefined;
  }

  /** The text of a recording as its replay has it. */
  translate(text: string): string {
    return text
      .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (uid) => this.#get('uid', uid))
      .replace(/\beyJ[\w-]{20,}/g, (token) => this.#translateToken(token))
      .replace(
        /(?<=resourceVersion=|resourceVersion\\?": ?\\?"|in record \(|resource version: |current: |\d \()\d+/g,
        (version) => this.#get('resourceVersion', version),
      )
      .replace(/\b[a-z0-9-]+[.-][a-z0-9]{5}\b/g, (name) => this.#get('name', name));
  }

  /** A token for the rest of a list is readable: only its version is another one. */
  #translateToken(token: string): string {
    const content = JSON.parse(Buffer.from(token, 'base64url').toString()) as { rv: number };
    const rv = Number(this.#get('resourceVersion', String(content.rv)));
    return Buffer.from(JSON.stringify({ ...content, rv })).toString('base64url');
  }

  #get(kind: string, recorded: string): string {
    return this.#actualOf.get(`${kind} ${recorded}`) ?? recorded;
  }
}

/** What a comparison looks things up in. */
interface Context {
  readonly pairs: Pairs;
  /** The text of the request. */
  readonly sent: string;
}

/** Where an answer differs from the recorded one; empty: it is as recorded. Learns versions, uids and names on the way. */
export function differences(context: Context, recorded: unknown, actual: unknown): string[] {
  const [wanted, given] = [withCausesOnce(recorded), withCausesOnce(actual)];
  const clashes = learnFrom(context.pairs, wanted, given);
  return [...clashes, ...compare(context, { recorded: wanted, actual: given, path: '', isCut: false })];
}

/** A real server repeats causes, and lists those of a map in any order: they are compared as a set. */
function withCausesOnce(body: unknown): unknown {
  if (!isMap(body) || !isMap(body['details']) || !Array.isArray(body['details']['causes'])) return body;
  const texts = new Set(body['details']['causes'].map((cause: Json) => JSON.stringify(Object.entries(cause).sort())));
  const causes = [...texts].sort().map((text) => Object.fromEntries(JSON.parse(text) as [string, unknown][]) as Json);
  return { ...body, details: { ...body['details'], causes } };
}

function learnFrom(pairs: Pairs, recorded: unknown, actual: unknown): string[] {
  if (Array.isArray(recorded) && Array.isArray(actual)) {
    return recorded.flatMap((item, index) => learnFrom(pairs, item, actual[index]));
  }
  if (!isMap(recorded) || !isMap(actual)) return [];
  return Object.entries(recorded).flatMap(([key, value]) => {
    const other = actual[key];
    const isGenerated =
      key === 'name' && /[.-][a-z0-9]{5}$/.test(String(value)) && /[.-][a-z0-9]{5}$/.test(String(other));
    if (typeof value !== 'string' || typeof other !== 'string') return learnFrom(pairs, value, other);
    if (VOLATILE[key] !== 'paired' && !isGenerated) return [];
    return pairs.learn(key, value, other) ?? [];
  });
}

interface Comparison {
  readonly recorded: unknown;
  readonly actual: unknown;
  readonly path: string;
  /** The recording left things out here. */
  readonly isCut: boolean;
}

function compare(context: Context, { recorded, actual, path, isCut }: Comparison): string[] {
  const differs = [`${path}: recorded ${JSON.stringify(recorded)}, got ${JSON.stringify(actual)}`];
  if (typeof recorded === 'string') return isSameText(context, recorded, actual, path) ? [] : differs;
  if (Array.isArray(recorded)) {
    if (!Array.isArray(actual) || actual.length !== recorded.length) return differs;
    return recorded.flatMap((item, index) =>
      compare(context, { recorded: item, actual: actual[index], path: `${path}[${index}]`, isCut }),
    );
  }
  if (!isMap(recorded)) return Object.is(recorded, actual) ? [] : differs;
  if (!isMap(actual)) return differs;
  const isOpen = isCut || CUT in recorded;
  const extra = isOpen ? [] : Object.keys(actual).filter((key) => !(key in recorded));
  const inner = Object.entries(recorded).filter(([key]) => key !== CUT);
  return [
    ...extra.map((key) => `${path}.${key}: not recorded, got ${JSON.stringify(actual[key])}`),
    ...inner.flatMap(([key, value]) =>
      compare(context, {
        recorded: value,
        actual: actual[key],
        path: `${path}.${key}`,
        isCut: isCut || recorded[CUT] === 'cut',
      }),
    ),
  ];
}

function isSameText({ pairs, sent }: Context, recorded: string, actual: unknown, path: string): boolean {
  if (typeof actual !== 'string') return false;
  const field = /[^.]*$/.exec(path)?.[0] ?? '';
  const isFree = VOLATILE[field] === 'shape' || (VOLATILE[field] === 'given' && !sent.includes(recorded));
  if (isFree) return shapeOf(recorded) === shapeOf(actual);
  const [kept = '', cut] = recorded.split(CUT);
  const wanted =
    VOLATILE[field] === 'paired' ? pairs.translate(`resourceVersion=${kept}`).slice(16) : pairs.translate(kept);
  return cut === undefined ? actual === wanted : actual.startsWith(wanted);
}
