import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Subject, scratch, start, until } from './programs.ts';

const treeProgram = resolve('test/native/overlay-tree.py');

/** A process that is PID 1 of its own PID and mount namespaces, with an overlay as its root. */
export interface OverlayContainer extends Subject {
  /** Its merged tree, seen from outside. */
  readonly root: string;
  readonly upper: string;
}

/** A directory with the lower layer in it, and with what one busybox needs to live there. */
export function lowerLayer(): string {
  const host = scratch();
  const lower = join(host, 'lower');
  mkdirSync(lower);
  tree('lower', lower);
  copyFileSync('/bin/busybox', join(lower, 'bin/busybox'));
  return lower;
}

export interface OverlayOptions {
  /** Of the overlay mount, with the comma before them. */
  readonly options?: string;
  /** Shell, inside, before it is ready. */
  readonly setup?: string;
  /** Shell, before any namespace is made. */
  readonly before?: string;
  /** More namespaces: options of unshare. */
  readonly unshare?: readonly string[];
  /** A program that runs the rest as its only child. */
  readonly prefix?: readonly string[];
}

/** Starts a container over a lower layer. */
export async function startOverlay(
  lower: string,
  { options = '', setup = '', before = '', unshare = [], prefix = [] }: OverlayOptions = {},
): Promise<OverlayContainer> {
  const host = scratch();
  const script = `
    cd "${host}" && mkdir upper work merged
    mount -t overlay overlay -o "lowerdir=${lower},upperdir=${host}/upper,workdir=${host}/work${options}" merged
    cd merged && mount -t proc proc proc && pivot_root . old && exec /bin/busybox sh -ec '
      busybox() { /bin/busybox "$@"; }
      busybox umount -l /old
      ${setup}
      exec /bin/busybox sleep 1000000'`;
  const namespaces = ['unshare', '-m', '-p', '-f', '--propagation', 'private', ...unshare];
  const argv = [...prefix, 'sh', '-ec', `${before}\nexec "$@"`, 'sh', ...namespaces, 'sh', '-ec', script];
  const started = await start(argv, { generation: prefix.length > 0 ? 2 : 1, comm: 'busybox' });
  await until(() => readFileSync(`/proc/${started.pid}/cmdline`, 'utf8').split('\0')[1] === 'sleep');
  return { ...started, root: `/proc/${started.pid}/root`, upper: join(host, 'upper') };
}

/** Runs overlay-tree.py on a directory. `show`: one JSON object per file, in order of their paths. */
export function tree(action: 'lower' | 'change' | 'conflict' | 'show', directory: string): Record<string, unknown>[] {
  const output = execFileSync('python3', [treeProgram, action, directory], {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    cwd: '/',
  });
  return output
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
