import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { watch } from 'chokidar';
import type { Logger } from 'pino';
import { type Config, type LiveConfig, parseConfig } from './config.ts';
import { type Merged, mergeLive } from './config-live.ts';
import { originalKeyWarnings } from './config-original.ts';
import { asSnapshotError } from './errors.ts';

/** One change of the file makes several events. Text counts when it has stayed the same for this long, too: half a number is a number. */
const QUIET_MS = 200;
/** Without any event, too: where the node has no inotify watches left, and where the directory itself was replaced. */
const REREAD_MS = 30_000;

export interface ConfigFile {
  readonly path: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What was read at the start. */
  readonly first: Config;
  /** Its level follows the configuration. Children that live on must not be made from it: they keep the level they began with. */
  readonly log: Logger;
  /** `needs-restart`: valid, but a part waits for a restart. `refused`: wrong or gone, and the agent goes on with what it had. */
  readonly reloaded: (result: 'applied' | 'needs-restart' | 'refused') => void;
  /** For tests. */
  readonly rereadMs?: number;
}

/**
 * The configuration, read again when its file changes, until the signal. What can change while the agent runs counts at once
 * (LIVE_KEYS); the log says what that was, and what waits for a restart. A file that is wrong is refused as a whole. Never throws.
 */
export function watchConfig(file: ConfigFile, signal: AbortSignal): LiveConfig {
  const reloading = new Reloading(file, signal);
  let quiet: NodeJS.Timeout | undefined;
  const lookSoon = () => {
    clearTimeout(quiet);
    if (!signal.aborted) quiet = setTimeout(() => reloading.look(), QUIET_MS);
  };
  const { rereadMs = REREAD_MS } = file;
  const path = resolve(file.path);
  // The directory and not the file: kubelet swaps the symlink `..data`, others rename a new file over the old one.
  const watched = new Set([dirname(path), path, join(dirname(path), '..data')]);
  const watcher = watch(dirname(path), { depth: 0, ignored: (seen) => !watched.has(seen) });
  watcher.on('all', lookSoon);
  let isWatched = true;
  watcher.on('error', (err) => {
    if (isWatched)
      file.log.warn({ err, path, rereadMs }, 'the configuration file cannot be watched: it is read now and then');
    isWatched = false;
  });
  const always = setInterval(() => reloading.look(), rereadMs).unref();
  const close = () => {
    clearTimeout(quiet);
    clearInterval(always);
    void watcher.close();
  };
  signal.addEventListener('abort', close, { once: true });
  if (signal.aborted) close();
  return { current: () => reloading.current };
}

class Reloading {
  readonly #file: ConfigFile;
  readonly #signal: AbortSignal;
  #current: Config;
  /** What was in the file last; undefined where it could not be read, null where it was not read yet. Nothing is said twice. */
  #text: string | undefined | null = null;
  #isRefused = false;
  /** What waits for a restart, by its key. */
  #waiting: ReadonlyMap<string, string> = new Map();
  #looking: Promise<void> | undefined;
  #isAskedAgain = false;

  constructor(file: ConfigFile, signal: AbortSignal) {
    this.#file = file;
    this.#signal = signal;
    this.#current = file.first;
  }

  get current(): Config {
    return this.#current;
  }

  /** Reads the file; one look after the other. */
  look(): void {
    if (this.#looking !== undefined) this.#isAskedAgain = true;
    this.#looking ??= this.#lookUntilSettled().finally(() => {
      this.#looking = undefined;
    });
  }

  async #lookUntilSettled(): Promise<void> {
    do {
      this.#isAskedAgain = false;
      const seen = await readText(this.#file.path);
      if (seen.text !== this.#text) {
        await sleep(QUIET_MS, undefined, { ref: false });
        if ((await readText(this.#file.path)).text === seen.text) this.#take(seen);
        else this.#isAskedAgain = true;
      }
    } while (this.#isAskedAgain && !this.#signal.aborted);
  }

  #take({ text, problem }: Seen): void {
    if (this.#signal.aborted) return;
    this.#text = text;
    if (text === undefined) {
      this.#refuse();
      this.#file.log.warn(
        { path: this.#file.path, problem },
        'the configuration file cannot be read: what was in force stays',
      );
      return;
    }
    let merged: Merged;
    try {
      merged = mergeLive(this.#current, parseConfig(text, this.#file.env));
    } catch (error) {
      this.#refuse();
      const wrong = oneLine(asSnapshotError(error).message);
      this.#file.log.error(
        { path: this.#file.path, problem: wrong },
        'the configuration file is refused: what was in force stays',
      );
      return;
    }
    this.#apply(merged);
  }

  #refuse(): void {
    this.#isRefused = true;
    this.#file.reloaded('refused');
  }

  #apply(merged: Merged): void {
    const wasRefused = this.#isRefused;
    this.#isRefused = false;
    const before = this.#current;
    this.#current = merged.config;
    const isNews = this.#say(merged, before);
    if (wasRefused) this.#file.log.info({ path: this.#file.path }, 'the configuration file is in force again');
    if (!isNews && !wasRefused)
      this.#file.log.debug({ path: this.#file.path }, 'the configuration file says nothing new');
    else this.#file.reloaded(merged.waiting.length > 0 ? 'needs-restart' : 'applied');
  }

  /** Says what is new; whether there was anything. */
  #say({ config, changed, waiting }: Merged, before: Config): boolean {
    const { log } = this.#file;
    const known = this.#waiting;
    this.#waiting = new Map(waiting.map(({ key, wanted }) => [key, wanted]));
    const newlyWaiting = waiting.filter(({ key, wanted }) => known.get(key) !== wanted);
    const takenBack = [...known.keys()].filter((key) => !this.#waiting.has(key));
    const old = new Set(warningsOf(before));
    atLouder(log, config.logLevel, () => {
      if (changed.length > 0) log.info({ changed: changed.map(({ text }) => text) }, 'configuration changed');
      if (newlyWaiting.length > 0)
        log.warn(
          { waiting: newlyWaiting.map(({ text }) => text) },
          'changes of the configuration wait for a restart of the agent',
        );
      if (takenBack.length > 0) log.info({ keys: takenBack }, 'these keys need no restart any more');
      for (const warning of warningsOf(config)) if (!old.has(warning)) log.warn({ warning }, 'configuration');
    });
    return changed.length + newlyWaiting.length + takenBack.length > 0;
  }
}

interface Seen {
  readonly text: string | undefined;
  /** Why there is no text. */
  readonly problem?: string;
}

function readText(path: string): Promise<Seen> {
  return readFile(path, 'utf8').then(
    (text) => ({ text }),
    (error: unknown) => ({ text: undefined, problem: String(error) }),
  );
}

function warningsOf({ criu, restore }: Config): string[] {
  return originalKeyWarnings(criu, restore.nsRestorePath);
}

/** Speaks at the old or the new level, whichever lets more through: otherwise the line that tells of a quieter log would be missing. */
function atLouder(log: Logger, level: Config['logLevel'], speak: () => void): void {
  const { values } = log.levels;
  const isQuieter = (values[level] ?? 0) > log.levelVal;
  if (!isQuieter) log.level = level;
  speak();
  log.level = level;
}

/** All wrong keys in one line. What follows an empty line is left out: the YAML parser quotes the file there, secrets and all. */
function oneLine(message: string): string {
  const [first = ''] = message.split('\n\n');
  return first.split(/\n\s*/).join('; ');
}
