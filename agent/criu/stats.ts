import { readOnlyEntry } from './images/file.ts';
import { big, inner, type Message, parseMessage, required, uint } from './images/wire.ts';

/** What CRIU measured of a dump. `frozenSeconds` is how long the tasks stood still for CRIU itself. */
export interface DumpStats {
  readonly freezingSeconds: number;
  readonly frozenSeconds: number;
  readonly memdumpSeconds: number;
  readonly memwriteSeconds: number;
  readonly pagesScanned: number;
  readonly pagesWritten: number;
}

/** What CRIU measured of a restore. `pagesCompared` and `pagesShared`: pages that parent and child have in common. */
export interface RestoreStats {
  readonly forkingSeconds: number;
  readonly restoreSeconds: number;
  readonly pagesCompared: number;
  readonly pagesShared: number;
  readonly pagesRestored: number;
}

const MICROSECONDS = 1_000_000;

async function readStats(file: string, part: 1 | 2): Promise<Message> {
  const message = parseMessage(await readOnlyEntry(file, 'stats'), file);
  return required(inner(message, part, file), message, part === 1 ? 'the dump' : 'the restore');
}

const seconds = (message: Message, number: number) =>
  required(uint(message, number), message, `field ${number}`) / MICROSECONDS;
const count = (message: Message, number: number) => Number(big(message, number) ?? 0n);

/** Reads CRIU's `stats-dump`. */
export async function readDumpStats(file: string): Promise<DumpStats> {
  const stats = await readStats(file, 1);
  return {
    freezingSeconds: seconds(stats, 1),
    frozenSeconds: seconds(stats, 2),
    memdumpSeconds: seconds(stats, 3),
    memwriteSeconds: seconds(stats, 4),
    pagesScanned: count(stats, 5),
    pagesWritten: count(stats, 7),
  };
}

/** Reads CRIU's `stats-restore`. */
export async function readRestoreStats(file: string): Promise<RestoreStats> {
  const stats = await readStats(file, 2);
  return {
    forkingSeconds: seconds(stats, 3),
    restoreSeconds: seconds(stats, 4),
    pagesCompared: count(stats, 1),
    pagesShared: count(stats, 2),
    pagesRestored: count(stats, 5),
  };
}
