import { pause } from '../../kube/backoff.ts';
import { CommandError } from '../failure.ts';
import { ensureRecordKey, type RecordKeyWanted } from './record-key.ts';
import type { SecretReport } from './report.ts';
import { SecretChanged, type SecretStore } from './secret-store.ts';
import { ensureTls, type TlsWanted } from './tls.ts';

export interface CredentialsWanted {
  readonly recordKey?: RecordKeyWanted | undefined;
  readonly tls?: TlsWanted | undefined;
}

export interface EnsureInput {
  readonly secrets: SecretStore;
  readonly nowMs: () => number;
  readonly signal: AbortSignal;
  /** Each Secret as soon as it is done. */
  readonly report: (report: SecretReport) => void;
}

/** So many others may write the same Secrets in between. */
const TRIES = 10;
const PAUSE_MS = 50;

/**
 * Makes what is not there, and brings what is there one step further where it is due. Safe at any time, also several at once. The record
 * key and the certificates are looked after each for itself: where one cannot be, the other is all the same. Throws CommandError.
 */
export async function ensureCredentials(wanted: CredentialsWanted, input: EnsureInput): Promise<void> {
  const { recordKey, tls } = wanted;
  const works = [
    recordKey && ((tries: Tries) => ensureRecordKey(recordKey, input, tries)),
    tls && ((tries: Tries) => ensureTls(tls, input, tries)),
  ].filter((work) => work !== undefined);
  const failures: unknown[] = [];
  for (const work of works)
    try {
      for (const report of await untilWritten(work, input.signal)) input.report(report);
    } catch (error) {
      failures.push(error);
    }
  if (failures.length === 0) return;
  const [first] = failures;
  if (failures.length === 1 || !failures.every((one) => one instanceof CommandError)) throw first;
  throw new CommandError((first as CommandError).exit, failures.map((one) => (one as CommandError).message).join('\n'));
}

/** What was done by earlier tries of one run, so that nothing is done twice because somebody else wrote in between. */
export interface Tries {
  readonly done: Map<string, SecretReport>;
}

async function untilWritten(
  work: (tries: Tries) => Promise<readonly SecretReport[]>,
  signal: AbortSignal,
): Promise<readonly SecretReport[]> {
  const tries: Tries = { done: new Map() };
  for (let count = 1; ; count += 1)
    try {
      return await work(tries);
    } catch (error) {
      if (!(error instanceof SecretChanged)) throw error;
      if (count === TRIES)
        throw new CommandError(
          'failed',
          `Secret ${error.message} changes all the time: run it again, and see who writes it`,
        );
      await pause(Math.random() * PAUSE_MS * count, signal);
      signal.throwIfAborted();
    }
}
