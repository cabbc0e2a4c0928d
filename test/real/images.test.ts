import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diagnose } from '../../agent/criu/diagnosis.ts';
import { type AdmissionTarget, admissionProblems, type Images, readImages } from '../../agent/criu/images/admission.ts';
import { adoptBulk } from '../../agent/criu/images/adoption.ts';
import { planBulk } from '../../agent/criu/images/bulk.ts';
import { checkPages } from '../../agent/criu/images/pagemap.ts';
import { rewriteSockets } from '../../agent/criu/images/socket-rewrite.ts';
import { readInetSockets } from '../../agent/criu/images/sockets.ts';
import { readDumpStats, readRestoreStats } from '../../agent/criu/stats.ts';
import {
  type CriuRoom,
  dump,
  externalMounts,
  openCriuRoom,
  restoreStopped,
  startWorkload,
  until,
} from './criu-images.ts';
import { eventually } from './environment/host.ts';

/**
 * Images of a real dump: what is read from them equals what /proc said, and a process whose large memory went round CRIU is the same
 * process afterwards. The tests build on each other.
 */

const MIB = 1 << 20;
const HELPER = path.resolve('native/build/snapshot-helper');

const status = (pid: number) => readFileSync(`/proc/${pid}/status`, 'utf8');
const field = (pid: number, name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status(pid))?.[1] ?? '';
const inner = (pid: number) => Number(field(pid, 'NSpid').split(/\s+/).at(-1));
const children = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
const startTime = (pid: number) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19] ?? '';
const caps = (pid: number, set: string) => BigInt(`0x${field(pid, set)}`);

/** A sum over the memory map of a process, in MiB. */
function memory(pid: number, name: string): number {
  const values = readFileSync(`/proc/${pid}/smaps`, 'utf8').matchAll(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'gm'));
  return [...values].reduce((sum, match) => sum + Number(match[1]), 0) / 1024;
}

function facts(pid: number) {
  return {
    pid: inner(pid),
    comm: field(pid, 'Name'),
    threads: Number(field(pid, 'Threads')),
    uids: field(pid, 'Uid').split('\t').map(Number),
    permitted: caps(pid, 'CapPrm'),
    bounding: caps(pid, 'CapBnd'),
    noNewPrivs: field(pid, 'NoNewPrivs') === '1',
    seccomp: Number(field(pid, 'Seccomp')),
  };
}

function fromImages(images: Images) {
  return images.processes.map(({ pid, comm, threads, credentials }) => ({
    pid,
    comm,
    threads: threads.length,
    uids: Object.values(credentials[0]?.uids ?? {}),
    permitted: credentials[0]?.capabilities.permitted,
    bounding: credentials[0]?.capabilities.bounding,
    noNewPrivs: credentials[0]?.noNewPrivs,
    seccomp: credentials[0]?.seccompMode,
  }));
}

let room: CriuRoom;
let server: Server;
let images: string;
let external: string[];
let mountPoints: string[];
let seen: ReturnType<typeof facts>[];
let pssBefore: number;
let filters: string[];
let target: AdmissionTarget;
let keyFile: string;
const file = (name: string) => path.join(room.exchange, name);

/** Runs a verb of the helper with the artifact's key on descriptor 3; returns the last line of its output. */
function helper(verb: string, ...argv: string[]): Record<string, unknown> {
  const key = openSync(keyFile, 'r');
  try {
    const out = execFileSync(HELPER, [verb, '--key-fd', '3', ...argv], {
      stdio: ['ignore', 'pipe', 'inherit', key],
      encoding: 'utf8',
    });
    return JSON.parse(out.trim().split('\n').at(-1) ?? '{}');
  } finally {
    closeSync(key);
  }
}

