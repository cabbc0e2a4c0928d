import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { lacksSysResource } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import { type ContainerRequest, type PodRequest, workload } from './environment/pod.ts';
import { namespaceOf } from './environment/processes.ts';

let cluster: Cluster;
let echo: Server;
let pods = 0;

beforeAll(async () => {
  cluster = await Cluster.start();
  echo = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  await new Promise<void>((done) => echo.listen(0, cluster.gateway, done));
});

afterAll(async () => {
  echo?.close();
  await cluster?.stop();
  // A cluster leaves nothing behind: no process, mount, cgroup, bridge or directory.
  expect(cluster?.leftovers()).toEqual([]);
});

function peer(): string {
  const address = echo.address();
  return typeof address === 'object' && address ? `${address.address}:${address.port}` : '';
}

async function run(request: ContainerRequest, pod: Partial<PodRequest> = {}) {
  const made = await cluster.runPod({ name: `pod-${pods++}`, ...pod });
  return { pod: made, container: await made.run(request) };
}

describe('workloads verify themselves', () => {
  const requests: Record<string, () => ContainerRequest> = {
    memory: () => ({ command: workload('memory', '64') }),
    tree: () => ({ command: workload('tree') }),
    sockets: () => ({ command: workload('sockets', peer()) }),
    files: () => ({ command: workload('files') }),
    memoryobjects: () => ({ command: workload('memoryobjects', 'sysv') }),
    events: () => ({ command: workload('events') }),
    exits: () => ({ command: workload('exits', '42') }),
    worker: () => ({ command: workload('worker') }),
  };
  test.each(Object.entries(requests))('%s', async (name, request) => {
    const { pod, container } = await run(request());
    expect(await container.ready()).toMatchObject({ ready: name, pid: 1 });
    const first = await container.check();
    expect(first).toMatchObject({ check: 'ok', problems: [], host: pod.name });
    // A check changes nothing: the next one says the same.
    const second = await container.check();
    expect(second).toMatchObject({ check: 'ok', problems: [] });
    expect(Number(second['beats'])).toBeGreaterThanOrEqual(Number(first['beats']));
    if (name === 'sockets') expect(second).toMatchObject({ outside: 'open', ownAddress: pod.ip, ownPeer: pod.ip });
    await pod.remove();
  });
});

