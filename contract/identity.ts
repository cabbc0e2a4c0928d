import { createHash, randomBytes } from 'node:crypto';
import { LABELS } from './keys.ts';

/** What the legacy identity hash is made of: `spec.identity` of a DynamoCheckpoint. What is absent, empty or 0 has its default. */
export interface CheckpointIdentity {
  readonly model: string;
  readonly backendFramework: string;
  readonly dynamoVersion?: string | undefined;
  readonly tensorParallelSize?: number | undefined;
  readonly pipelineParallelSize?: number | undefined;
  readonly dtype?: string | undefined;
  readonly maxModelLen?: number | undefined;
  readonly extraParameters?: Readonly<Record<string, string>> | undefined;
}

/** The worker generation that an automatic checkpoint is of. */
export interface WorkerGeneration {
  readonly namespace?: string | undefined;
  readonly dgdName: string;
  readonly dgdUID?: string | undefined;
  readonly componentName: string;
  /** Empty for components that are no workers. */
  readonly workerHash?: string | undefined;
}

/** The parts of a DynamoCheckpoint that say its id. */
interface Identified {
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> | undefined };
  readonly spec: { readonly identity: CheckpointIdentity };
  readonly status?:
    | { readonly checkpointID?: string | undefined; readonly identityHash?: string | undefined }
    | undefined;
}

const IDENTITY_DIGITS = 16;
const AUTOMATIC_DIGITS = 32;

/** The id that the original system gives to equal identities: 16 hex digits. The hashed text is exactly what Go's encoding/json writes. */
export function identityHash(identity: CheckpointIdentity): string {
  const { dynamoVersion, dtype, maxModelLen, extraParameters = {} } = identity;
  const extra = Object.entries(extraParameters).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return digest(IDENTITY_DIGITS, [
    ['model', goString(identity.model)],
    ['backendFramework', goString(identity.backendFramework)],
    ['dynamoVersion', dynamoVersion && goString(dynamoVersion)],
    ['tensorParallelSize', String(identity.tensorParallelSize || 1)],
    ['pipelineParallelSize', String(identity.pipelineParallelSize || 1)],
    ['dtype', dtype && goString(dtype)],
    ['maxModelLen', maxModelLen ? String(maxModelLen) : undefined],
    ['extraParameters', extra.length > 0 ? goObject(extra.map(([key, value]) => [key, goString(value)])) : undefined],
  ]);
}

/** The id of an automatic checkpoint: 32 hex digits that no other deployment, component or generation has. */
export function automaticId({ namespace, dgdName, dgdUID, componentName, workerHash }: WorkerGeneration): string {
  return digest(AUTOMATIC_DIGITS, [
    ['namespace', namespace && goString(namespace)],
    ['dgdName', goString(dgdName)],
    ['dgdUID', dgdUID && goString(dgdUID)],
    ['componentName', goString(componentName)],
    ['workerHash', workerHash && goString(workerHash)],
  ]);
}

/** An id where nothing says one: 32 hex digits. */
export function randomId(): string {
  return randomBytes(AUTOMATIC_DIGITS / 2).toString('hex');
}

/**
 * The checkpoint id of a DynamoCheckpoint: what its status says, else its label, else the hash of its identity. It can be any text that
 * somebody wrote there: `idProblem` judges it.
 */
export function checkpointIdOf({ metadata, spec, status }: Identified): string {
  return (
    status?.checkpointID ||
    status?.identityHash ||
    metadata.labels?.[LABELS.checkpointId] ||
    identityHash(spec.identity)
  );
}

/** Members without a value are left out. */
type Members = readonly (readonly [key: string, json: string | undefined])[];

function digest(digits: number, members: Members): string {
  return createHash('sha256').update(goObject(members)).digest('hex').slice(0, digits);
}

/** Written by hand: an object of JavaScript would put keys that look like numbers first. */
function goObject(members: Members): string {
  return `{${members.flatMap(([key, json]) => (json ? [`${goString(key)}:${json}`] : [])).join(',')}}`;
}

/** As Go writes a string: as JavaScript does, except for what could end a script, and half a surrogate pair, which it cannot hold. */
function goString(text: string): string {
  const escaped = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(Buffer.from(text).toString()).replace(/[<>&\u2028\u2029]/g, escaped);
}