beforeAll(async () => {
  room = await openCriuRoom();
  server = createServer(() => undefined).listen(0, '127.0.0.1');
  await until(() => server.listening, 'the listener');
  const { port } = server.address() as AddressInfo;
  keyFile = file('key');
  writeFileSync(keyFile, randomBytes(32).toString('hex'));
  const { pid } = await startWorkload(room, ['/workload/criu-workload', '/exchange', '64', String(port)]);
  await until(() => existsSync(file('hash-child-0')) && existsSync(file('hash-parent-0')), 'the hashes');
  const tree = [pid, ...children(pid)];
  seen = tree.map(facts);
  pssBefore = tree.reduce((sum, one) => sum + memory(one, 'Pss'), 0);
  external = externalMounts(pid);
  mountPoints = readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  const asked = ['seccomp', '--pid', String(tree[1]), '--start', startTime(tree[1] ?? 0)];
  filters = JSON.parse(execFileSync(HELPER, asked, { encoding: 'utf8' })).filters;
  target = {
    recordedMountPoints: mountPoints,
    mountPoints,
    boundingCaps: caps(pid, 'CapBnd'),
    permittedCaps: caps(pid, 'CapPrm'),
    noNewPrivs: false,
    seccompMode: 0,
    seccompFilters: [],
    lsmLabel: undefined,
    externalKeys: external.map((point) => `mnt[${point}]`),
  };
  dump(room, pid, 'images');
  images = file('images');
});

afterAll(() => {
  server?.close();
  room?.close();
});

describe('images of a real dump', () => {
  it('have the processes and mounts that /proc showed', async () => {
    const read = await readImages(images);
    expect(read.processes.map(({ ppid }) => ppid)).toEqual([0, 1]);
    expect(fromImages(read)).toEqual(seen);
    expect(read.mounts.map((mount) => mount.mountPoint).sort()).toEqual(mountPoints.toSorted());
    expect(read.mounts.flatMap((mount) => mount.externalKey ?? []).sort()).toEqual(external.toSorted());
    const oldest = read.processes[1]?.credentials[0]?.seccompFilter;
    expect(filters).toHaveLength(2);
    expect(read.seccompChain(oldest ?? -1).map(({ code }) => code)).toEqual(filters);
    expect(read.inventory).toEqual({ imageVersion: 2, lsm: 'none', plugins: [] });
  });

  it('are admitted into the container that they came from, and refused elsewhere with every reason', async () => {
    const read = await readImages(images);
    expect(admissionProblems(read, target)).toEqual([]);
    const [dropped, ...fewer] = mountPoints.toSorted().toReversed();
    const narrow = {
      ...target,
      mountPoints: fewer,
      recordedMountPoints: [...mountPoints, '/more'],
      boundingCaps: target.boundingCaps & ~(1n << 21n),
      noNewPrivs: true,
      seccompMode: 2,
      seccompFilters: ['0600000000000000'],
      lsmLabel: 'workload',
      externalKeys: target.externalKeys.slice(1),
    };
    const reasons = admissionProblems(read, narrow);
    expect(reasons.map(({ code }) => code)).toEqual([
      'MOUNT_UNEXPECTED',
      'MOUNT_MISSING',
      'CAPABILITY_EXCEEDED',
      'NO_NEW_PRIVS_WEAKER',
      'SECCOMP_WEAKER',
      'LSM_LABEL_DIFFERS',
      'EXTERNAL_UNKNOWN',
    ]);
    expect(reasons.find(({ code }) => code === 'CAPABILITY_EXCEEDED')?.found).toBe('CAP_SYS_ADMIN');
    expect(reasons.find(({ code }) => code === 'MOUNT_MISSING')?.message).toContain(String(dropped));
  });

  it('come with a log that shows no failure and statistics', async () => {
    expect(diagnose(readFileSync(path.join(images, 'dump.log'), 'utf8'))).toEqual([]);
    const stats = await readDumpStats(path.join(images, 'stats-dump'));
    expect(stats.pagesWritten * 4096).toBeGreaterThan(2 * 88 * MIB);
    expect(stats.frozenSeconds).toBeGreaterThan(0);
    expect(stats.frozenSeconds).toBeLessThan(60);
  });

  it('lose only the connection whose other end is outside, and move with the own address', async () => {
    const before = await readInetSockets(images);
    expect(before.filter((socket) => socket.state === 1)).toHaveLength(3);
    const changes = await rewriteSockets(images, { sourceIps: ['127.0.0.2'], targetIps: ['127.0.0.3'] });
    expect(changes.map(({ action, peer }) => [action, peer]).filter(([action]) => action === 'closed')).toEqual([
      ['closed', { address: '127.0.0.1', port: (server.address() as AddressInfo).port }],
    ]);
    expect(changes.filter(({ action }) => action === 'moved')).toHaveLength(3);
    const after = await readInetSockets(images);
    expect(after.filter((socket) => socket.state === 1)).toHaveLength(2);
    const addresses = after.flatMap(({ source, peer }) => [source.address, peer.address]);
    expect([addresses.includes('127.0.0.2'), addresses.includes('127.0.0.3')]).toEqual([false, true]);
    expect(await rewriteSockets(images, { sourceIps: [], targetIps: [] })).toEqual([]);
  });
});

