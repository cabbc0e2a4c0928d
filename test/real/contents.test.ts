import { createHash } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { release } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DEFAULT_CONTROL_DIR } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { IMAGES } from './environment/images.ts';
import { workload } from './environment/pod.ts';
import { namespaceOf, processes } from './environment/processes.ts';
import {
  type Checkpointed,
  checkpointed,
  type Restored,
  readRecord,
  restored,
  type SourceRequest,
} from './scenario.ts';

const MIB = 1 << 20;
/** Seconds that a source without a control directory has to set itself up. */
const QUIESCE_DELAY = 3;

let echo: Server;

/** A server outside of all pods that sends back what it gets. */
async function listen(address: string): Promise<void> {
  echo = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  await new Promise<void>((done) => echo.listen(0, address, done));
}

function peer(): string {
  const address = echo.address();
  return typeof address === 'object' && address ? `${address.address}:${address.port}` : '';
}

/** Both sides of a restore, with the workload's verdicts. */
interface RoundTrip {
  readonly source: Checkpointed;
  readonly target: Restored;
  /** The source's verdict after its checkpoint; undefined where the checkpoint ended it. */
  readonly before: JsonLine | undefined;
  readonly after: JsonLine;
  readonly record: Record<string, unknown>;
}

/** Checkpoints, verifies the source where it goes on, restores, and verifies twice. `held` are the checks that must be among them. */
async function roundTrip(
  where: { cluster: Cluster; agent: Agent },
  request: SourceRequest,
  held: readonly string[] = [],
): Promise<RoundTrip> {
  const { cluster, agent } = where;
  const source = await checkpointed(cluster, agent, request);
  const record = readRecord(source.artifact);
  let before: JsonLine | undefined;
  if (request.after === 'stop') {
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
  } else {
    before = await source.container.check();
    expect(before).toMatchObject({ check: 'ok', problems: [], host: source.pod.name });
  }
  await source.pod.remove();
  const target = await restored(cluster, agent, source);
  const first = await target.container.check();
  expect(first).toMatchObject({ check: 'ok', problems: [], host: target.pod.name, pid: 1 });
  expect(first['checks']).toEqual(expect.arrayContaining([...held]));
  // What was restored goes on, and a check took nothing out of it. In between, its timers have expired some times.
  await sleep(300);
  const after = await target.container.check();
  expect(after).toMatchObject({ check: 'ok', problems: [] });
  expect(Number(after['beats'])).toBeGreaterThanOrEqual(Number(first['beats']));
  return { source, target, before, after, record };
}

/** Processes of a container's restored tree, zombies too. */
async function restoredTree(container: Container) {
  const root = await container.workloadPid();
  const namespace = namespaceOf(root, 'pid');
  const level = processes().find(({ pid }) => pid === root)?.nspid.length;
  return processes().filter(
    ({ pid, cgroups, nspid, state }) =>
      cgroups.includes(container.id) &&
      nspid.length === level &&
      // A zombie has no namespaces to read any more.
      (state === 'Z' || namespaceOf(pid, 'pid') === namespace),
  );
}

/** Files below a directory, by their paths in it. */
function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}

function allMountPoints(pid: number): string[] {
  const lines = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').trim().split('\n');
  return lines.map((line) => line.split(' ')[4] ?? '');
}

