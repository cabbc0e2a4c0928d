import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { eventually } from './host.ts';

export interface ProcessView {
  readonly pid: number;
  readonly parent: number;
  readonly state: string;
  /** PIDs from the host's PID namespace to the process's own. */
  readonly nspid: readonly number[];
  readonly command: string;
  readonly cgroups: string;
}

function view(pid: number): ProcessView | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '';
    return {
      pid,
      parent: Number(field('PPid')),
      state: field('State').slice(0, 1),
      nspid: field('NSpid').split(/\s+/).map(Number),
      command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() || `[${field('Name')}]`,
      cgroups: readFileSync(`/proc/${pid}/cgroup`, 'utf8'),
    };
  } catch {
    return undefined; // It ended meanwhile.
  }
}

/** All processes of this machine. */
export function processes(): ProcessView[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => view(Number(name)))
    .filter((one) => one !== undefined);
}

/** The inode that names a namespace of a process, such as `net:[4026531840]`. */
export function namespaceOf(
  pid: number,
  kind: 'mnt' | 'pid' | 'net' | 'ipc' | 'uts' | 'cgroup' | 'user' | 'time',
): string {
  return readlinkSync(`/proc/${pid}/ns/${kind}`);
}

/** Kills processes with SIGKILL until none is left. `find` is asked again, as processes can have children meanwhile. */
export async function killAll(what: string, find: () => readonly ProcessView[]): Promise<void> {
  await eventually(
    `the end of ${what}`,
    () => {
      const left = find().filter((one) => one.state !== 'Z');
      for (const one of left) {
        try {
          process.kill(one.pid, 'SIGKILL');
        } catch {
          // It ended meanwhile.
        }
      }
      return left.length === 0 ? true : undefined;
    },
    {
      explain: () =>
        find()
          .map((one) => `${one.pid} ${one.command}`)
          .join('\n'),
    },
  );
}
