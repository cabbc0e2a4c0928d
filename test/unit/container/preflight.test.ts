import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { planMounts } from '../../../agent/container/mounts.ts';
import { type PreflightInput, preflightProblems } from '../../../agent/container/preflight.ts';
import { parseMountinfo } from '../../../agent/container/proc.ts';
import { readTree } from '../../../agent/container/tree.ts';
import { type FakeProcess, makeProcfs, type Procfs } from '../../fakes/procfs.ts';

const made: Procfs[] = [];
afterEach(async () => {
  for (const procfs of made.splice(0)) await procfs.remove();
});

const USER_NS = 4026531837;
const overlay = planMounts(parseMountinfo('1 0 0:1 / / rw - overlay overlay rw,upperdir=/u\n'));
const facts = {
  pid: 10,
  start: 1000,
  nspid: [10, 1],
  ns: { mnt: 1, pid: 2, net: 3, ipc: 4, uts: 5, cgroup: 6, user: USER_NS },
};

/** What is found wrong with a container of these processes, the first of them its main one. */
async function problems(processes: readonly FakeProcess[], changes: Partial<PreflightInput> = {}) {
  const procfs = await makeProcfs(processes);
  made.push(procfs);
  return await preflightProblems({
    procRoot: procfs.root,
    facts,
    tree: await readTree(procfs.root, processes[0]?.pid ?? 0),
    mounts: overlay,
    projectedMountPoints: [],
    podIps: ['10.1.2.3', 'fd00::7'],
    agentUserNs: USER_NS,
    hostUpperDirs: [],
    depth: 1,
    ...changes,
  });
}
const codes = async (...given: Parameters<typeof problems>) => (await problems(...given)).map(({ code }) => code);
const main = (changes: Partial<FakeProcess> = {}): FakeProcess => ({ pid: 10, nspid: [10, 1], ...changes });

describe('preflight of a container', () => {
  it('finds nothing wrong with a plain one', async () => {
    const maps = '7f00-7f01 rw-s 00000000 00:05 1 /dev/zero (deleted)\n7f02-7f03 rw-s 00000000 00:06 2 /dev/shm/x\n';
    const fds = { 0: '/dev/null', 1: 'pipe:[1]', 3: 'anon_inode:[eventpoll]', 4: 'socket:[9]' };
    expect(await problems([main({ fds, files: { maps } })])).toEqual([]);
  });

  it.each<[string, Partial<PreflightInput>, string]>([
    ['a PID namespace shared with its pod', { facts: { ...facts, nspid: [10, 7] } }, 'SHARED_PID_NAMESPACE'],
    ['the PID namespace of the host', { facts: { ...facts, nspid: [10] } }, 'SHARED_PID_NAMESPACE'],
    ['PID namespaces in it', { facts: { ...facts, nspid: [10, 5, 1] } }, 'NESTED_PID_NAMESPACE'],
    ['fewer PID namespaces than a restored one has', { depth: 2 }, 'NESTED_PID_NAMESPACE'],
    ['a user namespace', { agentUserNs: 1 }, 'USER_NAMESPACE'],
    ['no overlay', { mounts: planMounts(parseMountinfo('1 0 0:1 / / rw - ext4 x rw\n')) }, 'ROOT_NOT_OVERLAY'],
    [
      'a read-only overlay',
      { mounts: planMounts(parseMountinfo('1 0 0:1 / / ro - overlay x ro,lowerdir=/a\n')) },
      'ROOT_NOT_OVERLAY',
    ],
  ])('sees %s', async (_, changes, code) => {
    expect(await codes([main()], changes)).toEqual([code]);
  });

  it('takes the nesting of one that was restored before', async () => {
    expect(await codes([main()], { depth: 2, facts: { ...facts, nspid: [10, 5, 1] } })).toEqual([]);
  });

  it.each([
    ['anon_inode:[io_uring]', 'IO_URING'],
    ['anon_inode:[userfaultfd]', 'USERFAULTFD'],
    ['anon_inode:[perf_event]', 'PERF_EVENT'],
    ['anon_inode:bpf-map', 'BPF'],
    ['anon_inode:bpf-prog', 'BPF'],
  ])('sees %s in any process, and says which and where', async (target, code) => {
    const processes = [main({ children: [11] }), { pid: 11, nspid: [11, 5], comm: 'helper', fds: { 8: target } }];
    expect(await problems(processes)).toMatchObject([
      {
        code,
        found: target,
        message: expect.stringMatching(/^process 5 \(helper\), fd 8 /),
        advice: expect.stringMatching(/./),
      },
    ]);
  });

  it('says the same thing of one process once', async () => {
    const fds = { 3: 'anon_inode:[io_uring]', 4: 'anon_inode:[io_uring]', 5: 'anon_inode:bpf-map' };
    expect((await codes([main({ fds })])).toSorted()).toEqual(['BPF', 'IO_URING']);
  });

  it('sees what traces a process', async () => {
    expect(await problems([main({ status: { TracerPid: '77' } })])).toMatchObject([
      { code: 'PTRACED', found: 'traced by 77' },
    ]);
  });

  it.each([
    ['/var/run/secrets/x/..data/token', true],
    ['/var/run/secrets/x/..2026_01_01/token', true],
    ['/var/run/secrets/x/token', false],
    ['/var/run/secrets/xy/..data/token', false],
  ])('sees open files that the next pod has under another name: %s', async (target, isSeen) => {
    const found = await codes([main({ fds: { 6: target } })], { projectedMountPoints: ['/var/run/secrets/x'] });
    expect(found).toEqual(isSeen ? ['PROJECTED_FILE_OPEN'] : []);
  });

  it.each([
    ['/dev/nvidia0', false],
    ['/dev/nvidia-uvm', false],
    ['/dev/dri/renderD128', true],
    ['/dev/infiniband/uverbs0', true],
    ['/dev/zero', false],
    ['/dev/null', false],
    ['/dev/shm/sem.x', false],
    ['/data/dev/file', false],
  ])('sees what is mapped of devices: %s', async (path, isSeen) => {
    const maps = `7f00-7f01 r-xp 00000000 08:01 12 /usr/bin/python3\n7f02-7f03 rw-s 00000000 00:06 400 ${path}\n`;
    expect(await problems([main({ files: { maps } })])).toMatchObject(
      isSeen ? [{ code: 'DEVICE_MAPPING', found: path }] : [],
    );
  });

  it('passes over zombies', async () => {
    const processes = [main({ children: [11] }), { pid: 11, state: 'Z', fds: { 3: 'anon_inode:[io_uring]' } }];
    expect(await codes(processes)).toEqual([]);
  });

  it('tells all at once', async () => {
    const processes = [
      main({ children: [11], fds: { 3: 'anon_inode:[io_uring]' }, status: { TracerPid: '7' } }),
      { pid: 11, fds: { 3: 'anon_inode:[userfaultfd]' } },
    ];
    const found = await codes(processes, { agentUserNs: 1, facts: { ...facts, nspid: [10, 9] } });
    expect(found).toEqual(['SHARED_PID_NAMESPACE', 'USER_NAMESPACE', 'PTRACED', 'IO_URING', 'USERFAULTFD']);
  });
});