describe('agentMount', () => {
  const where = {} as { cluster: Cluster; agent: Agent };

  beforeAll(async () => {
    where.cluster = await Cluster.start();
    await listen(where.cluster.gateway);
    where.agent = await where.cluster.startAgent({ config: { checkpoint: { quiesceDelaySeconds: QUIESCE_DELAY } } });
  });

  afterAll(async () => {
    echo?.close();
    await where.cluster?.stop();
    expect(where.cluster?.leftovers()).toEqual([]);
  });

  test('memory: its content, pages of zeros, and a counter that goes on', async () => {
    const held = ['memory', 'sparse memory', 'zeros', 'counter file', 'held log'];
    const { before, after, target } = await roundTrip(where, { command: workload('memory', '48', '32') }, held);
    expect(after['digest']).toBe(before?.['digest']);
    // The counter went on from where it stood, and was not begun anew.
    expect(target.container.output().some((line) => 'ready' in line)).toBe(false);
    expect(Number(after['beats'])).toBeGreaterThan(1);
    await target.pod.remove();
  });

  test('a tree: threads, children, a zombie, a stopped process, sessions and groups', async () => {
    const held = ['plain', 'threads', 'session', 'group', 'orphan', 'zombie', 'stopped'];
    const { target, record, after } = await roundTrip(where, { command: workload('tree') }, held);
    const tree = await restoredTree(target.container);
    expect(tree).toHaveLength(Number(after['processes']));
    expect(record).toMatchObject({ process: { count: tree.length } });
    expect(tree.filter(({ state }) => state === 'Z')).toHaveLength(1);
    expect(tree.filter(({ state }) => state === 'T')).toHaveLength(1);
    await target.pod.remove();
  });

  test('sockets: pairs on loopback and on the own address, listeners, UDP, unix; the outside is closed', async () => {
    const held = [
      'loopback pair',
      'own address pair',
      'listener on every IPv4 address',
      'listener on every IPv6 address',
      'UDP',
      'stream with data in flight',
      'accepted connection of a path',
      'listener at a path',
      'abstract packets',
      'datagram in flight',
      'half closed pair',
      'options',
    ];
    const { source, before, target, after } = await roundTrip(where, { command: workload('sockets', peer()) }, held);
    expect(before).toMatchObject({ outside: 'open', ownAddress: source.pod.ip, ownPeer: source.pod.ip });
    expect(target.pod.ip).not.toBe(source.pod.ip);
    expect(after).toMatchObject({ ownAddress: target.pod.ip, ownPeer: target.pod.ip });
    expect(after['outside']).toMatch(/^closed/);
    await target.pod.remove();
  });

  test('files: open, deleted, locked, and changed against the image, with all their metadata', async () => {
    const held = [
      'deleted file',
      'deleted name of a kept file',
      'held log',
      'flock',
      'fcntl lock',
      'fifo',
      'pipe',
      'changes against the image',
      'metadata',
      'working directory',
      'mapped file',
      'position in a file of the image',
      'open directory',
    ];
    const { source, target } = await roundTrip(where, { command: workload('files') }, held);
    // The 64 MiB of the sparse file are holes in the artifact too.
    expect(lstatSync(join(source.artifact, 'rootfs/diff.tar')).size).toBeLessThan(MIB);
    // What the container's own file system shows to a process that is started in it, not only to the restored one.
    const { stdout } = await target.container.exec('stat', '-c', '%b %s', '/data/sparse');
    const [blocks, size] = stdout.trim().split(' ').map(Number);
    expect(size).toBe(64 * MIB + 10);
    expect(Number(blocks) * 512).toBeLessThan(MIB);
    expect((await target.container.exec('ls', '/srv/image/opaque', '/srv/image/removed.txt')).stdout).toBe(
      '/srv/image/opaque:\nnew.txt\n',
    );
    await target.pod.remove();
  });

  test('memory objects: memfd, shared memory, /dev/shm, semaphores; in the IPC namespace of the new pod', async () => {
    const held = [
      'memfd by mapping',
      'memfd by descriptor',
      'shared anonymous memory',
      'its content',
      'named shared memory',
      'named content',
      'file in /dev/shm',
      'value under a lock',
      'semaphore',
      'copied memory of the parent',
      'copied memory of the child',
      'memory without access',
    ];
    const { record, target } = await roundTrip(where, { command: workload('memoryobjects') }, held);
    expect(record).toMatchObject({ namespaces: { ipc: 'shared' } });
    const [root, first] = [await target.container.workloadPid(), await target.container.pid()];
    expect(namespaceOf(root, 'ipc')).toBe(namespaceOf(first, 'ipc'));
    // The pod's own /dev/shm has the file: other containers of the pod see it as they would have in the source's.
    expect((await target.container.exec('ls', '/dev/shm')).stdout).toContain('snapshot-test');
    await target.pod.remove();
  });

  test('System V objects: in an IPC namespace of their own, as the record says', async () => {
    const held = ['System V objects', 'file in /dev/shm', 'semaphore'];
    const { record, target } = await roundTrip(where, { command: workload('memoryobjects', 'sysv') }, held);
    expect(record).toMatchObject({ namespaces: { ipc: 'private' } });
    const [root, first] = [await target.container.workloadPid(), await target.container.pid()];
    expect(namespaceOf(root, 'ipc')).not.toBe(namespaceOf(first, 'ipc'));
    await target.pod.remove();
  });

  test('events: eventfd, timers, epoll, inotify, signalfd, pending signals, condition variables', async () => {
    const held = [
      'eventfd',
      'timerfd and epoll',
      'timer in the future',
      'interval timer',
      'pending signal',
      'signalfd',
      'inotify',
      'threads that wait for each other',
      'monotonic clock',
    ];
    const { target } = await roundTrip(where, { command: workload('events') }, held);
    await target.pod.remove();
  });

  test('a checkpoint that stops its source', async () => {
    const { source, target } = await roundTrip(where, { command: workload('memory', '16'), after: 'stop' });
    expect(await source.container.ended().catch(() => 'removed')).toBe('removed');
    await target.pod.remove();
  });

  test('a source without a control directory is checkpointed once it has run for a while', async () => {
    const request = { command: workload('memory', '4'), control: false };
    const source = await checkpointed(where.cluster, where.agent, request);
    const { started_at } = await source.container.status();
    const taken = Date.parse(String(readRecord(source.artifact)['createdAt']));
    expect(taken - Number(started_at) / 1e6).toBeGreaterThan(QUIESCE_DELAY * 1000);
    const target = await restored(where.cluster, where.agent, source);
    expect(await target.container.check()).toMatchObject({ check: 'ok', host: target.pod.name });
    await source.pod.remove();
    await target.pod.remove();
  });

  test('the record says what is true', async () => {
    const [random, zeros] = [32, 16];
    const { cluster, agent } = where;
    const request = {
      command: workload('memory', String(random), String(zeros)),
      memoryLimitBytes: 256 * MIB,
      pod: { namespace: 'records' },
      version: 'v2.1_x',
    };
    const source = await checkpointed(cluster, agent, request);
    const record = readRecord(source.artifact);
    const pid = await source.container.pid();
    const criuVersion = (await cluster.enter(['criu', '--version'])).stdout;

    expect(record).toMatchObject({
      formatVersion: 1,
      minReader: 1,
      checkpointId: source.id,
      version: 'v2.1_x',
      operationId: source.end['operationId'],
      traceId: source.end['traceId'],
      source: {
        node: 'test-node',
        namespace: 'records',
        pod: source.pod.name,
        podUid: source.pod.uid,
        container: 'main',
        containerId: source.container.id,
        podIps: [source.pod.ip],
        image: IMAGES.placeholder,
      },
      platform: { kernel: release(), cgroupVersion: expect.toBeOneOf([1, 2]) },
      process: { count: 1, threads: 1, controlDir: DEFAULT_CONTROL_DIR, rootState: expect.toBeOneOf(['S', 'R']) },
      namespaces: { ipc: 'shared', netInode: Number(/\d+/.exec(namespaceOf(pid, 'net'))?.[0]) },
      memory: { limitBytes: 256 * MIB },
    });
    const { source: origin, platform, sizes, memory, process, bulk } = record as unknown as RecordShape;
    expect(origin.imageId).toMatch(/sha256:[0-9a-f]{64}$/);
    expect(criuVersion).toContain(`Version: ${platform.criu}\n`);
    expect(memory.residentBytes).toBeGreaterThan((random + zeros) * MIB);
    // The pipes to the container's log are what descriptors of the process refer to.
    expect(process.stdio[1]).toMatch(/^pipe:\[\d+\]$/);
    expect(process.tty).toBeUndefined();
    const mounted = (record['mounts'] as { mountPoint: string }[]).map(({ mountPoint }) => mountPoint);
    expect(mounted.toSorted()).toEqual([...new Set(allMountPoints(pid))].sort());
    const age = Date.now() - Date.parse(String(record['createdAt']));
    expect(age).toBeGreaterThan(-1000);
    expect(age).toBeLessThan(60_000);

    // Files: all of them, with their sizes and digests.
    const listed = record['files'] as { path: string; size: number; sha256: string }[];
    expect(listed.map(({ path }) => path).toSorted()).toEqual(
      filesBelow(source.artifact).filter((path) => path !== 'manifest.yaml'),
    );
    for (const { path, size, sha256 } of listed) {
      const content = readFileSync(join(source.artifact, path));
      expect({ path, size }).toEqual({ path, size: content.length });
      const digest = path === 'memory/bulk.pages' ? '' : createHash('sha256').update(content).digest('hex');
      expect({ path, sha256 }).toEqual({ path, sha256: digest });
    }
    const sizeOf = (prefix: string) =>
      listed.filter(({ path }) => path.startsWith(prefix)).reduce((sum, { size }) => sum + size, 0);
    expect(sizes.criuBytes).toBe(sizeOf('criu/'));
    expect(sizes.bulkBytes).toBe(sizeOf('memory/bulk.pages'));
    // Contents without headers and padding: the counter, the held log.
    expect(sizes.rootfsBytes).toBeGreaterThan(0);
    expect(sizes.rootfsBytes).toBeLessThan(sizeOf('rootfs/diff.tar'));
    expect(sizes.shmBytes).toBe(0);
    expect(bulk?.bytes).toBe(sizes.bulkBytes);

    // Memory of zeros is not in the artifact, everything else is.
    expect(sizes.zeroBytes).toBeGreaterThanOrEqual(zeros * MIB);
    expect(sizes.bulkBytes).toBeGreaterThanOrEqual(random * MIB);
    expect(sizes.bulkBytes + sizes.criuBytes).toBeLessThan(memory.residentBytes - (zeros - 2) * MIB);
    expect(existsSync(join(source.artifact, 'criu/pages-1.img'))).toBe(true);

    // Times: each step by name; the pause is part of the dump.
    const timings = record['timings'] as { step: string; seconds: number }[];
    expect(timings.map(({ step }) => step)).toEqual(
      expect.arrayContaining(['inspect', 'preflight', 'criu-dump', 'resume', 'finalize']),
    );
    const dumpSeconds = timings.find(({ step }) => step === 'criu-dump')?.seconds ?? 0;
    expect(record['pauseSeconds']).toBeGreaterThan(0);
    expect(record['pauseSeconds']).toBeLessThan(dumpSeconds);
    expect(readFileSync(join(source.artifact, 'manifest.yaml'), 'utf8')).toMatch(
      /\nsignature:\n {2}algorithm: HMAC-SHA-256\n/,
    );
    // Nothing is left of its making, and nobody but root reads it.
    expect(readdirSync(join(source.artifact, '../tmp'))).toEqual([]);
    expect(lstatSync(source.artifact).mode & 0o077).toBe(0);
    await source.pod.remove();
  });
});

