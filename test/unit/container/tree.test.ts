import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { containerTasks } from '../../../agent/container/tasks.ts';
import { isEnding, readDescriptors, readProcess, readTree } from '../../../agent/container/tree.ts';
import { type FakeProcess, makeProcfs, type Procfs } from '../../fakes/procfs.ts';

const made: Procfs[] = [];
const procfsOf = async (...processes: FakeProcess[]) => {
  const procfs = await makeProcfs(processes);
  made.push(procfs);
  return procfs;
};
afterEach(async () => {
  for (const procfs of made.splice(0)) await procfs.remove();
});
const pids = (tree: Awaited<ReturnType<typeof readTree>>) => tree.map(({ stat }) => stat.pid);

describe('a process', () => {
  it.each([
    [{ state: 'S' }, false],
    [{ state: 'T' }, false],
    [{ state: 'Z' }, true],
    [{ state: 'D', status: { SigPnd: '0000000000000100' } }, true],
    [{ state: 'D', status: { SigPnd: '0000000000004000' } }, false],
  ])('is seen to be ending, or not: %j', async (seen, isOver) => {
    const procfs = await procfsOf({ pid: 10, ...seen });
    const process = await readProcess(procfs.root, 10);
    expect(process && isEnding(process)).toBe(isOver);
  });
});

describe('the tree of a process', () => {
  it('has parents before children, and the children of every thread', async () => {
    const procfs = await procfsOf(
      { pid: 10, children: [11], threadChildren: { 15: [12] } },
      { pid: 11, children: [13] },
      { pid: 12, children: [14] },
      { pid: 13 },
      { pid: 14 },
      { pid: 20 },
    );
    expect(pids(await readTree(procfs.root, 10))).toEqual([10, 11, 12, 13, 14]);
  });

  it('leaves out what ended meanwhile', async () => {
    const procfs = await procfsOf({ pid: 10, children: [11, 12] }, { pid: 12 });
    expect(pids(await readTree(procfs.root, 10))).toEqual([10, 12]);
    expect(await readTree(procfs.root, 99)).toEqual([]);
  });

  it('is read of real processes', async () => {
    const child = spawn('/bin/sh', ['-c', 'sleep 60 & echo $!; wait'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      const [line] = (await once(child.stdout, 'data')) as [Buffer];
      const tree = await readTree('/proc', child.pid ?? 0);
      expect(pids(tree)).toEqual([child.pid, Number(line.toString())]);
      expect(tree[1]?.stat.ppid).toBe(child.pid);
      expect(tree[1]?.status.nspid.at(-1)).toBe(Number(line.toString()));
      process.kill(Number(line.toString()), 'SIGKILL');
    } finally {
      child.kill('SIGKILL');
    }
  });
});

describe('one process', () => {
  it('is undefined where it is gone', async () => {
    expect(await readProcess('/proc', 0x7ffffff0)).toBeUndefined();
  });

  it('has descriptors with what they refer to', async () => {
    const procfs = await procfsOf({ pid: 10, fds: { 0: '/dev/null', 7: 'pipe:[99]', 12: 'anon_inode:inotify' } });
    expect(await readDescriptors(procfs.root, 10)).toEqual(
      new Map([
        [0, '/dev/null'],
        [7, 'pipe:[99]'],
        [12, 'anon_inode:inotify'],
      ]),
    );
    expect(await readDescriptors(procfs.root, 11)).toEqual(new Map());
  });
});

describe('the tasks of a container', () => {
  const start = 1000;
  const cgroup = (text: string): FakeProcess[] => [
    { pid: 10, children: [11], start, files: { cgroup: text } },
    { pid: 11, start },
    { pid: 30, start: 77 },
    { pid: 31, start: 78 },
  ];
  const tasks = async (text: string, files: Record<string, string>) => {
    const procfs = await procfsOf(...cgroup(text));
    for (const [path, content] of Object.entries(files)) await procfs.write(`cg/${path}`, content);
    return await containerTasks({ procRoot: procfs.root, cgroupRoot: `${procfs.root}/cg` }, 10);
  };
  const tree = [
    { pid: 10, start },
    { pid: 11, start },
  ];

  it('are its tree and what else is in its cgroup, each once and with its start time', async () => {
    const found = await tasks('0::/pods/c1\n', { 'pods/c1/cgroup.procs': '10\n11\n30\n' });
    expect(found).toEqual([...tree, { pid: 30, start: 77 }]);
  });

  it('are found in the hierarchy of pids on cgroup v1', async () => {
    const text = '12:memory:/pods/c1\n5:pids:/pods/c1\n1:name=systemd:/pods/c1\n0::/\n';
    const found = await tasks(text, { 'pids/pods/c1/cgroup.procs': '10\n31\n', 'memory/pods/c1/cgroup.procs': '30\n' });
    expect(found).toEqual([...tree, { pid: 31, start: 78 }]);
  });

  it('are found where a hybrid machine mounts the unified hierarchy', async () => {
    expect(await tasks('0::/c1\n', { 'unified/c1/cgroup.procs': '31\n' })).toEqual([...tree, { pid: 31, start: 78 }]);
  });

  it('are never all of the machine', async () => {
    expect(await tasks('0::/\n', { 'cgroup.procs': '10\n30\n31\n' })).toEqual(tree);
  });

  it.each([
    ['no cgroup at all', '', {}],
    ['a cgroup that is gone', '0::/pods/c1\n', {}],
    ['a process that ended meanwhile', '0::/c1\n', { 'c1/cgroup.procs': '10\n999\n' }],
  ])('are the tree where there is %s', async (_, text, files) => {
    expect(await tasks(text, files)).toEqual(tree);
  });

  it('may lie in a cgroup with colons in its name', async () => {
    const found = await tasks('0::/pods/cri:c1:x\n', { 'pods/cri:c1:x/cgroup.procs': '30\n' });
    expect(found).toEqual([...tree, { pid: 30, start: 77 }]);
  });
});
