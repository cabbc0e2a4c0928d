import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * CRIU for tests, without a container runtime: a private mount namespace over a throw-away overlay of the agent's root filesystem
 * (SNAPSHOT_AGENT_ROOT, default `.cache/agent-root`). The workload runs in a mount and PID namespace of its own inside it, so its images
 * carry a mount table, as a container's do.
 */

/** Where the test's agent lives. `exchange` is the same directory inside (`/exchange`) and outside. */
export interface CriuRoom {
  readonly exchange: string;
  readonly holder: number;
  /** Host PIDs of what was started or restored in the room: ended with it. */
  readonly started: number[];
  close(): void;
}

const MOUNT_ROOM = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$SCRATCH"
mkdir -p "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$SCRATCH/root"
cd "$SCRATCH/root"
mkdir -p exchange old native workload
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/shm && mount -t tmpfs -o nosuid,nodev,noexec tmpfs dev/shm
mount -t tmpfs tmpfs run
mount --bind "$EXCHANGE" exchange
mount --bind "$WORKLOAD" workload
[ -d "$NATIVE" ] && mount --bind "$NATIVE" native
pivot_root . old
umount -l old
: > /exchange/room-ready
exec sleep infinity
`;

/** The workload's own small set of mounts, then the workload as PID 1 of a new PID namespace. */
const START_WORKLOAD = `
set -e
umount -l /sys /native /run /proc/sys 2>/dev/null || true
umount -l /native 2>/dev/null || true
mount -t proc proc /proc
cd /
exec "$@" < /dev/null > /dev/null 2> /exchange/workload.err
`;

/** Starts the room. Needs root and the agent's root filesystem; a missing one is an error, never a skip. */
export async function openCriuRoom(): Promise<CriuRoom> {
  const lower = path.resolve(process.env['SNAPSHOT_AGENT_ROOT'] ?? '.cache/agent-root');
  if (!existsSync(path.join(lower, 'usr/sbin/criu'))) throw new Error(`no CRIU in ${lower}: set SNAPSHOT_AGENT_ROOT`);
  const base = mkdtempSync(path.join(tmpdir(), 'criu-room-'));
  const exchange = path.join(base, 'exchange');
  const scratch = path.join(base, 'scratch');
  mkdirSync(exchange);
  mkdirSync(scratch);
  execFileSync('gcc', ['-O2', '-static', '-o', path.join(base, 'criu-workload'), 'test/real/criu-workload.c']);
  const holder = spawn('unshare', ['-m', 'bash', '-c', MOUNT_ROOM], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      PATH: process.env['PATH'] ?? '',
      LOWER: lower,
      SCRATCH: scratch,
      EXCHANGE: exchange,
      WORKLOAD: base,
      NATIVE: path.resolve('native/build'),
    },
  });
  await until(() => existsSync(path.join(exchange, 'room-ready')), 'the room');
  const started: number[] = [];
  const close = () => {
    for (const pid of started) killQuietly(pid);
    holder.kill('SIGKILL');
    rmSync(base, { recursive: true, force: true });
  };
  return { exchange, holder: holder.pid ?? 0, started, close };
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

function inside(room: CriuRoom, argv: readonly string[]): string[] {
  return ['-t', String(room.holder), '-m', '-r', '-w', '--', ...argv];
}

/** Runs a program in the room and waits; throws with its output where it fails. */
function runInside(room: CriuRoom, argv: readonly string[]): string {
  const done = spawnSync('nsenter', inside(room, argv), { encoding: 'utf8', timeout: 120_000 });
  if (done.status !== 0) throw new Error(`${argv.join(' ')}: exit ${done.status}\n${done.stdout}${done.stderr}`);
  return done.stdout;
}

/** Starts a workload in namespaces of its own; resolves to its PID as the host sees it. */
export async function startWorkload(
  room: CriuRoom,
  argv: readonly string[],
): Promise<{ pid: number; unshare: ChildProcess }> {
  const unshare = spawn(
    'nsenter',
    inside(room, ['unshare', '-pfm', '--propagation', 'private', 'bash', '-c', START_WORKLOAD, 'x', ...argv]),
    {
      stdio: 'inherit',
    },
  );
  let pid = 0;
  await until(() => {
    pid = leafOf(unshare.pid ?? 0);
    return pid !== 0 && readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith(path.basename(argv[0] ?? '').slice(0, 15));
  }, 'the workload');
  room.started.push(pid);
  return { pid, unshare };
}

/** The first process below this one that is PID 1 of a PID namespace of its own; 0 while there is none. */
function leafOf(pid: number): number {
  const nspid = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]?.split(/\s+/) ?? [];
  if (nspid.length > 1 && nspid.at(-1) === '1') return pid;
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean);
  for (const child of children) {
    const found = leafOf(Number(child));
    if (found !== 0) return found;
  }
  return 0;
}

/** Waits for a condition, looking every 20 ms, for at most 60 s. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + 60_000;
  for (;;) {
    try {
      if (condition()) return;
    } catch {
      // What it looks at is not there yet.
    }
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(20);
  }
}

/** Mount points of a process except the root and what lies in /proc: these are external for CRIU. */
export function externalMounts(pid: number): string[] {
  const points = readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  return points.filter((point) => point !== '/' && !/^\/proc(\/|$)/.test(point));
}

const COMMON = ['--shell-job', '--tcp-established', '--file-locks', '--link-remap', '--manage-cgroups=ignore', '-v2'];

/** Dumps the tree at `pid` into /exchange/NAME and ends it. */
export function dump(room: CriuRoom, pid: number, name: string): void {
  mkdirSync(path.join(room.exchange, name));
  const external = externalMounts(pid).flatMap((point) => ['--external', `mnt[${point}]:${point}`]);
  runInside(room, [
    'criu',
    'dump',
    '-t',
    String(pid),
    '-D',
    `/exchange/${name}`,
    '-o',
    'dump.log',
    '--root',
    `/proc/${pid}/root`,
    ...external,
    ...COMMON,
    '--skip-in-flight',
    '--network-lock',
    'skip',
  ]);
}

/** Restores /exchange/NAME left stopped; resolves to the host PID of its root. `mounts` as at the dump. */
export async function restoreStopped(room: CriuRoom, name: string, mounts: readonly string[]): Promise<number> {
  const external = mounts.flatMap((point) => ['--external', `mnt[${point}]:${point}`]);
  const pidfile = `/exchange/${name}.pid`;
  mkdirSync(path.join(room.exchange, `${name}-work`));
  // A bind mount of the room's own root, private, is the new root: CRIU wants a mount point that is not its own root.
  const script = 'mkdir -p /run/ph && mount --rbind / /run/ph && mount --make-rprivate /run/ph && exec "$@"';
  runInside(room, [
    'unshare',
    '-m',
    '--propagation',
    'private',
    'bash',
    '-c',
    script,
    'x',
    'criu',
    'restore',
    '-D',
    `/exchange/${name}`,
    '-W',
    `/exchange/${name}-work`,
    '-o',
    'restore.log',
    '--root',
    '/run/ph',
    ...external,
    ...COMMON,
    '--leave-stopped',
    '-d',
    '--pidfile',
    pidfile,
  ]);
  const pid = Number(readFileSync(path.join(room.exchange, `${name}.pid`), 'utf8'));
  room.started.push(pid);
  return pid;
}