interface RecordShape {
  readonly source: { imageId: string };
  readonly platform: { criu: string };
  readonly sizes: Readonly<Record<'criuBytes' | 'bulkBytes' | 'zeroBytes' | 'rootfsBytes' | 'shmBytes', number>>;
  readonly memory: { residentBytes: number };
  readonly process: { stdio: string[]; tty?: string };
  readonly bulk: { bytes: number } | null;
}

describe('podMount', () => {
  const where = {} as { cluster: Cluster; agent: Agent };
  const through = () => ({ volume: where.cluster.volume });

  beforeAll(async () => {
    where.cluster = await Cluster.start();
    where.agent = await where.cluster.startAgent({ accessMode: 'podMount' });
  });

  afterAll(async () => {
    await where.cluster?.stop();
    expect(where.cluster?.leftovers()).toEqual([]);
  });

  test('memory', async () => {
    const { target, before, after } = await roundTrip(where, { command: workload('memory', '32'), ...through() });
    expect(after['digest']).toBe(before?.['digest']);
    await target.pod.remove();
  });

  test('files, with the volume left out of the root file system', async () => {
    const { source, target } = await roundTrip(where, { command: workload('files'), ...through() });
    expect(lstatSync(join(source.artifact, 'rootfs/diff.tar')).size).toBeLessThan(MIB);
    await target.pod.remove();
  });

  test('a checkpoint that stops its source', async () => {
    const { target } = await roundTrip(where, { command: workload('memory', '16'), after: 'stop', ...through() });
    await target.pod.remove();
  });

  test('two restores at once', async () => {
    const { cluster, agent } = where;
    const source = await checkpointed(cluster, agent, { command: workload('memory', '32'), ...through() });
    const verdict = await source.container.check();
    await source.pod.remove();
    const targets = await Promise.all([restored(cluster, agent, source), restored(cluster, agent, source)]);
    for (const { container, pod } of targets) {
      expect(await container.check()).toMatchObject({ check: 'ok', digest: verdict['digest'], host: pod.name });
      await pod.remove();
    }
  });
});
