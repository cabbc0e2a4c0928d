/** Why a checkpoint will not become ready by itself. */
export interface Failure {
  readonly reason: string;
  readonly message: string;
}

/** How the workers of a generation came to run. */
type StartedAs = 'cold' | 'restored';

export interface Started {
  /** Of workers, as its hash. */
  readonly generation: string;
  readonly as: StartedAs;
}

type StartupPolicy = 'Immediate' | 'WaitForCheckpoint';

/** What the workers of a service do. */
export type Start =
  /** They start as they are written. */
  | { readonly kind: 'cold' }
  /** They start as they are written, and those that are made once the checkpoint is ready are restored. */
  | { readonly kind: 'candidate'; readonly checkpoint: string; readonly policy: StartupPolicy }
  /** There are none yet. `failure`: nor will there be, unless somebody does something. */
  | { readonly kind: 'held'; readonly failure: Failure | undefined }
  /** All of them are restored. */
  | { readonly kind: 'restored'; readonly id: string; readonly version: string; readonly targets: readonly string[] }
  /** They were restored, and stay what they are while the checkpoint is not there. */
  | { readonly kind: 'kept' };

export interface StartFacts {
  readonly policy: StartupPolicy;
  /** Of the DynamoCheckpoint; undefined where there is none to be. */
  readonly name: string | undefined;
  readonly ready: { readonly id: string; readonly version: string; readonly targets: readonly string[] } | undefined;
  readonly failure: Failure | undefined;
  readonly started: Started | undefined;
  readonly fallback: 'Wait' | 'ColdStart';
}

/**
 * What the workers of a service with a checkpoint do. A generation that was started stays started, and as it was: no worker is ended
 * because its checkpoint became ready, failed, or went. Pure.
 */
export function startOf({ policy, name, ready, failure, started, fallback }: StartFacts): Start {
  const cold: Start = name === undefined ? { kind: 'cold' } : { kind: 'candidate', checkpoint: name, policy };
  if (policy === 'Immediate' || started?.as === 'cold') return cold;
  if (ready !== undefined) return { kind: 'restored', ...ready };
  if (started?.as === 'restored') return { kind: 'kept' };
  if (failure !== undefined && fallback === 'ColdStart') return cold;
  return { kind: 'held', failure };
}
