/**
 * CRIU's log, read for the person on call: which line says why it failed, what that means, and what to do. The rows were seen with
 * CRIU 4.2 (4.1 where they say so); causes stand before the symptoms that they bring along, so the first finding is the one to show.
 */

/** One finding. `code` is stable (UPPER_SNAKE); `line` is CRIU's own. */
export interface Finding {
  readonly code: string;
  readonly line: string;
  readonly explanation: string;
  readonly advice: string;
}

interface Row extends Omit<Finding, 'line'> {
  readonly pattern: RegExp;
}

const MEMORY: readonly Row[] = [
  {
    pattern: /anon_inode:\[io_uring\]|Unknown shit \d+ \(.*io_uring/,
    code: 'IO_URING_IN_USE',
    explanation: 'a process of the workload uses io_uring, which CRIU cannot dump',
    advice: 'Run the source with a seccomp profile that answers ENOSYS to io_uring_setup, _enter and _register.',
  },
  {
    pattern: /handle_device_vma plugin failed|Can't handle non-regular mapping/,
    code: 'DEVICE_MAPPED',
    explanation: 'a process maps a device (such as /dev/nvidia*) that nothing has detached from it',
    advice:
      'End idle helper processes that hold the GPU (compile workers) before the checkpoint; CUDA processes are detached by the agent.',
  },
  {
    pattern: /Advanced iov 0 bytes/,
    code: 'PAGES_TRUNCATED',
    explanation: 'a pages image is shorter than its pagemap says; CRIU would wait for the rest for ever',
    advice: 'Verify the artifact: its images are cut off. Delete it and make a new checkpoint.',
  },
  {
    pattern: /No space left on device|Can't dump page with parasite/,
    code: 'IMAGE_SPACE',
    explanation: 'the directory of the images is full; the workload goes on running',
    advice: 'Free space on the volume or enlarge it.',
  },
  {
    pattern: /killed by signal 9/,
    code: 'RESTORE_KILLED',
    explanation: 'a process was killed while it was restored: its memory limit is too small, or somebody killed it',
    advice: 'Give the target container at least the memory limit of the source; look at its cgroup for OOM kills.',
  },
];

const NETWORK: readonly Row[] = [
  {
    pattern: /Can't get 1:\d+ opt: Operation not supported/,
    code: 'CRIU_TOO_OLD_FOR_KERNEL',
    explanation: 'this CRIU cannot dump inet sockets on kernels from 6.16',
    advice: 'Use CRIU 4.2 or later in the agent image.',
  },
  {
    pattern: /iptables-restore|Locking network failed/,
    code: 'NETWORK_LOCK_FAILED',
    explanation: 'CRIU could not lock the network with iptables',
    advice: 'Set the network lock to skip or nftables.',
  },
  {
    pattern: /soccr: Can't bind inet socket back: Cannot assign requested address/,
    code: 'SOCKET_ADDRESS_GONE',
    explanation: 'an established connection belongs to an address that the target pod does not have',
    advice:
      'The rewrite of sockets should have closed or moved it: report it with the log, or close connections before the checkpoint.',
  },
  {
    pattern: /Can't bind inet socket \(id .*Address already in use/,
    code: 'PORT_IN_USE',
    explanation: 'a port of the workload is taken in the target pod',
    advice: 'Find which container of the target pod listens there; a restore target must leave the workload its ports.',
  },
  {
    pattern: /Can't bind inet socket \(id .*Cannot assign requested address/,
    code: 'BIND_ADDRESS_GONE',
    explanation: 'a socket is bound to an address that the target pod does not have',
    advice:
      'Bind to the wildcard address or the loopback in the workload, or restore into a pod with an address of the same family.',
  },
  {
    pattern: /Connected TCP socket, consider using|Connected TCP socket in image/,
    code: 'TCP_CONNECTED',
    explanation: 'an established connection met a CRIU without --tcp-established',
    advice: 'A defect of the agent: report it with the log.',
  },
  {
    pattern: /External socket is used/,
    code: 'UNIX_SOCKET_OUTSIDE',
    explanation: 'a unix socket is connected to a process outside of the container (a host log or daemon socket)',
    advice: 'Close the connection before the checkpoint, or do not mount the socket into the container.',
  },
  {
    pattern: /In-flight connection/,
    code: 'TCP_IN_FLIGHT',
    explanation: 'a connection was waiting to be accepted',
    advice: 'Try again; the option --skip-in-flight lets CRIU leave such connections out.',
  },
  {
    pattern: /kerndat_tcp_repair failed/,
    code: 'LOOPBACK_DOWN',
    explanation: 'the loopback interface of the network namespace is down, so CRIU cannot probe TCP repair',
    advice: 'Bring up lo in the pod network.',
  },
];

const TASKS: readonly Row[] = [
  {
    pattern: /Can't get rlimit \d+: Operation not permitted/,
    code: 'SYS_RESOURCE_MISSING',
    explanation: 'the workload runs as another user and the agent lacks CAP_SYS_RESOURCE',
    advice: 'Run the agent privileged; it needs CAP_SYS_RESOURCE.',
  },
  {
    pattern: /Can't dump a pid namespace without the process init/,
    code: 'PID_NAMESPACE_SHARED',
    explanation: 'the workload is not PID 1 of its PID namespace',
    advice: 'Remove shareProcessNamespace or hostPID from the pod.',
  },
  {
    pattern: /session leader.*outside of its pid namespace/,
    code: 'SESSION_OUTSIDE',
    explanation: 'a process belongs to a session that began outside of the container',
    advice: 'PID 1 of the container must be a session leader, as container runtimes make it.',
  },
  {
    pattern: /Unable to interrupt task: \d+ \(Operation not permitted\)/,
    code: 'TASK_TRACED',
    explanation: 'a process of the workload is being traced by a debugger or strace',
    advice: 'Detach the debugger, then ask again.',
  },
  {
    pattern: /Unable to interrupt task: \d+ \(No such process\)/,
    code: 'TASK_GONE',
    explanation: 'a process ended while CRIU was seizing the tree',
    advice: 'Try again when the workload is quiet.',
  },
  {
    pattern: /Don't have tty to inherit session from|Found slave peer \d+ without correspond master peer/,
    code: 'TTY_MISSING',
    explanation: 'the workload has a terminal that the target does not offer',
    advice: 'Source and target must both have `tty: true`, or neither.',
  },
  {
    pattern: /pidfile: .*File exists|Can't write pidfile: File exists/,
    code: 'PIDFILE_EXISTS',
    explanation: 'the file for the restored PID was there already',
    advice: 'A defect of the agent: it must use a new work directory for each restore. Report it with the log.',
  },
];

const FILES: readonly Row[] = [
  {
    pattern: /fsnotify: Handle .* cannot be opened|Can't dump that handle/,
    code: 'WATCH_NOT_FOUND',
    explanation: 'a file watch (inotify) points at something that CRIU cannot find by name',
    advice:
      'Name the watched directory in the configuration of irmap scan paths, or stop watching before the checkpoint.',
  },
  {
    pattern: /Can't dump ghost file .* of \d+ size/,
    code: 'GHOST_LIMIT_EXCEEDED',
    explanation: 'a deleted file that is still open is larger than the ghost limit',
    advice: 'Raise the ghost limit, or let the workload close the deleted file first.',
  },
  {
    pattern: /sysctl: Can't open sysctl .*Read-only file system/,
    code: 'PROC_SYS_READ_ONLY',
    explanation: '/proc/sys was read-only where CRIU worked',
    advice: 'A defect of the agent: CRIU must see its own /proc. Report it with the log.',
  },
  {
    pattern: /Can't stat mountpoint .*No such file or directory/,
    code: 'MOUNT_POINT_MISSING',
    explanation: 'the target container has no such mount point',
    advice: 'Give the target the same volume mounts (and `tty`) as the source.',
  },
  {
    pattern: /Can't lookup mount=.* for fd=/,
    code: 'FILE_OUTSIDE_MOUNTS',
    explanation: 'a process holds a file that lies outside of the mounts of its container',
    advice: 'Standard input and output of the workload must be pipes, a terminal or files inside the container.',
  },
  {
    pattern: /has bad size \d+ \(expect \d+\)/,
    code: 'FILE_SIZE_DIFFERS',
    explanation: 'a file has another size than at the checkpoint: another image version, or a volume that changed',
    advice: 'Use the same container image; files on volumes that the workload holds open must be unchanged.',
  },
  {
    pattern: /Can't open file .* on restore: No such file or directory/,
    code: 'FILE_MISSING',
    explanation: 'a file that the workload holds open or maps is not in the target',
    advice: 'Use the same container image and the same volumes with the same content.',
  },
  {
    pattern: /Can't fixup VMA's fd/,
    code: 'MAPPED_FILE_MISSING',
    explanation: 'a mapped file could not be opened',
    advice: 'Use the same container image and the same volumes with the same content.',
  },
  {
    pattern: /Collect mappings \(pid: \d+\) failed/,
    code: 'MAPPING_UNSUPPORTED',
    explanation: 'CRIU does not know how to dump a mapping of this process',
    advice: 'See the lines before this one in the log for what is mapped.',
  },
];

const ROWS: readonly Row[] = [...MEMORY, ...NETWORK, ...TASKS, ...FILES];

const LINE_LIMIT = 500;

/** CRIU warns of much that does not matter (a zombie that cannot be interrupted); a warning explains no failure. */
function relevant(logText: string): string[] {
  return logText.split('\n').filter((line) => line !== '' && !/\bWarn {1,2}\(/.test(line));
}

function unknown(lines: readonly string[]): Finding[] {
  const harmless =
    /RLIMIT_NOFILE|kdat cache|tun: Unable to create tun|cgroupd: recv req error|(Dumping|Restoring) FAILED/;
  const errors = lines.filter((line) => /\bError \(/.test(line) && !harmless.test(line)).slice(-5);
  if (errors.length === 0) return [];
  return [
    {
      code: 'UNKNOWN_CRIU_FAILURE',
      line: errors.map((line) => line.slice(0, LINE_LIMIT)).join('\n'),
      explanation: 'CRIU failed for a reason that this table does not know',
      advice: 'Read the lines shown and the rest of the log; search CRIU issues for the text of the first of them.',
    },
  ];
}

/**
 * Findings in a CRIU log, causes before symptoms, each code once with the first line that shows it. Where no row matches: one
 * finding UNKNOWN_CRIU_FAILURE with the last error lines; an empty list for a log without errors.
 */
export function diagnose(logText: string): Finding[] {
  const lines = relevant(logText);
  const found: Finding[] = [];
  for (const { pattern, code, explanation, advice } of ROWS) {
    const line = lines.find((candidate) => pattern.test(candidate.slice(0, 4096)));
    if (line !== undefined) found.push({ code, line: line.trim().slice(0, LINE_LIMIT), explanation, advice });
  }
  return found.length > 0 ? found : unknown(lines);
}

/** The last `lines` lines of a log that are not empty, each cut at 500 characters. */
export function logTail(logText: string, lines: number): string {
  const all = logText.split('\n').filter((line) => line.trim() !== '');
  return all
    .slice(-lines)
    .map((line) => line.slice(0, LINE_LIMIT))
    .join('\n');
}
