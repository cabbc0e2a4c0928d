import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SnapshotError } from '../errors.ts';
import {
  entrySchema,
  isOutcome,
  type JournalEntry,
  lastOfOpen,
  readEntries,
  stillArmed,
  worthKeeping,
} from './journal-file.ts';
import { JournalWriter } from './journal-writer.ts';

export type { JournalEntry } from './journal-file.ts';

/** What the caller says; number, time and boot are the journal's. */
export type Transition = Omit<JournalEntry, 'seq' | 'at' | 'bootId' | 'details'> & {
  readonly details?: Readonly<Record<string, unknown>>;
};

export interface Journal {
  /** What was wrong with the file when it was opened; each is to be logged loudly. */
  readonly warnings: readonly string[];
  /** Resolves once the transition is on disk (a mere step: written). Transitions are written in the order of the calls. */
  append(transition: Transition): Promise<JournalEntry>;
  /** The last transition of each operation of this boot that has not ended. */
  openOperations(): JournalEntry[];
  /** Whether an operation of this boot said that it cannot be undone any more. */
  passedNoReturn(operationId: string): boolean;
  /** What was written down of an operation besides its transitions; undefined where nothing was. */
  noteOf(operationId: string): unknown;
  /** The last note of an operation of this boot about the CUDA processes that it locks. */
  cudaHeldBy(operationId: string): JournalEntry | undefined;
  /** How every operation that is known ended. */
  outcomes(): JournalEntry[];
  /** How the last operation on a container ended, or undefined where none did, in this boot or an earlier one. */
  outcomeOf(containerId: string): JournalEntry | undefined;
  /**
   * The last refusal of a restore for this container of a pod, whichever container id it had, of this boot or an earlier one; or the last
   * that found its artifact damaged when it was too late to refuse it.
   */
  refusalOf(podUid: string, container: string): JournalEntry | undefined;
  /** The restored containers of this boot whose process is to be guarded: armed, and not ended. */
  restoredContainers(): JournalEntry[];
  close(): Promise<void>;
}

export interface JournalRequest {
  readonly path: string;
  readonly bootId: string;
  /** The file is not written anew before it has so many bytes. */
  readonly compactFrom?: number;
}

/** From here on entries without further use are forgotten in memory, before the file forgets them. */
const FORGET_FROM = 10_000;
const COMPACT_FROM = 16 << 20;
/** The file is written anew when it has grown to this many times what was kept the last time: most of it is of no more use. */
const GROWTH = 4;

/** Opens the journal, reads it, and writes it anew with what is still useful. */
export async function openJournal({ path, bootId, compactFrom = COMPACT_FROM }: JournalRequest): Promise<Journal> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const read = await readEntries(path);
    const entries = worthKeeping(read.entries, bootId);
    const seq = read.entries.reduce((highest, entry) => Math.max(highest, entry.seq), 0);
    const writer = await JournalWriter.create(path, entries);
    return new FileJournal({ bootId, entries, seq, warnings: read.warnings, writer, compactFrom });
  } catch (thrown) {
    throw new SnapshotError('INTERNAL', `cannot open the journal ${path}: ${String(thrown)}`, { cause: thrown });
  }
}

interface Opened {
  readonly bootId: string;
  readonly entries: readonly JournalEntry[];
  readonly seq: number;
  readonly warnings: readonly string[];
  readonly writer: JournalWriter;
  readonly compactFrom: number;
}

