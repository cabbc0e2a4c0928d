import { describe, expect, it } from 'vitest';
import { diagnose, logTail } from '../../../agent/criu/diagnosis.ts';

/** Log lines as they were seen, and the finding that explains them first. */
const SEEN: [string, string][] = [
  [
    "(00.034) Error (criu/sockets.c:578): sockets.c: Can't get 1:16 opt: Operation not supported",
    'CRIU_TOO_OLD_FOR_KERNEL',
  ],
  ["(00.034) Error (criu/sockets.c:578): Can't get 1:34 opt: Operation not supported", 'CRIU_TOO_OLD_FOR_KERNEL'],
  ['(00.1) Error (criu/proc_parse.c:99): Unknown shit 600 (anon_inode:[io_uring])', 'IO_URING_IN_USE'],
  ['(00.1) Error (criu/cr-dump.c:1): Collect mappings (pid: 14) failed with -1', 'MAPPING_UNSUPPORTED'],
  [
    '(00.1) Error (criu/util.c:1): execvp("iptables-restore", ...) failed: No such file or directory',
    'NETWORK_LOCK_FAILED',
  ],
  ['(00.1) Error (criu/net.c:1): net: Locking network failed: iptables-restore returned -1', 'NETWORK_LOCK_FAILED'],
  ['(00.1) Error (criu/fsnotify.c:1): fsnotify: Handle 0x33:0x1c cannot be opened', 'WATCH_NOT_FOUND'],
  ["(00.1) Error (criu/fsnotify.c:1): fsnotify: \tCan't dump that handle", 'WATCH_NOT_FOUND'],
  ["(00.1) Error (criu/cr-dump.c:389): Can't get rlimit 0: Operation not permitted", 'SYS_RESOURCE_MISSING'],
  ["(00.1) Error (criu/pstree.c:1): Can't dump a pid namespace without the process init", 'PID_NAMESPACE_SHARED'],
  ['(00.1) Error (compel/ptrace.c:1): Unable to interrupt task: 12 (Operation not permitted)', 'TASK_TRACED'],
  ['(00.1) Error (compel/ptrace.c:1): Unable to interrupt task: 12 (No such process)', 'TASK_GONE'],
  ['(00.1) Error (criu/bfd.c:1): Error flushing image: No space left on device', 'IMAGE_SPACE'],
  ["(00.1) Error (criu/mem.c:1): Can't dump page with parasite", 'IMAGE_SPACE'],
  [
    "(00.1) Error (criu/sysctl.c:1): sysctl: Can't open sysctl kernel/hostname: Read-only file system",
    'PROC_SYS_READ_ONLY',
  ],
  [
    "mnt-v2: Can't stat mountpoint /tmp/.criu.mntns.X/mnt-4/checkpoints: No such file or directory",
    'MOUNT_POINT_MISSING',
  ],
  ["files-reg.c: Can't open file opt/a on restore: No such file or directory", 'FILE_MISSING'],
  ["Error (criu/mem.c:1): Can't fixup VMA's fd", 'MAPPED_FILE_MISSING'],
  ['Error (criu/files-reg.c:2175): File etc/x has bad size 12 (expect 9)', 'FILE_SIZE_DIFFERS'],
  ["inet: Can't bind inet socket (id 4): Address already in use", 'PORT_IN_USE'],
  ["inet: Can't bind inet socket (id 4): Cannot assign requested address", 'BIND_ADDRESS_GONE'],
  ["soccr: Can't bind inet socket back: Cannot assign requested address", 'SOCKET_ADDRESS_GONE'],
  ['Error (criu/cr-restore.c:1269): 44 killed by signal 9: Killed', 'RESTORE_KILLED'],
  ["tty: Don't have tty to inherit session from, aborting", 'TTY_MISSING'],
  ["pidfile: Can't open /run/w/pid: File exists", 'PIDFILE_EXISTS'],
  ["Can't write pidfile: File exists", 'PIDFILE_EXISTS'],
  ['(00.1) Advanced iov 0 bytes, 3->3 iovs, 0 tail', 'PAGES_TRUNCATED'],
  ["Can't lookup mount=22 for fd=1 path=/var/log/x", 'FILE_OUTSIDE_MOUNTS'],
  ["Can't dump ghost file /tmp/x of 734003200 size, increase limit", 'GHOST_LIMIT_EXCEEDED'],
  ['Error (criu/proc_parse.c:1): handle_device_vma plugin failed', 'DEVICE_MAPPED'],
  ["Error (criu/proc_parse.c:1): Can't handle non-regular mapping on 9's map", 'DEVICE_MAPPED'],
  ['Error (criu/x.c:1): A session leader of 9(9) is outside of its pid namespace', 'SESSION_OUTSIDE'],
  ['Error (criu/kerndat.c:1): kerndat_tcp_repair failed when initializing kerndat.', 'LOOPBACK_DOWN'],
  [
    'Error (criu/sk-unix.c:1): unix: External socket is used. Consider using --ext-unix-sk option.',
    'UNIX_SOCKET_OUTSIDE',
  ],
  ['Error (criu/sk-inet.c:1): In-flight connection (l) for 12', 'TCP_IN_FLIGHT'],
  ['Error (criu/sk-inet.c:1): Connected TCP socket, consider using --tcp-established option.', 'TCP_CONNECTED'],
];

describe('diagnose', () => {
  it.each(SEEN)('explains %s', (line, code) => {
    const found = diagnose(`(00.000) something before\n${line}\n(00.2) Error (criu/cr-dump.c:2111): Dumping FAILED.\n`);
    expect(found.map((finding) => finding.code)).toEqual([code]);
    expect(found[0]?.line).toBe(line.trim());
    expect(found[0]?.explanation).not.toBe('');
    expect(found[0]?.advice).not.toBe('');
  });

  it('puts the cause before its symptoms', () => {
    const log = [
      'Error (criu/cr-dump.c:1): Collect mappings (pid: 14) failed with -1',
      'Error (criu/proc_parse.c:1): Unknown shit 600 (anon_inode:[io_uring])',
    ].join('\n');
    expect(diagnose(log).map((finding) => finding.code)).toEqual(['IO_URING_IN_USE', 'MAPPING_UNSUPPORTED']);
  });

  it('does not take warnings and known noise for causes', () => {
    expect(diagnose('(00.1) Warn  (compel/x.c:1): Unable to interrupt task: 9 (Operation not permitted)\n')).toEqual(
      [],
    );
    expect(
      diagnose("(00.1) Error (criu/util.c:1): Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"),
    ).toEqual([]);
    expect(diagnose('')).toEqual([]);
  });

  it('shows the last error lines of an unknown failure', () => {
    const found = diagnose(
      '(0) Error (a.c:1): first\n(0) ok\n(0) Error (a.c:2): second\n(0) Error (x): Restoring FAILED.\n',
    );
    expect(found).toHaveLength(1);
    expect(found[0]?.code).toBe('UNKNOWN_CRIU_FAILURE');
    expect(found[0]?.line).toBe('(0) Error (a.c:1): first\n(0) Error (a.c:2): second');
  });

  it('is quick on hostile lines', () => {
    const started = performance.now();
    diagnose(`${"Can't dump ghost file ".repeat(100_000)}\n${'x'.repeat(5_000_000)}`);
    expect(performance.now() - started).toBeLessThan(1000);
  });
});

describe('logTail', () => {
  it('keeps the last lines and cuts long ones', () => {
    expect(logTail('a\n\nb\nc\n', 2)).toBe('b\nc');
    expect(logTail('y'.repeat(9000), 3)).toHaveLength(500);
  });
});
