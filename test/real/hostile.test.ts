import { execFileSync } from 'node:child_process';
import { createHash, createHmac } from 'node:crypto';
import {
  cpSync,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATIONS, CONTROL_DIR_ENV, LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster, type Volume } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { type Pod, workload } from './environment/pod.ts';
import {
  artifactPath,
  type Checkpointed,
  checkpointed,
  controlDirectory,
  freshName,
  markReady,
  operationEnd,
  requireSuccess,
  restored,
  runSource,
  runTarget,
  type SourceRequest,
  sentinel,
  type TargetRequest,
} from './scenario.ts';

let cluster: Cluster;
let agent: Agent;
/** Has the same absolute path on this machine and for the agent: whoever follows a planted link to it, from either, is seen. */
let canary: string;
let untouched: string[];

beforeAll(async () => {
  cluster = await Cluster.start();
  agent = await cluster.startAgent();
  canary = join(agent.sharedDirectory, 'canary');
  await mkdir(join(canary, 'deep/versions/tmp'), { recursive: true });
  for (const name of ['counter', 'held.log', 'deep/file', ...Object.values(SENTINELS)])
    await writeFile(join(canary, name), `canary ${name}\n`);
  execFileSync('find', [canary, '-exec', 'touch', '-d', '2001-02-03', '{}', ';']);
  await agent.waitForLog('its start', (line) => line['msg'] === 'started');
  untouched = outside();
});
afterEach(() => {
  expect(outside()).toEqual(untouched);
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

/** Everything of a tree that would change if anybody wrote there. */
function state(path: string): string[] {
  const found = lstatSync(path);
  const content = found.isFile()
    ? createHash('sha256').update(readFileSync(path)).digest('hex')
    : found.isSymbolicLink()
      ? readlinkSync(path)
      : '';
  const own = [path, found.mode, found.uid, found.ino, found.nlink, found.mtimeMs, found.ctimeMs, content].join(' ');
  if (!found.isDirectory()) return [own];
  return [own, ...readdirSync(path).flatMap((name) => state(join(path, name)))];
}

/** What nobody in a container or on a volume may reach: files of the host, and the agent's own. */
function outside(): string[] {
  const key = join(cluster.directory, 'agents/state-default/record.key');
  return [canary, key, '/etc/passwd', '/etc/shadow', '/etc/hostname'].flatMap(state);
}

/** Links that lead to the canary by different ways. */
const ways = (path = ''): Record<string, string> => ({
  'an absolute link': join(canary, path),
  'a link through /proc': join('/proc/1/root', canary, path),
  'a relative link upwards': join('../../../../../../../../../..', canary, path),
});

/** Plants something before the workload starts. */
function planting(shell: string, ...command: readonly string[]): string[] {
  return ['sh', '-c', `${shell}\nexec "$@"`, 'sh', ...command];
}

const memory = () => workload('memory', '4');

/** Works on a few at a time. */
async function inGroups<T>(items: readonly T[], work: (item: T) => Promise<void>, size = 5): Promise<void> {
  for (let at = 0; at < items.length; at += size) await Promise.all(items.slice(at, at + size).map(work));
}

const STANDBY = '/usr/local/bin/snapshot-standby';

async function expectRuns(container: Container): Promise<void> {
  expect(await container.check()).toMatchObject({ check: 'ok' });
}

async function failedCheckpoint(request: SourceRequest): Promise<{ end: JsonLine; container: Container }> {
  const { container, pod } = await runSource(cluster, request);
  const end = await operationEnd(agent, 'checkpoint', container);
  expect(end['msg']).toBe('operation failed');
  await expectRuns(container);
  await pod.remove();
  return { end, container };
}

/** A restore that must fail before anything of the container was touched. */
async function refusedRestore(source: Checkpointed, over: TargetRequest = {}): Promise<JsonLine> {
  const { container, pod } = await runTarget(cluster, source, over);
  const end = await operationEnd(agent, 'restore', container);
  expect(end['msg']).toBe('operation failed');
  expect(await container.status()).toMatchObject({ state: 'CONTAINER_RUNNING' });
  expect(container.output()).toEqual([]);
  await pod.remove();
  return end;
}

describe('the control directory', () => {
  test.each(['an absolute link', 'a link through /proc', 'a relative link upwards'])(
    'of a source is %s: refused, the workload runs on, and it is not tried again',
    async (way) => {
      const command = planting(`ln -s '${ways()[way]}' /snapshot-control`, ...memory());
      const { end, container } = await failedCheckpoint({ command, control: false });
      expect(end).toMatchObject({ code: 'CONTROL_DIR_UNSAFE' });
      const ends = agent.logs().filter((line) => line['containerId'] === container.id && 'result' in line);
      expect(ends.length).toBe(1);
    },
  );

  test.each([
    ['below a link', 'ln -s / /way', (path: string) => `/way${path}`],
    ['through a link of procfs', 'true', () => '/proc/1/root/tmp'],
    ['that leads upwards', `ln -s ../../../../../.. /way`, (path: string) => `/way${path}`],
  ])('that its pod names lies %s', async (_, shell, path) => {
    const env = { [CONTROL_DIR_ENV]: path(canary) };
    const { end } = await failedCheckpoint({ command: planting(shell, ...memory()), control: false, env });
    expect(end).toMatchObject({ code: 'CONTROL_DIR_UNSAFE' });
  });

  test('of a target is a link: it is not followed', async () => {
    const source = await checkpointed(cluster, agent, { command: memory(), control: false });
    await source.pod.remove();
    for (const way of Object.values(ways())) {
      const command = planting(`ln -s '${way}' /snapshot-control`, STANDBY);
      const { container, pod } = await runTarget(cluster, source, { command });
      expect(await operationEnd(agent, 'restore', container)).toMatchObject({ code: 'CONTROL_DIR_UNSAFE' });
      await pod.remove();
    }
  });

  test('changes into a link and back all the time: nothing is ever written behind it', async () => {
    const swap = `mkdir /swap && touch /swap/${SENTINELS.ready} &&
      (while :; do mv /swap /swap.real; ln -s ${canary} /swap; rm /swap; mv /swap.real /swap; done) 2>/dev/null &`;
    const env = { [CONTROL_DIR_ENV]: '/swap' };
    const sources = await Promise.all(
      [1, 2, 3, 4].map(() => runSource(cluster, { command: planting(swap, ...memory()), control: false, env })),
    );
    for (const { container, pod } of sources) {
      await operationEnd(agent, 'checkpoint', container);
      await expectRuns(container);
      await pod.remove();
    }
  });
});

describe('in place of a sentinel lies', () => {
  const plants: [string, (path: string) => void][] = [
    ['a link', (path) => symlinkSync(join(canary, path.split('/').at(-1) ?? ''), path)],
    ['a FIFO', (path) => execFileSync('mkfifo', [path])],
    ['a directory', (path) => execFileSync('mkdir', [path])],
  ];

  test.each(plants)('%s: ready-for-snapshot is not opened', async (_, plant) => {
    const source = await runSource(cluster, { command: memory() });
    plant(join(controlDirectory(source.container), SENTINELS.ready));
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container), source.container);
    await expectRuns(source.container);
    await source.pod.remove();
  });

  test.each(plants)('%s: snapshot-complete replaces it or is refused', async (what, plant) => {
    const source = await runSource(cluster, { command: memory() });
    plant(join(controlDirectory(source.container), SENTINELS.complete));
    await markReady(source.container);
    const end = await operationEnd(agent, 'checkpoint', source.container);
    if (what === 'a directory') expect(end).toMatchObject({ code: 'CONTROL_DIR_UNSAFE', step: 'release' });
    else expect(sentinel(source.container, SENTINELS.complete)).toBe('done\n');
    await expectRuns(source.container);
    // Nothing half written is left beside it.
    expect(readdirSync(controlDirectory(source.container)).toSorted()).toEqual([SENTINELS.ready, SENTINELS.complete]);
    await source.pod.remove();
  });

  test('a link, a FIFO, a directory: restore-complete replaces it or is refused', async () => {
    const source = await checkpointed(cluster, agent, { command: memory() });
    await source.pod.remove();
    for (const [what, plant] of plants) {
      await agent.end('SIGTERM');
      const { container, pod } = await runTarget(cluster, source);
      plant(join(controlDirectory(container), SENTINELS.restored));
      await agent.start();
      const end = await operationEnd(agent, 'restore', container);
      if (what === 'a directory') {
        expect(end).toMatchObject({ code: 'CONTROL_DIR_UNSAFE' });
      } else {
        requireSuccess(agent, end, container);
        expect(lstatSync(join(controlDirectory(container), SENTINELS.restored)).isFile()).toBe(true);
        expect(sentinel(container, SENTINELS.restored)).toMatch(/^done\n/);
        await expectRuns(container);
      }
      await pod.remove();
    }
  });
});

