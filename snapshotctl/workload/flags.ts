import { Option } from 'commander';
import { checkpointIdProblem } from '../../contract/names.ts';
import { SECCOMP_PROFILE } from '../../contract/seccomp.ts';
import { CommandError } from '../failure.ts';
import { parseDuration } from './duration.ts';

const DEFAULT_TIMEOUT_MS = 45 * 60_000;

export const newTimeoutOption = (what: string) =>
  new Option('--timeout <time>', what).default(DEFAULT_TIMEOUT_MS, '45m').argParser(parseDuration);

export const newSeccompOption = () =>
  new Option(
    '--seccomp-profile <file>',
    'profile of the node that the pod runs under; "none": as the manifest says',
  ).default(SECCOMP_PROFILE);

/** The profile that a flag means. */
export function seccompProfileOf(flag: string): string | undefined {
  return flag === 'none' ? undefined : flag;
}

/** Throws CommandError `usage`. */
export function requireTimeout(timeoutMs: number): void {
  if (timeoutMs <= 0) throw new CommandError('usage', '--timeout must be greater than zero');
}

/** Throws CommandError `usage`. */
export function requireCheckpointId(id: string): void {
  const problem = checkpointIdProblem(id);
  if (problem !== undefined) throw new CommandError('usage', `--checkpoint-id "${id}" ${problem}`);
}

/** Refuses words that are no flags. Throws CommandError `usage`. */
export function requireNoArguments(words: readonly string[]): void {
  if (words.length > 0) throw new CommandError('usage', `unexpected arguments: [${words.join(' ')}]`);
}
