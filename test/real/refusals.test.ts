import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LABELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { IMAGES } from './environment/images.ts';
import { workload } from './environment/pod.ts';
import {
  type Checkpointed,
  checkpointed,
  markReady,
  operationEnd,
  requireSuccess,
  runSource,
  runTarget,
  type SourceRequest,
  type TargetRequest,
} from './scenario.ts';
import { FOREIGN_ADDRESS, having, IO_URING, PROJECTED, TRACED, USERFAULTFD } from './unfit.ts';

interface Reason {
  readonly code: string;
  readonly message: string;
  readonly found: string;
  readonly wanted: string;
  readonly advice: string;
}

let cluster: Cluster;
let agent: Agent;

beforeAll(async () => {
  cluster = await Cluster.start();
  agent = await cluster.startAgent({ config: { watch: { resyncSeconds: 1 } } });
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const reasonsOf = (end: JsonLine) => end['reasons'] as Reason[];
const codes = (end: JsonLine) =>
  reasonsOf(end)
    .map(({ code }) => code)
    .toSorted();

/** Each reason says what it is, what was found beside what is needed, and what to do; the line names them all at once. */
function expectExplained(end: JsonLine): void {
  expect(end).toMatchObject({ result: 'refused', step: expect.any(String), advice: expect.stringMatching(/./) });
  for (const reason of reasonsOf(end)) {
    expect(reason).toMatchObject({
      code: expect.stringMatching(/^[A-Z_]+$/),
      message: expect.stringMatching(/./),
      found: expect.stringMatching(/./),
      wanted: expect.stringMatching(/./),
      advice: expect.stringMatching(/\.$/),
    });
    expect(end['problem']).toContain(reason.message);
  }
}

/** Long enough for the agent to look again more than once: nothing more is said of this container. */
async function expectNotRepeated(container: Container): Promise<void> {
  await new Promise((done) => setTimeout(done, 2500));
  const ends = agent.logs().filter((line) => line['containerId'] === container.id && 'result' in line);
  expect(ends.length).toBe(1);
}

describe('a checkpoint is refused, and the workload runs on', () => {
  async function refused(request: Pick<SourceRequest, 'command' | 'pod' | 'mounts'>, prepare?: (pid: number) => void) {
    const { labels, ...pod } = request.pod ?? {};
    const source = runSource(cluster, { ...request, pod: { ...pod, ...(labels && { labels }) }, control: true });
    if (prepare) await lateAddress(source, prepare);
    const { id, container, pod: made } = await source;

    await markReady(container);
    const end = await operationEnd(agent, 'checkpoint', container);
    expect(end).toMatchObject({ code: 'CHECKPOINT_REFUSED', step: 'preflight' });
    expectExplained(end);
    expect(await container.check()).toMatchObject({ check: 'ok' });
    expect(readdirSync(cluster.volume.hostPath)).not.toContain(id);
    return { end, container, pod: made };
  }

  async function lateAddress(source: Promise<unknown>, prepare: (pid: number) => void): Promise<void> {
    let over = false;
    void source.then(
      () => {
        over = true;
      },
      () => {
        over = true;
      },
    );
    while (!over) {
      for (const { id, state } of await cluster.cri.containers())
        if (state === 'CONTAINER_RUNNING') {
          const { info } = await cluster.cri.containerStatus(id);
          if (info.pid) prepare(info.pid);
        }
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  const addAddress = (pid: number) => {
    try {
      execFileSync('nsenter', ['-t', `${pid}`, '-n', 'ip', 'address', 'add', '10.99.88.77/32', 'dev', 'lo'], {
        stdio: 'ignore',
      });
    } catch {
      // It has it already.
    }
  };

  test.each([
    ['IO_URING', having(IO_URING), 'anon_inode:[io_uring]'],
    ['USERFAULTFD', having(USERFAULTFD), 'anon_inode:[userfaultfd]'],
    ['PTRACED', having(TRACED), 'traced by'],
    ['PROJECTED_FILE_OPEN', having(PROJECTED), '/run/secrets/kubernetes.io/serviceaccount/..'],
  ])('%s', async (code, command, found) => {
    const { end, container, pod } = await refused({ command });
    expect(codes(end)).toEqual([code]);
    expect(reasonsOf(end)[0]?.found).toContain(found);
    await expectNotRepeated(container);
    await pod.remove();
  });

  test('SHARED_PID_NAMESPACE', async () => {
    const { end, container, pod } = await refused({ command: workload('memory', '4'), pod: { sharePid: true } });
    expect(codes(end)).toEqual(['SHARED_PID_NAMESPACE']);
    await expectNotRepeated(container);
    await pod.remove();
  });

  test('FOREIGN_ADDRESS', async () => {
    const { end, pod } = await refused({ command: having(FOREIGN_ADDRESS) }, addAddress);
    expect(codes(end)).toEqual(['FOREIGN_ADDRESS']);
    expect(reasonsOf(end)[0]).toMatchObject({ found: '10.99.88.77:4711', wanted: expect.stringContaining(pod.ip) });
    await pod.remove();
  });

  test('for all reasons at once', async () => {
    const command = having([IO_URING, TRACED, FOREIGN_ADDRESS, PROJECTED].join('\n'));
    const { end, container, pod } = await refused({ command, pod: { sharePid: true } }, addAddress);
    const wanted = ['FOREIGN_ADDRESS', 'IO_URING', 'PROJECTED_FILE_OPEN', 'PTRACED', 'SHARED_PID_NAMESPACE'];
    expect([...new Set(codes(end))]).toEqual(wanted);
    await expectNotRepeated(container);
    await pod.remove();
  });

  test('in a Job: its container is ended at once', async () => {
    const source = await runSource(cluster, {
      command: having(IO_URING),
      control: false,
      pod: { labels: { [LABELS.jobName]: 'job' } },
    });
    expect(await operationEnd(agent, 'checkpoint', source.container)).toMatchObject({ code: 'CHECKPOINT_REFUSED' });
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
    await source.pod.remove();
  });
});

describe('a restore is refused, and the placeholder waits on', () => {
  let source: Checkpointed;
  let terminal: Checkpointed;
  let onHost: Checkpointed;
  const data = () => ({ container_path: '/mnt/data', host_path: cluster.volume.hostPath });

  beforeAll(async () => {
    const memory = { command: workload('memory', '32'), control: false };
    [source, terminal, onHost] = await Promise.all([
      checkpointed(cluster, agent, { ...memory, mounts: [data()] }),
      checkpointed(cluster, agent, { ...memory, tty: true, stdin: true }),
      checkpointed(cluster, agent, { ...memory, pod: { hostNetwork: true } }),
    ]);
    for (const { pod } of [source, terminal, onHost]) await pod.remove();
  });

  async function refused(from: Checkpointed, over: TargetRequest) {
    const { container, pod } = await runTarget(cluster, from, over);
    const first = await container.pid();
    const end = await operationEnd(agent, 'restore', container);
    expect(end).toMatchObject({ code: 'RESTORE_REFUSED', step: 'verify' });
    expectExplained(end);
    // Both values of each reason can be read from the line itself.
    for (const { found, wanted } of reasonsOf(end)) {
      expect(end['problem']).toContain(found);
      expect(end['problem']).toContain(wanted);
    }
    expect(await container.status()).toMatchObject({ state: 'CONTAINER_RUNNING' });
    expect(await container.pid()).toBe(first);
    const { stdout } = await container.exec('sh', '-c', 'ls -d /data; grep State /proc/1/status');
    expect(stdout.trim()).toMatch(/^State:\s+S/);
    return { end, container, pod };
  }

  test('another image', async () => {
    const { end, container, pod } = await refused(source, { image: IMAGES.workload, command: ['sleep', 'infinity'] });
    expect(codes(end)).toEqual(['IMAGE']);
    expect(reasonsOf(end)[0]).toMatchObject({
      found: expect.stringContaining(IMAGES.workload),
      wanted: expect.stringContaining(IMAGES.placeholder),
    });
    await expectNotRepeated(container);
    await pod.remove();
  });

  test('a mount that is missing', async () => {
    const { end, pod } = await refused(source, { mounts: [] });
    expect(codes(end)).toEqual(['MOUNTS_MISSING']);
    expect(reasonsOf(end)[0]?.wanted).toBe('/mnt/data');
    await pod.remove();
  });

  test('a smaller memory limit', async () => {
    const { end, pod } = await refused(source, { memoryLimitBytes: 24 << 20 });
    expect(codes(end)).toEqual(['MEMORY_LIMIT']);
    expect(reasonsOf(end)[0]?.found).toBe(`${24 << 20} bytes`);
    expect(Number.parseInt(reasonsOf(end)[0]?.wanted ?? '', 10)).toBeGreaterThan(32 << 20);
    await pod.remove();
  });

  test('a terminal on one side only', async () => {
    const none = await refused(terminal, { tty: false, stdin: false });
    expect(codes(none.end)).toContain('TERMINAL');
    const one = await refused(source, { tty: true, stdin: true });
    expect(codes(one.end)).toEqual(['TERMINAL']);
    await none.pod.remove();
    await one.pod.remove();
  });

  test("the host's network on one side only", async () => {
    const own = await refused(onHost, { pod: { hostNetwork: false } });
    const hosts = await refused(source, { pod: { hostNetwork: true } });
    for (const { end, pod } of [own, hosts]) {
      expect(codes(end)).toEqual(['NETWORK']);
      expect([reasonsOf(end)[0]?.found, reasonsOf(end)[0]?.wanted]).toContain('host network');
      await pod.remove();
    }
  });

  test('a target that could trace CRIU', async () => {
    const { end, pod } = await refused(source, { addCapabilities: ['SYS_PTRACE'] });
    expect(codes(end)).toEqual(['TARGET_CAN_TRACE']);
    await pod.remove();
  });

  test('all reasons at once; a container of the same pod is not tried again, one that matches is restored', async () => {
    const { end, container, pod } = await refused(source, {
      image: IMAGES.workload,
      command: ['sleep', 'infinity'],
      mounts: [],
      memoryLimitBytes: 24 << 20,
      addCapabilities: ['SYS_PTRACE'],
      pod: { hostNetwork: true },
    });
    expect(codes(end)).toEqual(['IMAGE', 'MEMORY_LIMIT', 'MOUNTS_MISSING', 'NETWORK', 'TARGET_CAN_TRACE']);
    await expectNotRepeated(container);
    // Neither by an agent that starts anew.
    const from = agent.logs().length;
    await agent.restart();
    await agent.waitForLog('its start', (line) => line['msg'] === 'started', { from });
    await expectNotRepeated(container);
    await pod.remove();

    const good = await runTarget(cluster, source);
    requireSuccess(agent, await operationEnd(agent, 'restore', good.container), good.container);
    expect(await good.container.check()).toMatchObject({ check: 'ok' });
    await good.pod.remove();
  });

  test('what was refused leaves no mark on the volume', () => {
    const readers = join(cluster.volume.hostPath, source.id, 'readers', source.version);
    expect(readdirSync(readers)).toEqual([]);
  });
});
