import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A process as it is to be seen; what is left out is that of a plain sleeping process. */
export interface FakeProcess {
  readonly pid: number;
  readonly comm?: string;
  readonly state?: string;
  readonly start?: number;
  readonly ppid?: number;
  readonly nspid?: readonly number[];
  readonly children?: readonly number[];
  /** Children that another thread made: thread → children. */
  readonly threadChildren?: Readonly<Record<number, readonly number[]>>;
  readonly status?: Readonly<Record<string, string>>;
  readonly fds?: Readonly<Record<number, string>>;
  /** Other files below its directory. */
  readonly files?: Readonly<Record<string, string>>;
}

export interface Procfs {
  readonly root: string;
  add(process: FakeProcess): Promise<void>;
  /** Writes a file at a path relative to the tree. */
  write(path: string, text: string): Promise<void>;
  drop(pid: number): Promise<void>;
  remove(): Promise<void>;
}

export function statLine(process: FakeProcess): string {
  const { pid, comm = 'worker', state = 'S', ppid = 1, start = 1000 } = process;
  const rest = [state, ppid, ...Array<number>(17).fill(0), start, ...Array<number>(30).fill(0)];
  return `${pid} (${comm}) ${rest.join(' ')}\n`;
}

/** A directory that looks like procfs. */
export async function makeProcfs(processes: readonly FakeProcess[] = []): Promise<Procfs> {
  const root = await mkdtemp(join(tmpdir(), 'procfs-'));
  const write = async (path: string, text: string) => {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  };
  const add = async (process: FakeProcess) => {
    const {
      pid,
      comm = 'worker',
      nspid = [pid, 1],
      children = [],
      threadChildren = {},
      fds = {},
      files = {},
    } = process;
    const status = {
      Name: comm,
      TracerPid: '0',
      NSpid: nspid.join('\t'),
      Threads: '1',
      Seccomp: '0',
      ...process.status,
    };
    await write(`${pid}/stat`, statLine(process));
    await write(
      `${pid}/status`,
      Object.entries(status)
        .map(([key, value]) => `${key}:\t${value}\n`)
        .join(''),
    );
    for (const [thread, made] of Object.entries({ [pid]: children, ...threadChildren }))
      await write(`${pid}/task/${thread}/children`, made.map((child) => `${child} `).join(''));
    await mkdir(join(root, `${pid}/fd`), { recursive: true });
    for (const [fd, target] of Object.entries(fds)) await symlink(target, join(root, `${pid}/fd/${fd}`));
    for (const [path, text] of Object.entries(files)) await write(`${pid}/${path}`, text);
  };
  for (const process of processes) await add(process);
  return {
    root,
    add,
    write,
    drop: (pid) => rm(join(root, `${pid}`), { recursive: true }),
    remove: () => rm(root, { recursive: true, force: true }),
  };
}
