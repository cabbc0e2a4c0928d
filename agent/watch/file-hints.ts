import { constants, type FSWatcher, watch } from 'node:fs';
import { lstat, open, readFile, readlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import type { Logger } from 'pino';

/** Watches at once; beyond it the one that has waited longest gives way. */
const MAX_WATCHES = 256;
/** A directory in which so much happens is not watched any longer: every event costs this process time. */
const MAX_EVENTS = 1_000;
/** Between two hints for one key: each makes somebody look, and a workload may write its file again and again. */
const HINT_PAUSE_MS = 250;
/** Of other filesystems inotify does not tell what other nodes do, and a server that is away would stop whoever touches them. */
const LOCAL_FILESYSTEMS = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs', 'zfs', 'tmpfs', 'overlay']);

/** Says early that a file may have come, so that nobody needs to poll quickly. Polling goes on all the same. */
export interface FileHints {
  /** The key waits for this file of the node to appear; undefined: it does not wait any more. Never throws. */
  awaited(key: string, file: string | undefined): void;
  /** Ends all watches. */
  close(): void;
}

export interface FileHintsInput {
  readonly lookAgain: (key: string) => void;
  readonly log: Logger;
  /** This process's mount table. */
  readonly mountTable?: string;
}

/**
 * Hints from inotify. The files lie in directories that belong to workloads, so nothing is read or listed there. This is why it is
 * not chokidar: it lists and watches every file of a directory, and a workload could use up the node's inotify watches with it. A
 * watch keeps no mount busy, and ends by itself when the directory goes.
 */
export function newFileHints({ lookAgain, log, mountTable = '/proc/self/mountinfo' }: FileHintsInput): FileHints {
  const waits = new Map<string, Wait>();
  const end = (key: string) => {
    waits.get(key)?.close();
    waits.delete(key);
  };
  return {
    awaited: (key, file) => {
      if (waits.get(key)?.file === file) return;
      end(key);
      if (file === undefined) return;
      const [oldest] = waits.keys();
      if (oldest !== undefined && waits.size >= MAX_WATCHES) end(oldest);
      const wait = new Wait(file, () => lookAgain(key));
      waits.set(key, wait);
      void wait.begin(mountTable).catch((err: unknown) => {
        wait.close();
        log.debug({ err, key, file }, 'the file is polled, not watched');
      });
    },
    close: () => {
      for (const key of [...waits.keys()]) end(key);
    },
  };
}

/** Somebody waits for one file. */
class Wait {
  readonly file: string;
  readonly #hint: () => void;
  #watcher: FSWatcher | undefined;
  #pause: NodeJS.Timeout | undefined;
  #isDue = false;
  #events = 0;
  #isOver = false;

  constructor(file: string, hint: () => void) {
    this.file = file;
    this.#hint = hint;
  }

  /** Throws why the file cannot be watched. */
  async begin(mountTable: string): Promise<void> {
    const [directory, name] = [dirname(this.file), basename(this.file)];
    requireLocal(await readFile(mountTable, 'utf8'), directory);
    const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    const opened = `/proc/self/fd/${handle.fd}`;
    try {
      const inFact = await readlink(opened);
      if (inFact !== directory) throw new Error(`a symlink leads to ${inFact}`);
      if (this.#isOver) return;
      // By the descriptor: what was looked at is what is watched, whatever the path has become since.
      this.#watcher = watch(opened, { persistent: false }, (_, changed) => this.#happened(changed === name));
      this.#watcher.on('error', () => this.close());
      // It may have come since it was looked for.
      await lstat(`${opened}/${name}`).then(
        () => this.#say(),
        () => undefined,
      );
    } finally {
      // At once: an open directory keeps its mount busy, a watch does not.
      await handle.close();
    }
  }

  close(): void {
    this.#isOver = true;
    this.#watcher?.close();
    clearTimeout(this.#pause);
  }

  #happened(isAwaited: boolean): void {
    this.#events += 1;
    if (isAwaited) this.#say();
    if (this.#events >= MAX_EVENTS) this.#watcher?.close();
  }

  #say(): void {
    if (this.#isOver) return;
    this.#isDue = this.#pause !== undefined;
    if (this.#isDue) return;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#isDue) this.#say();
    }, HINT_PAUSE_MS).unref();
    this.#hint();
  }
}

/** Looks only at the mount table: touching a directory on a server that is away would stop this process. */
function requireLocal(mountTable: string, directory: string): void {
  let nearest = { point: '', type: 'nothing' };
  for (const line of mountTable.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const point = unescaped(before.split(' ')[4] ?? '');
    const isAbove = point === '/' || directory === point || directory.startsWith(`${point}/`);
    // The later of two mounts on one point lies on top.
    if (point !== '' && isAbove && point.length >= nearest.point.length)
      nearest = { point, type: after.split(' ')[0] ?? '' };
  }
  if (!LOCAL_FILESYSTEMS.has(nearest.type)) throw new Error(`${directory} lies on ${nearest.type}`);
}

/** The table has blanks and backslashes as octal numbers (proc(5)). */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
