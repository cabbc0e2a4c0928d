import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import { host } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { workload } from './environment/pod.ts';
import { namespaceOf, processes } from './environment/processes.ts';
import {
  checkpointed,
  finished,
  freshName,
  markReady,
  operationEnd,
  readRecord,
  requireSuccess,
  restored,
  runSource,
  runTarget,
  type SourceRequest,
  sentinel,
  snapshotPod,
} from './scenario.ts';

/** How the restored process fits into the container it was restored into: its limits, identity, surroundings. */
let cluster: Cluster;
let agent: Agent;

beforeAll(async () => {
  cluster = await Cluster.start();
  agent = await cluster.startAgent();
});

afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const MIB = 1 << 20;

/** Lines of /proc/PID/status that say what a process may do. */
const RIGHTS = [
  'Uid',
  'Gid',
  'Groups',
  'CapInh',
  'CapPrm',
  'CapEff',
  'CapBnd',
  'CapAmb',
  'NoNewPrivs',
  'Seccomp',
  'Seccomp_filters',
];

function rights(pid: number, tid: number | string = pid): Record<string, string> {
  const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
  return Object.fromEntries(
    RIGHTS.map((name) => [name, new RegExp(`^${name}:\\s*(.*?)\\s*$`, 'm').exec(status)?.[1] ?? 'absent']),
  );
}

/** Restores a workload into a target like its source, verified on both sides; the rights of its process before and after. */
async function moved(request: SourceRequest) {
  const source = await checkpointed(cluster, agent, request);
  const before = await source.container.check();
  expect(before).toMatchObject({ check: 'ok', problems: [] });
  const sourceRights = rights(await source.container.pid());
  const target = await restored(cluster, agent, source);
  const after = await target.container.check();
  expect(after).toMatchObject({ check: 'ok', problems: [], pid: 1 });
  const root = await target.container.workloadPid();
  const first = await target.container.pid();
  expect(root).not.toBe(first);
  const remove = async () => {
    await source.pod.remove();
    await target.pod.remove();
  };
  return { source, target, before, after, root, first, sourceRights, targetRights: rights(root), remove };
}

test('a user that is not root', async () => {
  const { after, sourceRights, targetRights, remove } = await moved({
    command: workload('memory', '8'),
    user: 1000,
    group: 2000,
  });
  expect(after['uid']).toBe(1000);
  expect(targetRights).toEqual(sourceRights);
  expect(targetRights).toMatchObject({ Uid: '1000\t1000\t1000\t1000', CapEff: '0000000000000000' });
  expect(targetRights['Gid']).toBe('2000\t2000\t2000\t2000');
  await remove();
});

test('a read-only root file system', async () => {
  const { target, root, remove } = await moved({ command: workload('memory', '8'), readOnlyRoot: true });
  const mountinfo = readFileSync(`/proc/${root}/mountinfo`, 'utf8').split('\n');
  expect(mountinfo.find((line) => line.split(' ')[4] === '/')?.split(' ')[5]).toMatch(/^ro(,|$)/);
  expect((await target.container.exec('touch', '/file')).exitCode).not.toBe(0);
  await remove();
});

test.each(["the runtime's", "this machine's"])('%s seccomp profile and no new privileges', async (whose) => {
  const profile = join(cluster.directory, 'without-io-uring.json');
  const rules = [{ names: ['io_uring_setup'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }];
  await writeFile(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: rules }));
  const { root, sourceRights, targetRights, remove } = await moved({
    command: workload('tree'),
    seccomp: whose === "the runtime's" ? 'RuntimeDefault' : profile,
    noNewPrivileges: true,
  });
  expect(targetRights).toEqual(sourceRights);
  expect(targetRights).toMatchObject({ Seccomp: '2', NoNewPrivs: '1' });
  // Of every thread of every process.
  const all = processes().filter(({ pid, state }) => state !== 'Z' && isBelow(pid, root));
  const threads = all.flatMap(({ pid }) => readdirSync(`/proc/${pid}/task`).map((tid) => rights(pid, tid)));
  expect(threads.length).toBeGreaterThan(all.length);
  for (const thread of threads) expect(thread).toEqual(sourceRights);
  await remove();
});

