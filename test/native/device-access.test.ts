import { execFileSync, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  adopt,
  environment,
  failure,
  helperPath,
  scratch,
  startContainer,
  startSubject,
  tidyUp,
  until,
  verb,
} from './programs.ts';

/**
 * Whether a container may open device nodes. What stands for GPUs are devices that anybody may open without harm; the kernel's device
 * cgroup does not tell one from the other.
 */
const CGROUPS = '/sys/fs/cgroup';
const NULL = '1:3';
const ZERO = '1:5';
/** A major that the kernel keeps for experiments: nobody answers an open of such a node. */
const NOBODY = '240:0';

let container: Awaited<ReturnType<typeof startContainer>>;
let dev: string;
const made: string[] = [];

beforeEach(async () => {
  container = await startContainer();
  dev = join(container.root, 'dev');
  mkdirSync(dev);
});
afterEach(async () => {
  container.child.kill('SIGKILL');
  await container.ended;
  for (const directory of made.splice(0)) {
    await until(() => membersOf(directory).length === 0, 20_000);
    rmdirSync(directory);
  }
});
afterAll(tidyUp);

const sh = (program: string, ...args: readonly string[]) => execFileSync(program, args, { stdio: 'pipe' });
const node = (name: string, device: string) => sh('mknod', join(dev, name), 'c', ...device.split(':'));
const membersOf = (directory: string) =>
  readFileSync(join(directory, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);

function newCgroup(hierarchy: string): string {
  const directory = join(CGROUPS, hierarchy, basename(scratch()));
  mkdirSync(directory);
  made.push(directory);
  return directory;
}

/** Puts the container into a new cgroup of this hierarchy. */
function joins(hierarchy: string): string {
  const directory = newCgroup(hierarchy);
  writeFileSync(join(directory, 'cgroup.procs'), `${container.pid}`);
  return directory;
}

/** What the container's device cgroup denies from now on. */
function denied(...rules: readonly string[]): string {
  const directory = joins('devices');
  for (const rule of rules) writeFileSync(join(directory, 'devices.deny'), rule);
  return directory;
}

const args = (opened: readonly string[], cgroupRoot = CGROUPS) => [
  ...['devices', ...container.target, '--dir', '/dev', '--prefix', 'gpu', '--major', '1', '--major', '240'],
  ...opened.flatMap((device) => ['--open', device]),
  ...['--cgroup-root', cgroupRoot],
];

interface Answer {
  /** By path: `usable`, and the error where there was one. A device that was not to be opened has neither. */
  readonly access: Readonly<Record<string, unknown>>;
  readonly untried: Readonly<Record<string, string>> | undefined;
}

async function access(opened: readonly string[], cgroupRoot?: string): Promise<Answer> {
  const { devices, untried } = await verb(args(opened, cgroupRoot));
  const found = devices as { path: string; usable?: boolean | null; errno?: string }[];
  return {
    access: Object.fromEntries(
      found.map(({ path, usable, errno }) => [path, errno === undefined ? usable : { usable, errno }]),
    ),
    untried: untried as Answer['untried'],
  };
}

const REFUSED = { usable: false, errno: 'EPERM' };

describe('a device node is usable', () => {
  test('where the device cgroup of the container lets it be opened, and not where it does not', async () => {
    const cgroup = denied(`c ${NULL} rwm`);
    node('gpu0', ZERO);
    node('gpu1', NULL);
    node('another-name', NULL);
    expect(await access([NULL, ZERO])).toEqual({
      access: { gpu0: true, gpu1: REFUSED, 'another-name': REFUSED },
      untried: undefined,
    });
    expect(membersOf(cgroup)).toEqual([container.pid]);
    // The rules of the container, not those of who asks: they are asked each time.
    writeFileSync(join(cgroup, 'devices.allow'), `c ${NULL} rw`);
    expect(await access([NULL, ZERO])).toMatchObject({ access: { gpu0: true, gpu1: true, 'another-name': true } });
  });

  test('only for reading and writing: a GPU is of no use otherwise', async () => {
    denied(`c ${NULL} w`);
    node('gpu0', NULL);
    expect(await access([NULL])).toMatchObject({ access: { gpu0: REFUSED } });
  });

  test('where nothing is denied, as in a privileged container', async () => {
    denied();
    node('gpu0', NULL);
    node('gpu1', ZERO);
    expect(await access([NULL, ZERO])).toEqual({ access: { gpu0: true, gpu1: true }, untried: undefined });
  });

  test('not where its mount has no devices', async () => {
    denied();
    const inside = 'mount -t tmpfs -o nodev tmpfs /dev; mknod /dev/gpu0 c 1 3';
    sh('nsenter', '-t', `${container.pid}`, '-m', 'sh', '-ec', inside);
    expect(await access([NULL])).toMatchObject({ access: { gpu0: { usable: false, errno: 'EACCES' } } });
  });

  test('perhaps, where its driver fails to open it', async () => {
    denied();
    node('gpu0', NOBODY);
    const answer = await access([NOBODY]);
    expect(answer).toEqual({ access: { gpu0: { usable: null, errno: 'ENXIO' } }, untried: undefined });
  });
});

describe('no device is opened', () => {
  test('that was not named, and those that were are opened once for each node', async () => {
    denied(`c ${ZERO} rwm`);
    for (const [name, device] of Object.entries({ gpu0: NULL, again: NULL, gpu1: ZERO, gpu2: '1:7', gpu3: NOBODY }))
      node(name, device);
    const watcher = await startSubject('tell-opens', dev);
    let opened = '';
    watcher.child.stdout?.on('data', (text) => (opened += String(text)));
    const answer = await access([NULL, ZERO]);
    expect(answer.access).toEqual({ gpu0: true, again: true, gpu1: REFUSED, gpu2: undefined, gpu3: undefined });
    // What is opened now is told last.
    closeSync(openSync(join(dev, 'gpu2'), 'r'));
    await until(() => opened.endsWith('gpu2\n'));
    expect(opened.trim().split('\n').sort()).toEqual(['again', 'gpu0', 'gpu2']);
  });

  test('where none was named', async () => {
    node('gpu0', NULL);
    expect(await access([])).toEqual({ access: { gpu0: undefined }, untried: undefined });
  });

  test('for what is no character device, or another one', async () => {
    denied();
    sh('mknod', join(dev, 'gpu0'), 'b', '1', '3');
    sh('ln', '-s', '/dev/null', join(dev, 'gpu1'));
    sh('touch', join(dev, 'gpu2'));
    expect((await access([NULL])).access).toEqual({ gpu0: undefined, gpu1: undefined, gpu2: undefined });
  });

  test('where a container has made more nodes than it can have GPUs', async () => {
    denied();
    sh('sh', '-ec', `cd "${dev}"; for n in $(seq 256); do mknod gpu$n c 1 3; done`);
    expect(Object.values((await access([NULL])).access)).toEqual(Array(256).fill(true));
    node('gpu0', NULL);
    expect(await failure(args([NULL]))).toMatchObject({
      code: 'TOO_MANY_DEVICES',
      message: expect.stringMatching(/more than 256 nodes of devices/),
    });
  });
});

describe('it is not known, and the reason is said,', () => {
  const unknown = { gpu0: null, gpu1: null };
  beforeEach(() => {
    node('gpu0', NULL);
    node('gpu1', ZERO);
  });

  test('where the cgroups cannot be joined', async () => {
    denied(`c ${NULL} rwm`);
    expect(await access([NULL, ZERO], '/usr')).toMatchObject({
      access: unknown,
      untried: { step: 'join cgroup', errno: 'ENOENT', target: expect.stringMatching(/^devices\/.*\/cgroup\.procs$/) },
    });
    expect(await access([NULL, ZERO], '/nowhere')).toMatchObject({
      access: unknown,
      untried: { errno: 'ENOENT', target: '/nowhere' },
    });
  });

  test('where a cgroup lies outside of what the caller sees', async () => {
    denied(`c ${NULL} rwm`);
    // The caller is in a cgroup namespace whose root is a sibling of the container's cgroup.
    const sibling = newCgroup('devices');
    const script = `echo 0 > ${sibling}/cgroup.procs; exec unshare -C "$0" "$@"`;
    const { devices, untried } = await verb(args([NULL, ZERO]), { prefix: ['sh', '-ec', script] });
    expect((devices as { usable: unknown }[]).map(({ usable }) => usable)).toEqual([null, null]);
    expect(untried).toMatchObject({ message: expect.stringMatching(/outside of the caller's cgroup namespace$/) });
  });

  test('where the container is frozen, and does not let the child do anything: its time is bounded', async () => {
    const cgroup = joins('unified');
    writeFileSync(join(cgroup, 'cgroup.freeze'), '1');
    expect(await access([NULL, ZERO])).toMatchObject({
      access: unknown,
      untried: { message: expect.stringMatching(/did not end in 10 seconds$/) },
    });
    expect(membersOf(cgroup)).toEqual([container.pid]);
  });

  test('where somebody ends the child', async () => {
    const cgroup = joins('unified');
    writeFileSync(join(cgroup, 'cgroup.freeze'), '1');
    const answer = access([NULL, ZERO]);
    process.kill(await joined(cgroup), 'SIGKILL');
    expect(await answer).toMatchObject({
      access: unknown,
      untried: { message: expect.stringMatching(/ended by signal 9$/) },
    });
  });
});

/** The PID of the child, once it is in the container's cgroup. */
const joined = (cgroup: string) => until(() => membersOf(cgroup).find((pid) => pid !== container.pid), 8_000);

describe('the child', () => {
  test('ends with the container, and then nothing is said', async () => {
    node('gpu0', NULL);
    const cgroup = joins('unified');
    writeFileSync(join(cgroup, 'cgroup.freeze'), '1');
    const gone = failure(args([NULL]));
    const child = await joined(cgroup);
    writeFileSync(join(cgroup, 'cgroup.kill'), '1');
    expect(await gone).toMatchObject({ code: 'TARGET_GONE' });
    expect(existsSync(`/proc/${child}`)).toBe(false);
  });

  test('ends with the helper', async () => {
    node('gpu0', NULL);
    const cgroup = joins('unified');
    writeFileSync(join(cgroup, 'cgroup.freeze'), '1');
    const helper = spawn(helperPath, args([NULL]), { env: environment, stdio: 'ignore' });
    adopt(helper);
    await joined(cgroup);
    helper.kill('SIGKILL');
    await until(() => membersOf(cgroup).length === 1);
  });
});