class FileJournal implements Journal {
  readonly warnings: readonly string[];
  readonly #bootId: string;
  readonly #writer: JournalWriter;
  readonly #compactFrom: number;
  #entries: JournalEntry[] = [];
  /** By container: it is asked for at every look at a pod. */
  readonly #outcomes = new Map<string, JournalEntry>();
  #forgetAt = FORGET_FROM;
  #compactAt: number;
  #seq: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(opened: Opened) {
    this.warnings = opened.warnings;
    this.#bootId = opened.bootId;
    this.#writer = opened.writer;
    this.#compactFrom = opened.compactFrom;
    this.#compactAt = this.#nextCompaction();
    this.#seq = opened.seq;
    for (const entry of opened.entries) this.#take(entry);
  }

  append(transition: Transition): Promise<JournalEntry> {
    const written = this.#last.then(() => this.#write(transition));
    this.#last = written.catch(() => {});
    return written;
  }

  openOperations(): JournalEntry[] {
    return lastOfOpen(this.#ofThisBoot());
  }

  passedNoReturn(operationId: string): boolean {
    return this.#ofThisBoot().some(
      (entry) => entry.operationId === operationId && entry.state === 'point-of-no-return',
    );
  }

  noteOf(operationId: string): unknown {
    return this.#entries.findLast((entry) => entry.operationId === operationId && entry.details['operation'])?.details[
      'operation'
    ];
  }

  cudaHeldBy(operationId: string): JournalEntry | undefined {
    return this.#ofThisBoot().findLast((entry) => entry.operationId === operationId && entry.state === 'cuda-held');
  }

  outcomes(): JournalEntry[] {
    return this.#entries.filter(isOutcome);
  }

  outcomeOf(containerId: string): JournalEntry | undefined {
    return this.#outcomes.get(containerId);
  }

  refusalOf(podUid: string, container: string): JournalEntry | undefined {
    const isSame = (entry: JournalEntry) => entry.pod.uid === podUid && entry.container === container;
    const isHopeless = ({ state, details }: JournalEntry) =>
      state === 'refused' || details['code'] === 'ARTIFACT_CORRUPT';
    return this.#entries.findLast((entry) => entry.kind === 'restore' && isHopeless(entry) && isSame(entry));
  }

  restoredContainers(): JournalEntry[] {
    return stillArmed(this.#ofThisBoot());
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#writer.close();
  }

  async #write(transition: Transition): Promise<JournalEntry> {
    const entry = this.#entryOf(transition);
    try {
      // What failed may pass: a full disk has room again.
      if (this.#writer.needsRewrite) await this.#writer.rewrite(this.#entries);
      // Steps only matter to this boot, and a killed agent loses nothing that it has written: only what outlives a boot is synced.
      await this.#writer.append(entry, entry.state !== 'step');
    } catch (cause) {
      throw new SnapshotError('INTERNAL', `the journal cannot be written: ${String(cause)}`, { cause });
    }
    this.#seq = entry.seq;
    this.#take(entry);
    if (this.#writer.bytes >= this.#compactAt) await this.#compact();
    else if (this.#entries.length >= this.#forgetAt) this.#forget();
    return entry;
  }

  #take(entry: JournalEntry): void {
    this.#entries.push(entry);
    if (isOutcome(entry)) this.#outcomes.set(entry.containerKey.containerId, entry);
  }

  /** The transitions that come meanwhile wait their turn. */
  async #compact(): Promise<void> {
    this.#forget();
    // Where it fails the old file goes on to be written; not again at every entry.
    await this.#writer.rewrite(this.#entries).catch(() => undefined);
    this.#compactAt = this.#nextCompaction();
  }

  #nextCompaction(): number {
    return Math.max(this.#compactFrom, GROWTH * this.#writer.bytes);
  }

  #forget(): void {
    const kept = worthKeeping(this.#entries, this.#bootId);
    this.#entries = [];
    this.#outcomes.clear();
    for (const entry of kept) this.#take(entry);
    // Where nearly all of it is of use, the next round has as much to do: not at every entry.
    this.#forgetAt = Math.max(FORGET_FROM, 2 * kept.length);
  }

  #entryOf(transition: Transition): JournalEntry {
    const stamp = { seq: this.#seq + 1, at: new Date().toISOString(), bootId: this.#bootId };
    const checked = entrySchema.safeParse({ ...stamp, details: {}, ...transition });
    if (checked.success) return checked.data;
    throw new SnapshotError('INTERNAL', `a transition cannot be journalled: ${checked.error.message}`);
  }

  #ofThisBoot(): JournalEntry[] {
    return this.#entries.filter((entry) => entry.bootId === this.#bootId);
  }
}