describe('pods of every kind', () => {
  test('standard output and error are in the log, apart', async () => {
    const { container, pod } = await run({ command: workload('memory', '4') });
    await container.waitForOutput('a beat', (line) => line['beat'] === 20);
    expect(container.logs().some((line) => line.stream === 'stderr' && line.text.startsWith('error output'))).toBe(
      true,
    );
    await pod.remove();
  });

  test("the host's network", async () => {
    const { container, pod } = await run({ command: workload('sockets') }, { hostNetwork: true });
    await container.ready();
    expect(pod.ip).toBe('');
    expect(namespaceOf(await container.pid(), 'net')).toBe(namespaceOf(process.pid, 'net'));
    expect(await container.check()).toMatchObject({ check: 'ok', ownAddress: '' });
    await pod.remove();
  });

  test('a terminal', async () => {
    const { container, pod } = await run({ command: workload('memory', '4'), tty: true, stdin: true });
    await container.ready();
    expect((await container.exec('readlink', '/proc/1/fd/0')).stdout).toMatch(/^\/dev\/(pts\/0|console)/);
    expect(await container.check()).toMatchObject({ check: 'ok' });
    await pod.remove();
  });

  test('a read-only root file system', async () => {
    const { container, pod } = await run({ command: workload('memory', '4'), readOnlyRoot: true });
    await container.ready();
    expect((await container.exec('touch', '/file')).exitCode).not.toBe(0);
    expect(await container.check()).toMatchObject({ check: 'ok' });
    await pod.remove();
  });

  test('another user, with its own view of the control directory', async () => {
    const { container, pod } = await run({ command: workload('worker'), user: 1000, group: 1000 });
    await container.ready();
    expect(await container.check()).toMatchObject({ check: 'ok', uid: 1000, phase: 'quiesced' });
    expect(readFileSync(join(container.controlDirectory ?? '', 'ready-for-snapshot'), 'utf8')).toBe('ready');
    await pod.remove();
  });

  test("the runtime's seccomp profile, and no new privileges", async () => {
    const request = { command: workload('memory', '4'), seccomp: 'RuntimeDefault', noNewPrivileges: true };
    const { container, pod } = await run(request);
    await container.ready();
    const status = readFileSync(`/proc/${await container.pid()}/status`, 'utf8');
    expect(status).toMatch(/^Seccomp:\t2$/m);
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    expect(await container.check()).toMatchObject({ check: 'ok' });
    await pod.remove();
  });

  test('a seccomp profile of this machine', async () => {
    const profile = join(cluster.directory, 'no-mkdir.json');
    const rules = [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }];
    await writeFile(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: rules }));
    const { container, pod } = await run({ command: ['/usr/bin/sleep', 'infinity'], seccomp: profile });
    expect((await container.exec('mkdir', '/made')).stderr).toContain('Function not implemented');
    await pod.remove();
  });

  test('one PID namespace for the pod', async () => {
    const { container, pod } = await run({ command: workload('memory', '4') }, { sharePid: true });
    expect((await container.ready())['pid']).not.toBe(1);
    expect(await container.check()).toMatchObject({ check: 'ok' });
    await pod.remove();
  });

  test('a privileged one, and capabilities by name', async () => {
    const capabilities = async (request: Partial<ContainerRequest>) => {
      const { container, pod } = await run(
        { command: ['/usr/bin/sleep', 'infinity'], ...request },
        { privileged: request.privileged ?? false },
      );
      const status = readFileSync(`/proc/${await container.pid()}/status`, 'utf8');
      await pod.remove();
      return BigInt(`0x${/^CapBnd:\s*(\w+)$/m.exec(status)?.[1]}`);
    };
    const ptrace = 1n << 19n;
    expect((await capabilities({})) & ptrace).toBe(0n);
    expect((await capabilities({ addCapabilities: ['SYS_PTRACE'] })) & ptrace).toBe(ptrace);
    expect((await capabilities({ privileged: true })) & ptrace).toBe(ptrace);
    expect(await capabilities({ dropCapabilities: ['ALL'] })).toBe(0n);
  });

  test('a memory limit', async () => {
    const { container, pod } = await run({ command: workload('memory', '200'), memoryLimitBytes: 64 << 20 });
    expect(await container.ended(60_000)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
    await pod.remove();
  });

  test('the volume is a mount of its own in the container', async () => {
    const request = { command: ['/usr/bin/sleep', 'infinity'], volume: cluster.volume };
    const { container, pod } = await run(request);
    expect((await container.exec('sh', '-c', 'echo here > /checkpoints/file')).exitCode).toBe(0);
    expect(readFileSync(join(cluster.volume.hostPath, 'file'), 'utf8')).toBe('here\n');
    const mountinfo = readFileSync(`/proc/${await container.pid()}/mountinfo`, 'utf8');
    expect(mountinfo.split('\n').some((line) => line.split(' ')[4] === '/checkpoints')).toBe(true);
    await pod.remove();
  });

  test("kubelet's files", async () => {
    const { container, pod } = await run({ command: ['/usr/bin/sleep', 'infinity'] });
    const token = '/var/run/secrets/kubernetes.io/serviceaccount';
    expect((await container.exec('cat', `${token}/token`)).stdout).toBe(`token-of-${pod.name}`);
    expect((await container.exec('readlink', `${token}/token`)).stdout.trim()).toBe('..data/token');
    expect((await container.exec('cat', '/etc/hosts')).stdout).toContain(`${pod.ip}\t${pod.name}`);
    expect((await container.exec('stat', '-f', '-c', '%T', '/dev/shm')).stdout.trim()).toBe('tmpfs');
    await pod.remove();
  });
});