describe('where the changes of the root filesystem land', () => {
  let source: Checkpointed;
  beforeAll(async () => {
    const change =
      'mkdir -p /srv/image/deep && echo changed >/srv/image/deep/file && rm -r /srv/image/removed-directory';
    source = await checkpointed(cluster, agent, { command: planting(change, ...memory()), control: false });
    await source.pod.remove();
  });

  const targets = (): [string, string][] => [
    ...Object.entries(ways()).flatMap(([way, path]): [string, string][] => [
      [`${way} in place of a directory`, `ln -s '${path}' /data`],
      [`${way} in place of a directory of the image`, `rm -r /srv/image; ln -s '${path}' /srv/image`],
      [`${way} in place of the parent of what is removed`, `rm -r /srv; ln -s '${path}' /srv`],
    ]),
    ...Object.entries(ways('counter')).map(([way, path]): [string, string] => [
      `${way} in place of a file`,
      `mkdir /data; ln -s '${path}' /data/counter`,
    ]),
    ['a link in a circle', 'ln -s /data /data'],
    ['a file in place of a directory', 'echo file >/data'],
    ['a FIFO in place of a file', 'mkdir /data; mkfifo /data/counter'],
    ['a device in place of a file', 'mkdir /data; mknod /data/counter c 1 8'],
    ['another name of a file of the container', 'mkdir /data; ln /etc/issue /data/counter'],
  ];

  test('lies any kind of link, of a hostile target: it is replaced, and nothing behind it is touched', async () => {
    const cases = targets();
    await inGroups(cases, async ([what, shell]) => {
      const { container, pod } = await restored(cluster, agent, source, { command: planting(shell, STANDBY) });
      expect([what, (await container.check())['check']]).toEqual([what, 'ok']);
      const { stdout } = await container.exec('sh', '-c', 'stat -c %F /data /data/counter; cat /srv/image/deep/file');
      // The workload writes its counter anew all the time: now and then it is empty.
      expect([what, stdout.trim().replace('empty ', '')]).toEqual([what, 'directory\nregular file\nchanged']);
      // A further name of a file is a file of its own afterwards.
      if (shell.includes('/etc/issue')) expect((await container.exec('cat', '/etc/issue')).stdout).toContain('Debian');
      await pod.remove();
    });
  });

  test('lies a link, in the shared memory of a hostile target', async () => {
    const shm = await checkpointed(cluster, agent, {
      command: planting('mkdir /dev/shm/deep; echo mine >/dev/shm/deep/file', ...memory()),
      control: false,
    });
    await shm.pod.remove();
    for (const way of Object.values(ways('deep'))) {
      const command = planting(`ln -s '${way}' /dev/shm/deep`, STANDBY);
      const { container, pod } = await restored(cluster, agent, shm, { command });
      await expectRuns(container);
      expect((await container.exec('stat', '-c', '%F', '/dev/shm/deep')).stdout.trim()).toBe('directory');
      await pod.remove();
    }
  });

  test('lies a link that comes and goes all the time', async () => {
    const swap = `(while :; do mkdir -p /data; rm -rf /data; ln -s ${canary} /data; rm -f /data; done) 2>/dev/null & (while :; do mkdir /x; mv /x /srv/x; ln -sfn ${canary} /srv/x; rm -rf /srv/x; done) 2>/dev/null &`;
    for (let round = 0; round < 3; round++) {
      const { container, pod } = await runTarget(cluster, source, { command: planting(swap, STANDBY) });
      await operationEnd(agent, 'restore', container);
      await pod.remove();
    }
  });
});

