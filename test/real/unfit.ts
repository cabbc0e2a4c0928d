/* What a workload can do that keeps it from being checkpointed. */

/** A python program that prepares something (see below) and then is a workload that can verify itself. */
export function having(python: string): string[] {
  const script = `import sys; sys.path.insert(0, "/opt/workloads")\n${python}\nimport os, verdict\nverdict.run("prepared", {"lives": lambda: None})`;
  return ['/usr/bin/python3', '-u', '-c', script];
}

export const IO_URING = `import ctypes
libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
assert ring >= 0, ctypes.get_errno()`;
export const TRACED = `import ctypes, os, signal, time
child = os.fork()
if child == 0:
    while True: time.sleep(60)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0x4206, child, None, None) == 0, ctypes.get_errno()`;
export const FOREIGN_ADDRESS = `import socket, time
while True:
    bound = socket.socket()
    try:
        bound.bind(("10.99.88.77", 4711)); bound.listen(); break
    except OSError:
        time.sleep(0.05)`;
export const PROJECTED = 'token = open("/var/run/secrets/kubernetes.io/serviceaccount/token")';
export const USERFAULTFD = `import ctypes
libc2 = ctypes.CDLL(None, use_errno=True)
fault = libc2.syscall(323, 0o2000001)
assert fault >= 0, ctypes.get_errno()`;