describe('ends', () => {
  test('with an exit code', async () => {
    const { container, pod } = await run({ command: workload('exits', '42') });
    await container.ready();
    await container.signal('SIGUSR2');
    expect(await container.ended()).toMatchObject({ exit_code: 42 });
    await pod.remove();
  });

  test('by a fault', async () => {
    const { container, pod } = await run({ command: workload('exits', 'segfault') });
    await container.ready();
    await container.signal('SIGUSR2');
    expect(await container.ended()).toMatchObject({ exit_code: 139 });
    await pod.remove();
  });

  test('after SIGTERM, having cleaned up', async () => {
    const { container, pod } = await run({ command: workload('exits') });
    await container.ready();
    await container.stop(10);
    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    expect(container.output().at(-1)).toEqual({ terminated: true });
    await pod.remove();
  });

  test('a worker that is released after its checkpoint', async () => {
    const { container, pod } = await run({ command: workload('worker') });
    await container.ready();
    await writeFile(join(container.controlDirectory ?? '', 'snapshot-complete'), 'done\n');
    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    await pod.remove();
  });
});

describe("the agent's environment", () => {
  test('has a CRIU that works here, a recent Node, and everything a privileged DaemonSet pod sees', async () => {
    const script = [
      'criu check >/dev/null 2>&1; echo "criu $?"',
      'criu --version | head -n1',
      'node --version',
      `test -S ${cluster.socketPath} && echo socket`,
      `test -d ${join(cluster.directory, 'root')}/io.containerd.snapshotter.v1.overlayfs/snapshots && echo snapshots`,
      'test -d /host/proc/1 && echo host-proc',
      'cat /proc/self/cgroup /host/proc/self/cgroup | grep -c -- -agent',
      'grep -c " /checkpoints " /proc/self/mountinfo',
      'echo kept > /var/lib/snapshot-agent/probe; echo gone > /usr/probe',
    ].join('\n');
    const { stdout, stderr, exitCode } = await cluster.enter(['bash', '-c', script]);
    expect(stderr).toBe('');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(
      /^criu 0\nVersion: 4\.([2-9]|\d\d)[\d.]*\nv(2\d)[\d.]+\nsocket\nsnapshots\nhost-proc\n\d+\n1\n$/,
    );
    // State outlives an environment; its root directory is as new each time.
    const again = await cluster.enter([
      'bash',
      '-c',
      'cat /var/lib/snapshot-agent/probe; test -e /usr/probe || echo clean',
    ]);
    expect(again.stdout).toBe('kept\nclean\n');
  });

  test('CRIU reads the limits of another user’s process, with the preload where this machine lacks CAP_SYS_RESOURCE', async () => {
    const { container, pod } = await run({ command: workload('memory', '4'), user: 1000 });
    await container.ready();
    const pid = await container.pid();
    const read = `prlimit --pid ${pid} --nofile --noheadings --output SOFT`;
    const { stdout, exitCode } = await cluster.enter(['bash', '-c', `LD_PRELOAD=$CRIU_LD_PRELOAD ${read}`]);
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
    expect({ exitCode, limit: stdout.trim() }).toEqual({ exitCode: 0, limit });
    if (lacksSysResource()) expect((await cluster.enter(['bash', '-c', read])).exitCode).not.toBe(0);
    await pod.remove();
  });
});

test('clusters beside each other do not meet', async () => {
  const other = await Cluster.start();
  try {
    const [mine, theirs] = await Promise.all([cluster.runPod({ name: 'same' }), other.runPod({ name: 'same' })]);
    expect(other.gateway).not.toBe(cluster.gateway);
    expect(mine.ip.split('.').slice(0, 3)).not.toEqual(theirs.ip.split('.').slice(0, 3));
    expect(await other.cri.sandboxIds()).toEqual([theirs.sandboxId]);
    await mine.remove();
  } finally {
    await other.stop();
  }
  expect(other.leftovers()).toEqual([]);
  expect((await cluster.cri.version()).name).toBe('containerd');
});