describe('an id or version that is a path or reserved', () => {
  const bad = ['../x', '..', '.', 'tmp', '.hidden', 'a/b', '/etc', 'x'.repeat(64), 'a b', 'a\nb', 'ä', '%2e%2e'];

  test('creates nothing, and the pod is named in the log', async () => {
    const before = state(cluster.volume.hostPath).map((line) => line.split(' ')[0]);
    const asked = [
      ...bad.map((id) => ({ id, version: '1', isSource: true })),
      ...bad.map((version, index) => ({ id: 'good', version, isSource: index % 2 === 0 })),
    ];
    const pods: Pod[] = [];
    const from = agent.logs().length;
    await inGroups(asked, async ({ id, version, isSource }) => {
      const labels = { [LABELS.checkpointId]: id, ...(isSource ? { [LABELS.checkpointSource]: 'true' } : {}) };
      const annotations = { [ANNOTATIONS.targetContainers]: 'main', [ANNOTATIONS.artifactVersion]: version };
      pods.push(await cluster.runPod({ name: freshName('bad'), labels, annotations }));
    });
    await Promise.all(pods.map((pod) => pod.run({ command: ['sleep', 'infinity'], control: false })));
    for (const { name } of pods)
      await agent.waitForLog(name, (line) => line['msg'] === 'pod is not understood' && line['pod'] === name, { from });
    expect(
      agent
        .logs()
        .slice(from)
        .filter((line) => 'result' in line),
    ).toEqual([]);
    expect(state(cluster.volume.hostPath).map((line) => line.split(' ')[0])).toEqual(before);
    await Promise.all(pods.map((pod) => pod.remove()));
  });
});

