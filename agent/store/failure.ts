import { type ErrorCode, SnapshotError } from '../errors.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'STORAGE_FULL',
  EDQUOT: 'STORAGE_FULL',
  // Below the volume every path has been looked at: a link or a file where a directory was means that somebody swapped it.
  ELOOP: 'STORAGE_UNSAFE',
  ENOTDIR: 'STORAGE_UNSAFE',
};

/** Whether `thrown` is a system error with one of these symbolic names. */
export function hasErrno(thrown: unknown, ...names: readonly string[]): boolean {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' && names.includes(thrown.code);
}

/** A thrown value as the failure that leaves this room: SnapshotErrors unchanged, system errors by their name. */
export function storageFailure(thrown: unknown, doing: string): SnapshotError {
  if (thrown instanceof SnapshotError) return thrown;
  const errno = thrown instanceof Error && 'syscall' in thrown && 'code' in thrown ? String(thrown.code) : undefined;
  const code = errno === undefined ? 'INTERNAL' : (CODES[errno] ?? 'STORAGE_FAILED');
  return new SnapshotError(code, `${doing}: ${thrown instanceof Error ? thrown.message : String(thrown)}`, {
    cause: thrown,
  });
}

/** Runs `work`; what it throws leaves as a SnapshotError that says what was being done. */
export async function storageWork<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw storageFailure(thrown, doing);
  }
}