test('dropped and added capabilities', async () => {
  const none = await moved({ command: workload('memory', '8'), dropCapabilities: ['ALL'] });
  expect(none.targetRights).toEqual(none.sourceRights);
  expect(none.targetRights).toMatchObject({ CapBnd: '0000000000000000', CapEff: '0000000000000000' });
  await none.remove();
  const added = await moved({ command: workload('memory', '8'), addCapabilities: ['NET_ADMIN'] });
  expect(added.targetRights).toEqual(added.sourceRights);
  expect(BigInt(`0x${added.targetRights['CapEff']}`) & (1n << 12n)).not.toBe(0n);
  await added.remove();
});

test('a terminal', async () => {
  const { source, target, root, first, remove } = await moved({
    command: workload('memory', '8'),
    tty: true,
    stdin: true,
  });
  expect(readRecord(source.artifact)).toMatchObject({
    process: { tty: expect.stringMatching(/^[0-9a-f]+:[0-9a-f]+$/) },
  });
  const terminal = (pid: number, fd: number) => {
    const { rdev, dev, ino } = statSync(`/proc/${pid}/fd/${fd}`);
    return { rdev, dev, ino };
  };
  for (const fd of [0, 1, 2]) expect(terminal(root, fd)).toEqual(terminal(first, 0));
  expect(target.container.output().length).toBeGreaterThan(0);
  await remove();
});

test("the host's network, with sockets, once the source is gone that had them", async () => {
  const request = { command: workload('sockets'), pod: { hostNetwork: true }, after: 'stop' as const };
  const source = await checkpointed(cluster, agent, request);
  await source.pod.remove();
  const target = await restored(cluster, agent, source);
  expect(await target.container.check()).toMatchObject({ check: 'ok', problems: [], ownAddress: '' });
  expect(namespaceOf(await target.container.workloadPid(), 'net')).toBe(namespaceOf(process.pid, 'net'));
  await target.pod.remove();
});

test('a memory limit that is not much more than the memory', async () => {
  const limit = 128 * MIB;
  const { root, remove } = await moved({ command: workload('memory', '80', '1'), memoryLimitBytes: limit });
  const group = memoryGroup(root);
  expect(group.limit).toBe(limit);
  // The restored memory is charged to the pod that holds it.
  expect(group.usage).toBeGreaterThan(80 * MIB);
  expect(group.kills).toBe(0);
  await remove();
});

test('two target containers of one pod, each for itself; others are left alone', async () => {
  const source = await checkpointed(cluster, agent, { command: workload('memory', '16') });
  const verdict = await source.container.check();
  const { labels, annotations } = snapshotPod({ id: source.id, containers: ['first', 'second', 'third'] });
  const pod = await cluster.runPod({ name: freshName('several'), labels, annotations });
  const first = await pod.runPlaceholder({ name: 'first' });
  const sidecar = await pod.run({ name: 'sidecar', command: workload('memory', '4') });
  // Another image than the artifact's: refused, which is nothing to the others.
  const second = await pod.runPlaceholder({
    name: 'second',
    image: IMAGES.workload,
    command: ['/usr/bin/sleep', 'infinity'],
  });
  const third = await pod.runPlaceholder({ name: 'third' });
  for (const container of [first, third]) {
    requireSuccess(agent, await operationEnd(agent, 'restore', container), container);
    expect(await container.check()).toMatchObject({ check: 'ok', digest: verdict['digest'], host: pod.name });
    expect(sentinel(container, SENTINELS.restored)).toMatch(/^done\n/);
  }
  expect(await operationEnd(agent, 'restore', second)).toMatchObject({ result: 'refused', code: 'RESTORE_REFUSED' });
  expect((await second.status()).state).toBe('CONTAINER_RUNNING');
  expect(await second.workloadPid()).toBe(await second.pid());
  await sidecar.ready();
  expect(await sidecar.check()).toMatchObject({ check: 'ok' });
  expect(agent.logs().filter((line) => line['containerId'] === sidecar.id)).toEqual([]);
  await pod.remove();
  await source.pod.remove();
});