/** Puts something else in the place of a file or directory that is there. */
function replaced(path: string, put: (path: string) => void): void {
  rmSync(path, { recursive: true, force: true });
  put(path);
}

describe("on the agent's volume", () => {
  const place = (id: string, name: string) => join(cluster.volume.hostPath, id, name);

  test.each([
    ['the id', ''],
    ['versions', 'versions'],
    ['the version', 'versions/1'],
    ['versions/tmp', 'versions/tmp'],
  ])('%s is a link: a checkpoint is refused and the workload runs on', async (_, name) => {
    await inGroups([canary, join(canary, 'deep'), '../../../../../../../..'], async (way) => {
      const id = freshName('planted');
      const path = place(id, name);
      await mkdir(join(path, '..'), { recursive: true });
      replaced(path, (at) => symlinkSync(way, at));
      const { end } = await failedCheckpoint({ id, command: memory(), control: false });
      expect(end).toMatchObject({ code: 'STORAGE_UNSAFE' });
      expect(readlinkSync(path)).toBe(way);
    });
  });

  test.each([
    ['the id', ''],
    ['versions', 'versions'],
    ['the version', 'versions/1'],
    ['readers', 'readers'],
  ])('%s is a link: a restore is refused', async (_, name) => {
    const source = await checkpointed(cluster, agent, { command: memory(), control: false });
    await source.pod.remove();
    const path = place(source.id, name);
    const real = `${path}.real`;
    if (existsSync(path)) renameSync(path, real);
    // Even where it leads to the very artifact.
    symlinkSync(existsSync(real) ? real : canary, path);
    // The place of a mark may be refused as well as the artifact: nothing was touched either way.
    expect(await refusedRestore(source)).toMatchObject({ code: 'STORAGE_UNSAFE' });
  });

  test('rubbish in versions/tmp is swept without going astray', async () => {
    const id = freshName('swept');
    const staging = place(id, 'versions/tmp');
    await mkdir(join(staging, '6b6b7b4e-aaaa-4aaa-8aaa-000000000001/raw'), { recursive: true });
    for (const name of ['x.trash', 'op@1.old', 'op@..%2f.deleted', '6b6b7b4e-aaaa-4aaa-8aaa-000000000002', 'y.owner'])
      symlinkSync(canary, join(staging, name));
    symlinkSync(canary, join(staging, '6b6b7b4e-aaaa-4aaa-8aaa-000000000001/raw/pages-1.img'));
    symlinkSync(join(canary, 'deep'), join(staging, '6b6b7b4e-aaaa-4aaa-8aaa-000000000001/criu'));
    execFileSync('mkfifo', [join(staging, '6b6b7b4e-aaaa-4aaa-8aaa-000000000001.owner')]);
    execFileSync('find', [staging, '-exec', 'touch', '-h', '-d', '2001-02-03', '{}', ';']);
    await agent.restart();
    const source = await checkpointed(cluster, agent, { id, command: memory(), control: false });
    await source.pod.remove();
    const { container, pod } = await restored(cluster, agent, source);
    await expectRuns(container);
    await pod.remove();
  });

  test('a pod may not name another base path', async () => {
    for (const path of ['/etc', '/checkpoints/..', '/checkpoints/../etc', '//checkpoints', '/checkpoints/other', '.']) {
      const annotations = { [ANNOTATIONS.storageBasePath]: path };
      const { end } = await failedCheckpoint({ command: memory(), control: false, pod: { annotations } });
      expect(end).toMatchObject({ code: 'POD_INVALID' });
    }
  });
});