describe('preflight of sockets', () => {
  const table = (local: string) => `sl local rem st\n 0: ${local}:1F90 00000000:0000 0A 0:0 0:0 0 0 0 555 1\n`;
  const inode = { 4: 'socket:[555]' };

  it.each([
    ['tcp', '00000000', undefined],
    ['tcp', '0100007F', undefined],
    ['tcp', '0A00007F', undefined],
    ['udp', '0302010A', undefined],
    ['tcp', '0402010A', '10.1.2.4:8080'],
    ['udp', '0402010A', '10.1.2.4:8080'],
    ['tcp6', '00000000000000000000000000000000', undefined],
    ['tcp6', '00000000000000000000000001000000', undefined],
    ['tcp6', '000000fd000000000000000007000000', undefined],
    ['udp6', '000000fd000000000000000008000000', 'fd00::8:8080'],
    ['tcp6', '0000000000000000FFFF00000302010A', undefined],
    ['tcp6', '0000000000000000FFFF00000402010A', '10.1.2.4:8080'],
  ])('%s on %s: %s', async (name, local, found) => {
    const seen = await problems([main({ fds: inode, files: { [`net/${name}`]: table(local) } })]);
    expect(seen).toMatchObject(found === undefined ? [] : [{ code: 'FOREIGN_ADDRESS', found }]);
    expect(seen).toHaveLength(found === undefined ? 0 : 1);
  });

  it('is about the sockets of this container, not of the others in its pod', async () => {
    const files = { 'net/tcp': table('0402010A') };
    expect(await codes([main({ fds: { 4: 'socket:[556]' }, files })])).toEqual([]);
    expect(await codes([main({ children: [11], files }), { pid: 11, fds: inode }])).toEqual(['FOREIGN_ADDRESS']);
  });
});

describe('preflight of a container that may mount', () => {
  const admin = main({ status: { CapBnd: '0000000000200000' } });

  it('takes the word of the host for where its root filesystem lies, not its own', async () => {
    expect(await codes([admin], { hostUpperDirs: ['/u'] })).toEqual([]);
    expect(await codes([admin], { hostUpperDirs: ['/elsewhere'] })).toEqual(['ROOT_UNPROVEN']);
    expect(await codes([admin])).toEqual(['ROOT_UNPROVEN']);
  });
});

describe('preflight of a real process', () => {
  it('finds nothing that is not there, but that it is in no container', async () => {
    const child = spawn('/bin/sh', ['-c', 'echo; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await once(child.stdout, 'data');
      const pid = child.pid ?? 0;
      const user = statSync('/proc/self/ns/user').ino;
      const found = await preflightProblems({
        procRoot: '/proc',
        facts: { ...facts, pid, nspid: [pid], ns: { ...facts.ns, user } },
        tree: await readTree('/proc', pid),
        hostUpperDirs: ['/u'],
        mounts: overlay,
        projectedMountPoints: [],
        podIps: [],
        agentUserNs: user,
        depth: 1,
      });
      expect(found.map(({ code }) => code)).toEqual(['SHARED_PID_NAMESPACE']);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