test("the log goes on in the new container's log file, output and errors apart", async () => {
  const source = await checkpointed(cluster, agent, { command: workload('memory', '4') });
  const target = await restored(cluster, agent, source);
  const from = Number((await target.container.check())['beats']);
  const next = await target.container.waitForOutput('a beat', (line) => Number(line['beat']) > from);
  const errors = () => target.container.logs().filter((line) => line.stream === 'stderr');
  await expect
    .poll(errors, { timeout: 5000 })
    .toContainEqual(expect.objectContaining({ text: `error output ${next['beat']}` }));
  // Every line that the restored process wrote is there, none of the source's.
  const beats = target.container.output().flatMap((line) => ('beat' in line ? [Number(line['beat'])] : []));
  expect(beats).toEqual(beats.map((_, index) => (beats[0] ?? 0) + index * 20));
  expect(target.container.output().some((line) => 'ready' in line)).toBe(false);
  expect(target.container.logs().some(({ stream, text }) => stream === 'stdout' && text.startsWith('error'))).toBe(
    false,
  );
  // Nor does it write into the source's.
  const written = source.container.logs().length;
  const beat = source.container.output().findLast((line) => 'beat' in line)?.['beat'];
  await source.container.waitForOutput('its next beat', (line) => Number(line['beat']) > Number(beat));
  const own = source.container.output().flatMap((line) => ('beat' in line ? [Number(line['beat'])] : []));
  expect(own).toEqual(own.map((_, index) => (index + 1) * 20));
  expect(source.container.logs().length).toBeGreaterThan(written);
  await target.pod.remove();
  await source.pod.remove();
});

test('it is the new pod that the restored process sees: name, hosts, token, addresses', async () => {
  const { source, target, before, after, remove } = await moved({ command: workload('surroundings') });
  const seen = ({ pod }: { pod: typeof source.pod }) => ({
    host: pod.name,
    hosts: expect.stringContaining(`${pod.ip}\t${pod.name}`),
    token: `token-of-${pod.name}`,
    addresses: ['127.0.0.1', pod.ip].sort(),
  });
  expect(before).toMatchObject(seen(source));
  expect(after).toMatchObject(seen(target));
  expect(after['mountPoints']).toEqual(before['mountPoints']);
  // It sees itself and nothing else: not the placeholder that it was restored into.
  expect(after['processes']).toEqual([1]);
  // The environment is memory: what the process was started with. The control directory has the new pod's.
  expect(after['environment']).toBe(source.pod.name);
  await remove();
});

test('namespaces and cgroups are those of the new container, for every process', async () => {
  const source = await checkpointed(cluster, agent, { command: workload('tree') });
  const target = await restored(cluster, agent, source);
  expect(await target.container.check()).toMatchObject({ check: 'ok' });
  const first = await target.container.pid();
  const cgroups = readFileSync(`/proc/${first}/cgroup`, 'utf8');
  const tree = processes().filter(({ pid, nspid }) => pid !== first && nspid.length === 3 && isBelow(pid, first));
  expect(tree).toHaveLength(8);
  for (const { pid, state } of tree) {
    if (state === 'Z') continue;
    for (const kind of ['net', 'ipc', 'uts', 'cgroup', 'user'] as const)
      expect({ kind, name: namespaceOf(pid, kind) }).toEqual({ kind, name: namespaceOf(first, kind) });
    expect(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).toBe(cgroups);
  }
  expect(cgroups).toContain(target.container.id);
  await target.pod.remove();
  await source.pod.remove();
});

