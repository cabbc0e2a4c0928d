import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncDirectory } from '../store/files.ts';
import type { JournalEntry } from './journal-file.ts';

/**
 * What the end of the file is like. `torn`: behind its good part there may be half a line. `unsure`: it could not be synced, and the
 * kernel may have dropped what it had not yet written: only a new file is known to be whole.
 */
type Tail = 'good' | 'torn' | 'unsure';

/** The file of the journal. One call at a time. */
export class JournalWriter {
  readonly #path: string;
  #file: FileHandle;
  #bytes: number;
  #tail: Tail = 'good';
  /** Whether its name would outlive a crash of the node. */
  #isNamed = false;

  private constructor(path: string, made: { readonly file: FileHandle; readonly bytes: number }) {
    this.#path = path;
    this.#file = made.file;
    this.#bytes = made.bytes;
  }

  /** Writes the file anew with these entries, whole or not at all, and goes on behind them. */
  static async create(path: string, entries: readonly JournalEntry[]): Promise<JournalWriter> {
    const writer = new JournalWriter(path, await replaceFile(path, entries));
    try {
      await writer.#settleName();
      return writer;
    } catch (thrown) {
      await writer.close();
      throw thrown;
    }
  }

  /** The length of what is good of it. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether it can only be gone on with after `rewrite`. */
  get needsRewrite(): boolean {
    return this.#tail === 'unsure';
  }

  /** Writes one more line, on disk where it must be durable. After a failure the next call begins where the good part ends. */
  async append(entry: JournalEntry, isDurable: boolean): Promise<void> {
    if (this.#tail === 'unsure') throw new Error('its last line could not be synced');
    await this.#settleName();
    if (this.#tail === 'torn') await this.#file.truncate(this.#bytes);
    const line = Buffer.from(`${JSON.stringify(entry)}\n`);
    this.#tail = 'torn';
    await this.#file.appendFile(line);
    if (isDurable) {
      this.#tail = 'unsure';
      await this.#file.datasync();
    }
    this.#tail = 'good';
    this.#bytes += line.length;
  }

  /** Puts a new file with these entries in the place of this one. Where that fails, the old one stays, and is gone on with. */
  async rewrite(entries: readonly JournalEntry[]): Promise<void> {
    const made = await replaceFile(this.#path, entries);
    const old = this.#file;
    this.#file = made.file;
    this.#bytes = made.bytes;
    this.#tail = 'good';
    this.#isNamed = false;
    // What it held is in the new one.
    await old.close().catch(() => undefined);
    // Before the next line at the latest.
    await this.#settleName().catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #settleName(): Promise<void> {
    if (this.#isNamed) return;
    await syncDirectory(dirname(this.#path));
    this.#isNamed = true;
  }
}

/** The handle is that of the new file from the beginning: nothing can come between its new name and its opening. */
async function replaceFile(path: string, entries: readonly JournalEntry[]) {
  const temporary = `${path}.new`;
  // A crash left it.
  await rm(temporary, { force: true });
  const file = await open(temporary, 'ax', 0o600);
  try {
    const content = Buffer.from(entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
    await file.writeFile(content);
    await file.sync();
    await rename(temporary, path);
    return { file, bytes: content.length };
  } catch (thrown) {
    await file.close();
    await rm(temporary, { force: true }).catch(() => undefined);
    throw thrown;
  }
}