describe('with volumes that only pods mount', () => {
  /** A pod's own volume, and what is on it the pod may change at any time. */
  const volumeOf = async (name: string): Promise<Volume> => {
    const hostPath = join(cluster.directory, freshName(name));
    await mkdir(hostPath);
    return { hostPath, mountPath: '/checkpoints' };
  };
  let source: Checkpointed;
  let good: Volume;

  beforeAll(async () => {
    await agent.end('SIGTERM');
    agent = await cluster.startAgent({ accessMode: 'podMount' });
    good = await volumeOf('good');
    const started = await runSource(cluster, { command: workload('memory', '8'), control: false, volume: good });
    const end = requireSuccess(agent, await operationEnd(agent, 'checkpoint', started.container), started.container);
    source = { ...started, end, artifact: artifactPath(good, started) };
    await source.pod.remove();
  });

  /** A copy of the volume with the artifact, for one pod to change. */
  async function copied(change: (artifact: string, volume: Volume) => void): Promise<Volume> {
    const volume = await volumeOf('copy');
    cpSync(good.hostPath, volume.hostPath, { recursive: true });
    change(artifactPath(volume, source), volume);
    return volume;
  }

  test('the base path of a pod is none of a volume: refused, and the workload runs on', async () => {
    const volume = await volumeOf('unsafe');
    const cases: [string, string][] = [
      [`ln -s ${canary} /planted`, '/planted'],
      ['ln -s /checkpoints /planted', '/planted'],
      [`ln -s ${canary} /way`, '/way/deep'],
      ['ln -s / /way', '/way/checkpoints'],
      [`ln -s ${canary} /checkpoints/inside`, '/checkpoints/inside'],
      [`ln -s ../../../../../../..${canary} /checkpoints/up`, '/checkpoints/up'],
      ['mkdir /plain', '/plain'],
      ['true', '/etc'],
      ['true', '/proc/1/root'],
      ['true', '/proc/self/cwd'],
      ['true', '/proc/1/cwd/checkpoints'],
    ];
    await inGroups(cases, async ([shell, path]) => {
      const { end } = await failedCheckpoint({
        command: planting(shell, ...memory()),
        control: false,
        volume,
        pod: { annotations: { [ANNOTATIONS.storageBasePath]: path } },
      });
      expect([path, end['code']]).toEqual([path, 'STORAGE_UNSAFE']);
    });
    expect(readdirSync(volume.hostPath).filter((name) => !['inside', 'up'].includes(name))).toEqual([]);
  });

  test("the base path is the runtime's own or the pod's own files: refused, nothing is left there", async () => {
    const unsafe = ['/proc', '/sys', '/sys/fs/cgroup', '/sys/kernel', '/dev', '/dev/shm', '/dev/mqueue'];
    const cases = [
      ...unsafe.map((path) => [path, 'STORAGE_UNSAFE'] as const),
      ['/run/secrets/kubernetes.io/serviceaccount', 'STORAGE_FAILED'] as const,
      ...[
        '/checkpoints/../sys/fs/cgroup',
        'checkpoints',
        '//checkpoints',
        '/./checkpoints',
        `/${'x/'.repeat(600)}`,
      ].map((path) => [path, 'POD_INVALID'] as const),
    ];
    await inGroups(cases, async ([path, code]) => {
      const annotations = { [ANNOTATIONS.storageBasePath]: path };
      const { end } = await failedCheckpoint({ command: memory(), control: false, pod: { annotations } });
      expect([path, end['code']]).toEqual([path, code]);
    });
  });

  test.each([
    ['the id', ''],
    ['versions', 'versions'],
    ['the version', 'versions/1'],
    ['versions/tmp', 'versions/tmp'],
  ])('%s is a link: a checkpoint is refused', async (_, name) => {
    const volume = await volumeOf('linked');
    const path = join(volume.hostPath, 'linked', name);
    await mkdir(join(path, '..'), { recursive: true });
    symlinkSync(join(canary, 'deep'), path);
    const { end } = await failedCheckpoint({ id: 'linked', command: memory(), control: false, volume });
    expect(end).toMatchObject({ code: 'STORAGE_UNSAFE' });
  });

  /** Puts new bytes over those that are there, so that size and everything else stay. */
  function flip(path: string, at: number): void {
    const file = openSync(path, 'r+');
    const byte = readFileSync(path)[at] ?? 0;
    writeSync(file, Buffer.from([byte ^ 0x01]), 0, 1, at);
  }
  const manifest = (artifact: string) => join(artifact, 'manifest.yaml');
  const edit = (from: RegExp, to: string) => (artifact: string) => {
    const text = readFileSync(manifest(artifact), 'utf8');
    expect(text).toMatch(from);
    writeFileSync(manifest(artifact), text.replace(from, to));
  };
  /** Signs the record with a key of the attacker's own. */
  const signed = (keyId: (old: string) => string) => (artifact: string) => {
    const text = readFileSync(manifest(artifact), 'utf8');
    const body = text.slice(0, text.indexOf('\nsignature:') + 1);
    const old = /keyId: "([0-9a-f]+)"/.exec(text)?.[1] ?? '';
    const value = createHmac('sha256', 'a key of my own').update('snapshot-record\n').update(body).digest('hex');
    const block = `signature:\n  algorithm: HMAC-SHA-256\n  keyId: "${keyId(old)}"\n  value: "${value}"\n`;
    writeFileSync(manifest(artifact), body + block);
  };
  const image = (artifact: string, pattern: RegExp) =>
    join(artifact, 'criu', readdirSync(join(artifact, 'criu')).find((name) => pattern.test(name)) ?? 'missing');
  const core = (artifact: string) => image(artifact, /^core-/);

  const forgeries: [string, string | RegExp, (artifact: string, volume: Volume) => void][] = [
    ['an edited record', 'ARTIFACT_UNSIGNED', edit(/"namespace": "default"/, '"namespace": "other"')],
    ['a record without its signature', 'ARTIFACT_UNSIGNED', edit(/\nsignature:[\s\S]*$/, '\n')],
    ['a record signed with an unknown key', 'ARTIFACT_UNSIGNED', signed(() => '0123456789abcdef')],
    ['a record signed with another key under our name', 'ARTIFACT_UNSIGNED', signed((old) => old)],
    ['a record with something behind its signature', 'ARTIFACT_UNSIGNED', edit(/$/, 'mounts: []\n')],
    ['a record of a newer format', 'ARTIFACT_FORMAT', edit(/^formatVersion: 1/, 'formatVersion: 9')],
    [
      'a record that is a link',
      'ARTIFACT_UNSAFE',
      (artifact) => {
        renameSync(manifest(artifact), join(artifact, '../../moved.yaml'));
        symlinkSync('../../moved.yaml', manifest(artifact));
      },
    ],
    [
      'a record that is a FIFO',
      'ARTIFACT_UNSAFE',
      (artifact) => replaced(manifest(artifact), (at) => execFileSync('mkfifo', [at])),
    ],
    ['a record that never ends', 'ARTIFACT_CORRUPT', (artifact) => truncateSync(manifest(artifact), 2 ** 40)],
    [
      'the record of another artifact',
      'ARTIFACT_CORRUPT',
      (_, volume) => {
        // The pod asks for the id it is filed under, which the record does not have.
        const root = volume.hostPath;
        cpSync(join(root, source.id), join(root, 'real'), { recursive: true });
        edit(/^(formatVersion: 1\nminReader: 1\n)/, '$1')(artifactPath(volume, source));
      },
    ],
    [
      'an image that is a link to a file of the host',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => replaced(core(artifact), (at) => symlinkSync('/etc/shadow', at)),
    ],
    [
      'an image that is a link to itself elsewhere',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => {
        const path = core(artifact);
        renameSync(path, join(artifact, '../moved.img'));
        symlinkSync('../../moved.img', path);
      },
    ],
    [
      'an image with a second name',
      'ARTIFACT_UNSAFE',
      (artifact, volume) => execFileSync('ln', [core(artifact), join(volume.hostPath, 'second')]),
    ],
    [
      'an image that is a FIFO',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => replaced(core(artifact), (at) => execFileSync('mkfifo', [at])),
    ],
    [
      'an image that is a device',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => replaced(core(artifact), (at) => execFileSync('mknod', [at, 'c', '1', '5'])),
    ],
    [
      'an image that is a directory',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => replaced(core(artifact), (at) => execFileSync('mkdir', [at])),
    ],
    [
      'a directory that is a link',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => {
        renameSync(join(artifact, 'criu'), join(artifact, '../moved'));
        symlinkSync('../moved', join(artifact, 'criu'));
      },
    ],
    ['a truncated image', 'ARTIFACT_CORRUPT', (artifact) => truncateSync(core(artifact), 10)],
    ['a truncated pages image', 'ARTIFACT_CORRUPT', (artifact) => truncateSync(image(artifact, /^pages-/), 4096)],
    [
      'a truncated bulk file',
      'ARTIFACT_CORRUPT',
      (artifact) => truncateSync(join(artifact, 'memory/bulk.pages'), 1 << 20),
    ],
    ['a flipped bit in an image', 'ARTIFACT_CORRUPT', (artifact) => flip(core(artifact), 40)],
    ['a flipped bit in a pages image', 'ARTIFACT_CORRUPT', (artifact) => flip(image(artifact, /^pages-/), 4096)],
    [
      'a flipped bit in the index of the bulk file',
      'ARTIFACT_CORRUPT',
      (artifact) => flip(join(artifact, 'memory/bulk.index'), 3),
    ],
    [
      'a flipped bit in the changes of the root filesystem',
      'ARTIFACT_CORRUPT',
      (artifact) => flip(join(artifact, 'rootfs/diff.tar'), 600),
    ],
    ['a file more', 'ARTIFACT_CORRUPT', (artifact) => writeFileSync(join(artifact, 'criu/criu.conf'), 'tcp-close\n')],
    [
      'a link more',
      /^ARTIFACT_(UNSAFE|CORRUPT)$/,
      (artifact) => symlinkSync('/etc/shadow', join(artifact, 'criu/link.img')),
    ],
    ['a file less', 'ARTIFACT_CORRUPT', (artifact) => rmSync(core(artifact))],
    [
      'a reader’s place that is a link',
      'STORAGE_UNSAFE',
      (artifact) => replaced(join(artifact, '../../readers'), (at) => symlinkSync(join(canary, 'deep'), at)),
    ],
  ];

  test('forged and damaged artifacts are refused by name, and their targets are not touched', async () => {
    const found: Record<string, unknown> = {};
    await inGroups(forgeries, async ([what, , forge]) => {
      const volume = await copied(forge);
      const wanted = what === 'the record of another artifact' ? { ...source, id: 'real' } : source;
      found[what] = (await refusedRestore(wanted, { volume }))['code'];
    });
    for (const [what, code] of forgeries)
      expect([what, found[what]]).toEqual([what, typeof code === 'string' ? code : expect.stringMatching(code)]);
  });

  test('a flipped bit in large memory is found while it is filled: the container is ended, nothing goes on in it', async () => {
    const volume = await copied((artifact) => flip(join(artifact, 'memory/bulk.pages'), 5 << 20));
    const { container, pod } = await runTarget(cluster, source, { volume });
    const end = await operationEnd(agent, 'restore', container);
    expect(end).toMatchObject({ code: 'ARTIFACT_CORRUPT', step: 'fill' });
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    expect(container.output()).toEqual([]);
    await pod.remove();
  });

  test("another namespace's artifact is neither restored nor replaced", async () => {
    const volume = await copied(() => undefined);
    const end = await refusedRestore(source, { volume, pod: { namespace: 'other' } });
    expect(end).toMatchObject({ code: 'ARTIFACT_FOREIGN' });
    const before = statSync(manifest(artifactPath(volume, source))).mtimeMs;
    const { end: checkpoint } = await failedCheckpoint({
      id: source.id,
      command: memory(),
      control: false,
      existing: 'replace',
      volume,
      pod: { namespace: 'other' },
    });
    expect(checkpoint).toMatchObject({ code: 'ARTIFACT_FOREIGN' });
    expect(statSync(manifest(artifactPath(volume, source))).mtimeMs).toBe(before);
  });

  test('the pod swaps the artifact while it is read: a good restore or none', async () => {
    const volume = await copied((artifact) => cpSync(artifact, `${artifact}.forged`, { recursive: true }));
    const artifact = artifactPath(volume, source);
    for (const name of readdirSync(join(`${artifact}.forged`, 'criu')))
      if (name !== 'inventory.img') flip(join(`${artifact}.forged`, 'criu', name), 20);
    const swap = `(cd /checkpoints/${source.id}/versions; while :; do mv 1/criu 1.kept; mv 1.forged/criu 1/criu; mv 1/criu 1.forged/criu; mv 1.kept 1/criu; done) 2>/dev/null &`;
    for (let round = 0; round < 4; round++) {
      const { container, pod } = await runTarget(cluster, source, { volume, command: planting(swap, STANDBY) });
      const end = await operationEnd(agent, 'restore', container);
      if (end['msg'] === 'operation succeeded') await expectRuns(container);
      else expect(String(end['code'])).toMatch(/^(ARTIFACT_|STORAGE_)/);
      await pod.remove();
      // Put back what the last round left in the middle of its loop.
      rmSync(volume.hostPath, { recursive: true });
      cpSync(good.hostPath, volume.hostPath, { recursive: true });
      cpSync(artifact, `${artifact}.forged`, { recursive: true });
      flip(core(`${artifact}.forged`), 20);
    }
  });

  test('and with all of that, others are served as ever', async () => {
    const { container, pod } = await restored(cluster, agent, source, { volume: good });
    await expectRuns(container);
    await pod.remove();
  });
});