test('a target that is there before the artifact waits for it; nothing but the diff comes into it', async () => {
  const source = await runSource(cluster, { command: workload('files') });
  const target = await runTarget(cluster, source);
  const first = await target.container.pid();
  await agent.waitForLog(
    'that it waits',
    (line) => line['containerId'] === target.container.id && line['msg'] === 'not yet',
  );
  const before = facts(first);
  const ownFiles = await upperFiles(first);
  await markReady(source.container);
  await finished(cluster, agent, source);
  requireSuccess(agent, await operationEnd(agent, 'restore', target.container), target.container);
  expect(await target.container.check()).toMatchObject({ check: 'ok', problems: [] });

  // The container's first process, its mounts and its descriptors are what they were.
  expect(await target.container.pid()).toBe(first);
  expect(facts(first)).toEqual(before);
  // Every file that is now in its root file system came with the diff, and all of the diff is there, as it was.
  const diff = await upperFiles(await source.container.pid());
  const now = await upperFiles(first);
  const isRemoval = (file: string) => file.startsWith('c ');
  const added = [...now].filter(([path, file]) => !isRemoval(file) && ownFiles.get(path) !== file);
  expect(added.map(([path]) => path).filter((path) => !diff.has(path))).toEqual([]);
  for (const [path, file] of diff) expect({ path, file: now.get(path) }).toEqual({ path, file });
  // The restored process has the mounts that the source had, and none besides.
  const mountPoints = (pid: number) =>
    mounts(pid)
      .map((line) => line.split(' ')[4])
      .sort();
  const root = await target.container.workloadPid();
  expect(new Set(mountPoints(root))).toEqual(new Set(mountPoints(await source.container.pid())));
  // And nobody else is in the container: no CRIU, no helper of the agent's.
  const members = processes().filter(({ cgroups }) => cgroups.includes(target.container.id));
  expect(members.map(({ pid }) => pid).sort()).toEqual([first, root].sort());
  await target.pod.remove();
  await source.pod.remove();
});

function isBelow(pid: number, ancestor: number): boolean {
  const parents = new Map(processes().map((one) => [one.pid, one.parent]));
  for (let at: number | undefined = pid; at !== undefined && at > 0; at = parents.get(at))
    if (at === ancestor) return true;
  return false;
}

function mounts(pid: number): string[] {
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8').trim().split('\n');
}

/** What a restore must not change about the container's first process. */
function facts(pid: number): Record<string, unknown> {
  const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => [fd, readlinkSync(`/proc/${pid}/fd/${fd}`)]);
  return {
    mounts: mounts(pid),
    descriptors: Object.fromEntries(descriptors),
    root: readlinkSync(`/proc/${pid}/root`),
    cwd: readlinkSync(`/proc/${pid}/cwd`),
    environment: readFileSync(`/proc/${pid}/environ`, 'utf8'),
    command: readFileSync(`/proc/${pid}/cmdline`, 'utf8'),
    rights: rights(pid),
  };
}

/** What lies in the upper directory of a container's root file system: type, mode, owner and link target by path. */
async function upperFiles(pid: number): Promise<Map<string, string>> {
  const options = mounts(pid).find((line) => line.split(' ')[4] === '/');
  const upper = /[ ,]upperdir=([^, ]+)/.exec(options ?? '')?.[1];
  if (upper === undefined) throw new Error(`process ${pid} has no overlay as its root`);
  const text = await host(['find', upper, '-mindepth', '1', '-printf', '%y %m %U:%G %l\\t%P\\0']);
  const entries = text.split('\0').filter((entry) => entry !== '');
  return new Map(entries.map((entry) => [entry.slice(entry.indexOf('\t') + 1), entry.slice(0, entry.indexOf('\t'))]));
}

/** The memory cgroup of a process: v1 or v2, whichever this machine has. */
function memoryGroup(pid: number): { limit: number; usage: number; kills: number } {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n');
  const v1 = lines.find((line) => line.split(':')[1] === 'memory')?.split(':')[2];
  const v2 = lines.find((line) => line.startsWith('0::'))?.slice(3);
  const directory = v1 === undefined ? `/sys/fs/cgroup${v2}` : `/sys/fs/cgroup/memory${v1}`;
  const read = (name: string) => readFileSync(join(directory, name), 'utf8');
  const names =
    v1 === undefined ? ['memory.max', 'memory.current'] : ['memory.limit_in_bytes', 'memory.usage_in_bytes'];
  const [limit = 0, usage = 0] = names.map((name) => Number(read(name)));
  const events = read(v1 === undefined ? 'memory.events' : 'memory.oom_control');
  return { limit, usage, kills: Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0) };
}
