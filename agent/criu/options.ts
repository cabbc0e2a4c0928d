/** CRIU's command lines: pure functions of what was seen, so that tests can read them. Each option's reason stands beside it. */

/** Name under which the container's network namespace is handed to CRIU, at dump and restore. */
export const NETWORK_KEY = 'extNetNs';

interface CommonOptions {
  readonly binary: string;
  readonly imagesDir: string;
  readonly workDir: string;
  readonly logLevel: number;
}

export interface DumpOptions extends CommonOptions {
  readonly pid: number;
  readonly rootPath: string;
  readonly netInode: number;
  readonly externalMounts: readonly string[];
  /** Mounts that are left out of the images. Nothing in the tree may hold a file there. */
  readonly skippedMounts: readonly string[];
  /** `RDEV:DEV` in hex of the terminal at fd 0, for a container with one. */
  readonly tty: string | undefined;
  readonly ghostLimit: number;
  readonly irmapScanPaths: readonly string[];
  readonly actionScript: string;
  readonly leaveRunning: boolean;
}

/** Arguments that checkpoint and restore must agree on. */
const SHARED = [
  // The container's session leader may have its terminal or pipes outside.
  '--shell-job',
  // Connections inside the container go on; those to outside are closed in the images before a restore.
  '--tcp-established',
  '--file-locks',
  // Deleted files with other names left, and POSIX semaphores.
  '--link-remap',
  // The restored tree joins the placeholder's cgroups; an artifact has no say in it.
  '--manage-cgroups=ignore',
  // An overlay cannot open by handle what inotify watches.
  '--force-irmap',
];

/** Arguments of `criu dump`. */
export function dumpArguments(options: DumpOptions): string[] {
  return [
    ...frame('dump', options, 'dump.log'),
    '-t',
    `${options.pid}`,
    '--root',
    options.rootPath,
    ...options.externalMounts.flatMap((path) => ['--external', `mnt[${path}]:${path}`]),
    ...options.skippedMounts.flatMap((path) => ['--skip-mnt', path]),
    '--external',
    `net[${options.netInode}]:${NETWORK_KEY}`,
    ...(options.tty === undefined ? [] : ['--external', `tty[${options.tty}]`]),
    ...SHARED,
    '--skip-in-flight',
    '--ghost-limit',
    `${options.ghostLimit}`,
    // Locking needs iptables or nftables; peers outside are cut off anyway, those inside are frozen.
    '--network-lock',
    'skip',
    ...options.irmapScanPaths.flatMap((path) => ['--irmap-scan-path', path]),
    '--action-script',
    options.actionScript,
    ...(options.leaveRunning ? ['--leave-running'] : []),
  ];
}

export interface RestoreOptions extends CommonOptions {
  readonly rootPath: string;
  readonly pidfile: string;
  readonly externalMounts: readonly string[];
  /** Descriptor of the network namespace in CRIU's process. */
  readonly netFd: number;
  /** Descriptors handed in place of the dumped stdio: `pipe:[123]`, `tty[8800:36]` … */
  readonly inherited: readonly { readonly fd: number; readonly label: string }[];
}

/** Arguments of `criu restore`: the tree is left stopped, to be filled and continued by the agent. */
export function restoreArguments(options: RestoreOptions): string[] {
  return [
    ...frame('restore', options, 'restore.log'),
    '--root',
    options.rootPath,
    ...options.externalMounts.flatMap((path) => ['--external', `mnt[${path}]:${options.rootPath}${path}`]),
    '--inherit-fd',
    `fd[${options.netFd}]:${NETWORK_KEY}`,
    ...options.inherited.flatMap(({ fd, label }) => ['--inherit-fd', `fd[${fd}]:${label}`]),
    ...SHARED,
    '--leave-stopped',
    '--restore-detached',
    '--pidfile',
    options.pidfile,
  ];
}

function frame(action: 'dump' | 'restore', options: CommonOptions, log: string): string[] {
  return [
    options.binary,
    action,
    '--images-dir',
    options.imagesDir,
    '--work-dir',
    options.workDir,
    '--log-file',
    log,
    `-v${Math.min(options.logLevel, 2)}`,
  ];
}