describe('memory that goes round CRIU', () => {
  let root: number;

  it('is planned, moved and taken out of the images', async () => {
    const plan = await planBulk(images, { minRangeBytes: 4 * MIB });
    expect(plan.processes).toEqual([1, seen[1]?.pid]);
    // Own memory, zeros, and the part of the common memory that the child rewrote; in each process.
    expect(plan.movedBytes / MIB).toBe(2 * (8 + 16 + 8));
    expect(plan.sharedBytes / MIB).toBe(2 * 56);
    writeFileSync(file('plan'), plan.text);
    const moved = helper(
      'bulk-write',
      '--plan',
      file('plan'),
      '--bulk',
      file('bulk.pages'),
      '--index',
      file('bulk.index'),
    );
    expect(moved).toMatchObject({ bytes: 2 * 16 * MIB, zeroBytes: 2 * 16 * MIB });
    await adoptBulk(images, plan);
    await checkPages(images);
    expect(statSync(path.join(images, 'pages-1.img')).size).toBeLessThan(57 * MIB);
    expect((await planBulk(images, { minRangeBytes: 4 * MIB })).text).toBe('');
    expect(admissionProblems(await readImages(images), target)).toEqual([]);
  });

  it('is filled into the stopped processes, which then are the same', async () => {
    root = await restoreStopped(room, 'images', external);
    const tree = [root, ...children(root)];
    // CRIU lets go of them with a SIGSTOP: on a busy machine they take a moment until they have stopped, without running.
    const states = () => tree.map((pid) => field(pid, 'State')[0]).join('');
    await eventually('both processes to stop', () => (states() === 'TT' ? true : undefined), { explain: states });
    const mapping = tree.map((pid) => `${inner(pid)}=${pid}:${startTime(pid)}`);
    const filled = helper('bulk-fill', '--bulk', file('bulk.pages'), '--index', file('bulk.index'), ...mapping);
    expect(filled).toMatchObject({ bytes: 2 * 16 * MIB });
    for (const pid of tree.toReversed()) process.kill(pid, 'SIGUSR1');
    for (const pid of tree.toReversed()) process.kill(pid, 'SIGCONT');
    await until(
      () => existsSync(file('hash-child-1')) && existsSync(file('hash-parent-1')),
      'the hashes after the restore',
    );
    for (const role of ['parent', 'child']) {
      const [before, after] = [0, 1].map((turn) => readFileSync(file(`hash-${role}-${turn}`), 'utf8').split(' '));
      expect(after?.[0]).toBe(before?.[0]);
      expect(after?.[1]).toBe(role === 'parent' ? 'hello' : '-');
      expect([before?.[2], after?.[2]]).toEqual(['open', 'closed']);
    }
  });

  it('listens at the new address', async () => {
    const listening = (await readInetSockets(images)).find((socket) => socket.state === 10);
    expect(listening?.source.address).toBe('127.0.0.3');
    const connection = connect(listening?.source.port ?? 0, '127.0.0.3');
    await once(connection, 'connect');
    connection.destroy();
    const former = connect(listening?.source.port ?? 0, '127.0.0.2');
    await expect(once(former, 'connect')).rejects.toThrow('ECONNREFUSED');
  });

  it('is still shared by parent and child where it was, and zeros cost nothing', async () => {
    const tree = [root, ...children(root)];
    const pss = tree.reduce((sum, pid) => sum + memory(pid, 'Pss'), 0);
    // The zero pages, 16 MiB shared at the source, are read as the one zero page now.
    expect(pss).toBeLessThan(pssBefore - 12);
    expect(pss).toBeGreaterThan(56 + 2 * 16);
    for (const pid of tree) expect(memory(pid, 'Shared_Dirty')).toBeGreaterThan(55);
    const stats = await readRestoreStats(file('images-work/stats-restore'));
    expect(stats.pagesShared * 4096).toBeGreaterThanOrEqual(56 * MIB);
    expect(stats.restoreSeconds).toBeGreaterThan(0);
  });
});
