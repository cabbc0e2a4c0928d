import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { scratch, start, until } from './programs.ts';

const treeProgram = resolve('test/native/overlay-tree.py');

/** A process that is PID 1 of its own PID and mount namespaces, with an overlay as its root. */
export interface OverlayContainer {
  readonly target: string[];
  readonly pid: number;
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

/** Starts a container over a lower layer. `options`: of the overlay mount; `setup`: shell, inside, before it is ready. */
export async function startOverlay(
  lower: string,
  { options = '', setup = '' }: { options?: string; setup?: string } = {},
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
  const started = await start(['unshare', '-m', '-p', '-f', '--propagation', 'private', 'sh', '-ec', script], {
    generation: 1,
    comm: 'busybox',
  });
  await until(() => readFileSync(`/proc/${started.pid}/cmdline`, 'utf8').split('\0')[1] === 'sleep');
  return { pid: started.pid, target: started.target, root: `/proc/${started.pid}/root`, upper: join(host, 'upper') };
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
