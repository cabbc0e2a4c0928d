import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster, type Volume } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { workload } from './environment/pod.ts';
import { type ProcessView, processes } from './environment/processes.ts';
import { Gates } from './gates.ts';
import {
  artifactPath,
  type Checkpointed,
  checkpointed,
  operationEnd,
  readRecord,
  requireSuccess,
  restored,
  runSource,
  runTarget,
  type Source,
} from './scenario.ts';

let cluster: Cluster;
let agent: Agent;
let gates: Gates;

beforeAll(async () => {
  cluster = await Cluster.start();
  gates = await Gates.make(cluster);
  agent = await startWithGates();
});
afterEach(async () => {
  gates.openAll();
  if (!agent.running) await agent.start();
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const memory = (mebibytes = 8) => ({ command: workload('memory', `${mebibytes}`), control: false });

function startWithGates(more: { readonly config?: object; readonly volume?: Volume } = {}): Promise<Agent> {
  return cluster.startAgent({ ...more, config: { ...gates.config, ...more.config }, binds: gates.binds });
}

async function reached(gate: 'helper' | 'criu-dump' | 'criu-restore'): Promise<void> {
  await gates.reached(gate, () => journal().slice(-3).join('\n'));
}

function journal(): string[] {
  return readFileSync(join(cluster.directory, 'agents/state-default/journal.jsonl'), 'utf8').split('\n');
}

/** The last thing the journal says of a container. */
function lastEntry(container: Container): JsonLine {
  const line = journal().findLast((one) => one.includes(container.id));
  return JSON.parse(line ?? '{}') as JsonLine;
}

/** Kills the agent as soon as its journal says that the container's operation is in this step. */
async function killInStep(container: Container, step: string): Promise<void> {
  const wanted = `"step":"${step}"`;
  const end = performance.now() + 60_000;
  while (!journal().some((line) => line.includes(container.id) && line.includes(wanted))) {
    if (performance.now() > end) throw new Error(`${step} was not reached; ${JSON.stringify(lastEntry(container))}`);
    await turn();
  }
  process.kill(agent.pid, 'SIGKILL');
  await agent.end('SIGKILL');
}

/** Kills the agent while a verb of the helper is held in this step. */
async function killHeld(step: string, verb = ''): Promise<void> {
  await reached('helper');
  expect(journal().findLast((line) => line.includes('"step":'))).toContain(`"step":"${step}"`);
  if (verb !== '') expect(gates.heldVerb).toBe(verb);
  await agent.end('SIGKILL');
}

/** Starts the agent; returns where in its log that was. */
async function startAgain(): Promise<number> {
  const from = agent.logs().length;
  gates.openAll();
  await agent.start();
  await agent.waitForLog('its start', (line) => line['msg'] === 'started', { from });
  return from;
}

function settled(container: Container, from: number): JsonLine | undefined {
  const entry = lastEntry(container);
  return agent
    .logs()
    .slice(from)
    .find(
      (line) =>
        line['msg'] === 'operation of an earlier run was settled' && line['operationId'] === entry['operationId'],
    );
}

/** Nothing is left of artifacts in the making. */
async function expectNoStaging(id: string, volume: Volume = cluster.volume): Promise<void> {
  const place = join(volume.hostPath, id, 'versions/tmp');
  const left = () => (existsSync(place) ? readdirSync(place) : []);
  await eventually('the end of staging', () => (left().length === 0 ? true : undefined), {
    explain: () => left().join('\n'),
  });
}

/** A source whose checkpoint nobody has begun: the agent is started only now. */
async function sourceBeforeAgent(request = {}): Promise<Source> {
  if (agent.running) await agent.end('SIGKILL');
  return runSource(cluster, { ...memory(), ...request });
}

async function expectRuns(container: Container): Promise<void> {
  expect(await container.check()).toMatchObject({ check: 'ok' });
}

/** What was there when the test began: each test answers for itself. */
let earlier = new Set<number>();
beforeEach(() => {
  earlier = new Set(processes().map(({ pid }) => pid));
});

/** Processes that an agent leaves behind: CRIU, helpers. What the running agent started, and what that started, is none. */
function orphans(): string[] {
  const all = processes();
  const parents = new Map(all.map(({ pid, parent }) => [pid, parent]));
  const isOfAgent = (pid: number | undefined): boolean =>
    pid !== undefined && pid > 1 && (pid === agent.pid || isOfAgent(parents.get(pid)));
  return (
    all
      .filter(({ command }) => /\/opt\/faults\/|\/usr\/sbin\/criu/.test(command))
      // Other clusters of this machine have agents of their own.
      .filter(({ cgroups }) => cgroups.includes(basename(cluster.directory)))
      .filter(({ pid }) => !earlier.has(pid) && (!agent.running || !isOfAgent(pid)))
      .map(({ pid, parent, state, command }) => `${pid} of ${parent} ${state} ${command}`)
  );
}

async function expectNoOrphans(): Promise<void> {
  await eventually('the end of what the agent had started', () => (orphans().length === 0 ? true : undefined), {
    explain: () => orphans().join('\n'),
  });
}

describe('the agent is killed in a checkpoint, in step', () => {
  const cases: { step: string; verb?: string; held: boolean; restores?: boolean }[] = [
    { step: 'inspect', held: true },
    { step: 'preflight', held: false },
    { step: 'stage', held: false },
    { step: 'quiesced', held: true },
    { step: 'criu-dump', verb: 'dump', held: true },
    { step: 'criu-dump', verb: 'capture', held: true, restores: true },
    { step: 'resume', held: false },
    { step: 'finalize', verb: 'bulk-write', held: true, restores: true },
    { step: 'publish', held: false, restores: true },
    { step: 'release', held: true, restores: true },
  ];

  test('that is named here', async () => {
    const { end, pod } = await checkpointed(cluster, agent, memory());
    const steps = Object.keys(end['steps'] as object);
    expect(steps.filter((step) => !['reach', 'unaccounted'].includes(step) && !step.startsWith('reach'))).toEqual(
      expect.arrayContaining([...new Set(cases.map(({ step }) => step))]),
    );
    await pod.remove();
  });

  test.each(cases)('$step $verb: the workload runs on, and the checkpoint is made all the same', async (one) => {
    const source = await sourceBeforeAgent();
    if (one.held) gates.holdHelper(one.step, one.verb);
    await agent.start();
    if (one.held) await killHeld(one.step, one.verb);
    else await killInStep(source.container, one.step);
    // Before anybody could have put anything right.
    await expectRuns(source.container);
    await expectNoOrphans();
    const from = await startAgain();
    const end = await operationEnd(agent, 'checkpoint', source.container, { from });
    requireSuccess(agent, end, source.container);
    await expectRuns(source.container);
    await expectNoStaging(source.id);
    expect(lastEntry(source.container)).toMatchObject({ state: 'succeeded' });
    await source.pod.remove();
    if (!one.restores) return;
    const target = await restored(cluster, agent, source);
    await expectRuns(target.container);
    await target.pod.remove();
  });

  test('CRIU itself, somewhere in its work: the workload runs on', async () => {
    // Large enough that CRIU is at work for a while.
    const source = await sourceBeforeAgent(memory(150));
    for (const delayMs of [20, 60, 120]) {
      await agent.start();
      await eventually(
        'CRIU',
        () => {
          const isOurs = ({ command, cgroups }: ProcessView) =>
            command.startsWith('/usr/sbin/criu dump') && cgroups.includes(basename(cluster.directory));
          return processes().some(isOurs) || undefined;
        },
        { everyMs: 1, timeoutMs: 60_000 },
      );
      await new Promise((done) => setTimeout(done, delayMs));
      await agent.end('SIGKILL');
      await expectRuns(source.container);
    }
    const from = await startAgain();
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container, { from }), source.container);
    await expectNoStaging(source.id);
    await source.pod.remove();
    const target = await restored(cluster, agent, source);
    await expectRuns(target.container);
    await target.pod.remove();
  });
});

describe('the agent is killed in a checkpoint that stops its container, in step', () => {
  test.each(['stop', 'finalize', 'publish'])('%s: the artifact is finished by the next agent', async (step) => {
    const source = await sourceBeforeAgent({ after: 'stop' });
    if (step === 'finalize') gates.holdHelper(step, 'bulk-write');
    await agent.start();
    if (step === 'finalize') await killHeld(step, 'bulk-write');
    else await killInStep(source.container, step);
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
    await startAgain();
    await expectNoStaging(source.id);
    await source.pod.remove();
    const target = await restored(cluster, agent, source);
    await expectRuns(target.container);
    await target.pod.remove();
  });

  test('criu-dump, before CRIU ended the workload: it runs on, and is stopped by the next agent', async () => {
    const source = await sourceBeforeAgent({ after: 'stop' });
    gates.holdHelper('criu-dump', 'capture');
    await agent.start();
    await killHeld('criu-dump', 'capture');
    await expectRuns(source.container);
    const from = await startAgain();
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container, { from }), source.container);
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
    await expectNoStaging(source.id);
    await source.pod.remove();
  });
});

describe('the agent is killed in a restore, in step', () => {
  /** Follows the contract: it has a control directory, and enough memory for all steps. */
  let artifact: Checkpointed;
  beforeAll(async () => {
    artifact = await checkpointed(cluster, agent, { command: workload('worker', '16') });
    expect(await artifact.container.ended()).toMatchObject({ exit_code: 0 });
    await artifact.pod.remove();
  });

  const before: { step: string; held: boolean }[] = [
    { step: 'verify', held: false },
    { step: 'prefetch', held: false },
    { step: 'images', held: false },
    { step: 'halt', held: true },
  ];
  const after: { step: string; verb?: string; held: boolean; placeholder?: readonly string[] }[] = [
    { step: 'rootfs', verb: 'apply', held: true },
    { step: 'criu-restore', verb: 'restore', held: true },
    { step: 'fill', verb: 'bulk-fill', held: true },
    { step: 'adopt', verb: 'arm', held: true },
    { step: 'rootfs', verb: 'block-signal', held: true, placeholder: ['sleep', 'infinity'] },
    { step: 'continue', verb: 'signal', held: true },
  ];

  async function targetBeforeAgent(command?: readonly string[]) {
    if (agent.running) await agent.end('SIGKILL');
    return runTarget(cluster, artifact, command === undefined ? {} : { command });
  }

  test('that is named here', async () => {
    const { end, pod } = await restored(cluster, agent, artifact);
    const named = [...before, ...after].map(({ step }) => step);
    expect(Object.keys(end['steps'] as object)).toEqual(expect.arrayContaining([...named, 'confirm', 'release']));
    await pod.remove();
  });

  test.each(before)('$step: the same container is restored into', async ({ step, held }) => {
    const target = await targetBeforeAgent();
    if (held) gates.holdHelper(step);
    await agent.start();
    if (held) await killHeld(step);
    else await killInStep(target.container, step);
    const from = await startAgain();
    requireSuccess(agent, await operationEnd(agent, 'restore', target.container, { from }), target.container);
    const resumed = await target.container.waitForOutput('its identity', (line) => line['resumed'] === true);
    expect(resumed).toMatchObject({ identity: target.pod.name });
    await expectRuns(target.container);
    await target.pod.remove();
  });

  test.each(after)('$step $verb: its container is ended and a new one gets an attempt of its own', async (one) => {
    const target = await targetBeforeAgent(one.placeholder);
    const id = target.container.id;
    gates.holdHelper(one.step, one.verb);
    await agent.start();
    await killHeld(one.step, one.verb);
    // What is half restored does not run by itself.
    for (const { nspid, state } of processes().filter(({ cgroups }) => cgroups.includes(id)))
      if (nspid.length > 2) expect(state).toMatch(/[Tt]/);
    const from = await startAgain();
    expect(await target.container.ended()).toMatchObject({ exit_code: 137 });
    expect(lastEntry(target.container)).toMatchObject({ state: 'unknown', details: { code: 'OUTCOME_UNKNOWN' } });
    expect(settled(target.container, from)).toMatchObject({ state: 'unknown' });
    expect(target.container.output()).toEqual([]);
    expect(processes().filter(({ cgroups }) => cgroups.includes(id))).toEqual([]);

    const next = await target.pod.runPlaceholder({ attempt: 1 });
    requireSuccess(agent, await operationEnd(agent, 'restore', next, { from }), next);
    await expectRuns(next);
    const attempts = agent.logs().filter((line) => line['containerId'] === id && 'result' in line);
    expect(attempts).toEqual([]);
    await target.pod.remove();
  });

  test('confirm: either its container is ended, or the restore is brought to its end', async () => {
    const target = await targetBeforeAgent();
    await agent.start();
    await killInStep(target.container, 'confirm');
    await startAgain();
    const { state } = lastEntry(target.container);
    if (state === 'unknown') expect(await target.container.ended()).toMatchObject({ exit_code: 137 });
    else await target.container.waitForOutput('its identity', (line) => line['resumed'] === true);
    await target.pod.remove();
  });

  test.each(['snapshot-standby', 'sleep'])('release, with %s: the restore is brought to its end', async (kind) => {
    const target = await targetBeforeAgent(kind === 'sleep' ? ['sleep', 'infinity'] : undefined);
    gates.holdHelper('release', 'put');
    await agent.start();
    await killHeld('release', 'put');
    await expectRuns(target.container);
    expect(existsSync(join(target.container.controlDirectory ?? '', SENTINELS.restored))).toBe(false);
    await startAgain();
    const resumed = await target.container.waitForOutput('its identity', (line) => line['resumed'] === true);
    expect(String(resumed['sentinel'])).toMatch(/^done\noperation=\S+\nartifact=\S+\n$/);
    expect(lastEntry(target.container)).toMatchObject({ state: 'succeeded' });
    await expectRuns(target.container);
    // It is guarded like any other.
    await target.container.stop(20);
    expect(await target.container.ended()).toMatchObject({ exit_code: 0 });
    await target.pod.remove();
  });
});

describe('the agent is asked to stop', () => {
  test('in a checkpoint: it is brought to its end first', async () => {
    const source = await sourceBeforeAgent();
    gates.holdCriu('dump');
    await agent.start();
    await reached('criu-dump');
    const stopped = agent.end('SIGTERM', 60_000);
    await agent.waitForLog('the signal', (line) => line['msg'] === 'stopping');
    gates.openAll();
    expect(await stopped).toMatchObject({ exitCode: 0 });
    await expectRuns(source.container);
    expect(lastEntry(source.container)).toMatchObject({ state: 'succeeded' });
    await source.pod.remove();
  });

  test('in a restore that cannot be undone: it is brought to its end first', async () => {
    const source = await checkpointed(cluster, agent, memory());
    await source.pod.remove();
    await agent.end('SIGTERM');
    const target = await runTarget(cluster, source);
    gates.holdCriu('restore');
    await agent.start();
    await reached('criu-restore');
    const stopped = agent.end('SIGTERM', 60_000);
    await agent.waitForLog('the signal', (line) => line['msg'] === 'stopping');
    gates.openAll();
    expect(await stopped).toMatchObject({ exitCode: 0 });
    await expectRuns(target.container);
    expect(lastEntry(target.container)).toMatchObject({ state: 'succeeded' });
    await target.pod.remove();
  });
});

describe('a container is replaced in the middle', () => {
  const GONE = ['CONTAINER_GONE', 'CONTAINER_NOT_FOUND', 'DUMP_FAILED', 'ROOTFS_FAILED', 'RESTORE_FAILED'];

  test.each(['inspect', 'quiesced', 'criu-dump'])('of a checkpoint, in %s', async (step) => {
    const source = await sourceBeforeAgent();
    if (step === 'criu-dump') gates.holdCriu('dump');
    else gates.holdHelper(step);
    await agent.start();
    await reached(step === 'criu-dump' ? 'criu-dump' : 'helper');
    await source.container.signal('SIGKILL');
    await source.container.ended();
    const next = await source.pod.run({ image: IMAGES.placeholder, ...memory(), attempt: 1 });
    await next.ready();
    gates.openAll();
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(GONE).toContain(end['code']);
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', next), next);
    await expectRuns(next);
    expect(readRecord(artifactPath(cluster.volume, source))).toMatchObject({ source: { containerId: next.id } });
    await expectNoStaging(source.id);
    await source.pod.remove();
  });

  test.each(['halt', 'rootfs', 'criu-restore', 'continue'])('of a restore, in %s', async (step) => {
    const source = await checkpointed(cluster, agent, memory());
    await source.pod.remove();
    if (step === 'criu-restore') gates.holdCriu('restore');
    else gates.holdHelper(step);
    const target = await runTarget(cluster, source);
    await reached(step === 'criu-restore' ? 'criu-restore' : 'helper');
    process.kill(await target.container.pid(), 'SIGKILL');
    await target.container.ended();
    const next = await target.pod.runPlaceholder({ attempt: 1, control: false });
    gates.openAll();
    const end = await operationEnd(agent, 'restore', target.container);
    expect(GONE).toContain(end['code']);
    requireSuccess(agent, await operationEnd(agent, 'restore', next), next);
    await expectRuns(next);
    await target.pod.remove();
  });
});

/** Held in the kernel (by a child of vfork that is stopped, for one), with a SIGSTOP waiting: its program does not get to run. */
function stopsOnReturn(pid: number, state: string): boolean {
  if (state !== 'D') return false;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const pending = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*(\w+)$/gm)].map(([, mask]) => BigInt(`0x${mask}`));
  return pending.some((mask) => (mask & (1n << 18n)) !== 0n);
}

describe('while CRIU restores, nothing of the container runs', () => {
  // In the second each process lives for two milliseconds only: a list of them is never up to date. Faster ones would use up the pod's
  // processes as zombies while its PID 1 is stopped.
  const restless = {
    'a shell with children': 'sh -c "while :; do sleep 0.01; done" &',
    'a chain of forks':
      '/usr/bin/python3 -c "import os, time\nwhile True:\n  time.sleep(0.002)\n  if os.fork(): os._exit(0)" &',
  };

  test.each(Object.entries(restless))('%s is stopped, or refused', async (_, unrest) => {
    const source = await checkpointed(cluster, agent, memory());
    await source.pod.remove();
    gates.holdCriu('restore');
    const command = ['sh', '-c', `${`${unrest} `.repeat(4)}\nexec /usr/local/bin/snapshot-standby`];
    const { container, pod } = await runTarget(cluster, source, { command });
    const ended = operationEnd(agent, 'restore', container);
    await Promise.race([reached('criu-restore'), ended]);
    if (gates.isReached('criu-restore')) {
      const runs = () =>
        processes()
          .filter(({ cgroups, command: line }) => cgroups.includes(container.id) && !line.includes('/opt/faults/'))
          .filter(({ pid, state }) => !/[TtZX]/.test(state) && !stopsOnReturn(pid, state))
          .map(({ pid, state, command: line }) => `${pid} ${state} ${line}`);
      for (let look = 0; look < 20; look++) expect(runs()).toEqual([]);
      gates.openAll();
      requireSuccess(agent, await ended, container);
      await expectRuns(container);
    } else {
      expect(await ended).toMatchObject({ code: 'RESTORE_REFUSED', reasons: [{ code: 'TASKS_RESTLESS' }] });
      // As it was before: its processes go on.
      expect((await container.exec('grep', 'State', '/proc/1/status')).stdout).toMatch(/State:\s+[SR]/);
    }
    await pod.remove();
  });
});

describe('CRIU fails', () => {
  test.each([
    ['SYS_RESOURCE_MISSING', "(00.010) Error (criu/cr-dump.c:389): Can't get rlimit 0: Operation not permitted"],
    ['IMAGE_SPACE', '(00.010) Error (criu/image.c:1): Error flushing image: No space left on device'],
    ['UNKNOWN_CRIU_FAILURE', '(00.010) Error (criu/new.c:1): the moon is in the wrong phase'],
  ])('to dump: %s is said, and the workload runs on', async (code, line) => {
    gates.failCriu(
      'dump',
      `(00.001) Warn  (criu/x.c:1): of no interest\n${line}\n(00.011) Error (criu/cr-dump.c:2): Dumping FAILED.`,
    );
    const source = await runSource(cluster, memory());
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ code: 'DUMP_FAILED', step: 'criu-dump', reasons: [{ code }] });
    const [reason] = end['reasons'] as { found: string; advice: string }[];
    expect(reason?.found).toContain(line);
    expect(reason?.advice).not.toBe('');
    await expectRuns(source.container);
    await expectNoStaging(source.id);
    await source.pod.remove();
  });

  test('to restore: the cause is said, and the container ends', async () => {
    const source = await checkpointed(cluster, agent, memory());
    await source.pod.remove();
    gates.failCriu(
      'restore',
      "(00.1) Error (criu/sk-inet.c:1): inet: Can't bind inet socket (id 5): Address already in use",
    );
    const { container, pod } = await runTarget(cluster, source);
    const end = await operationEnd(agent, 'restore', container);
    expect(end).toMatchObject({ code: 'RESTORE_FAILED', step: 'criu-restore', reasons: [{ code: 'PORT_IN_USE' }] });
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    gates.openAll();
    const next = await pod.runPlaceholder({ attempt: 1, control: false });
    requireSuccess(agent, await operationEnd(agent, 'restore', next), next);
    await expectRuns(next);
    await pod.remove();
  });

  test('in a Job: its container is ended, so that the Job fails at once', async () => {
    gates.failCriu('dump', '(00.1) Error (criu/new.c:1): no');
    const source = await runSource(cluster, { ...memory(), pod: { labels: { [LABELS.jobName]: 'job' } } });
    expect(await operationEnd(agent, 'checkpoint', source.container)).toMatchObject({ code: 'DUMP_FAILED' });
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
    await source.pod.remove();
  });
});

describe('with short deadlines', () => {
  beforeAll(async () => {
    await agent.end('SIGTERM');
    const timeouts = { checkpoint: { timeoutSeconds: 2 }, restore: { restoreTimeoutSeconds: 3 } };
    agent = await startWithGates({ config: timeouts });
  });
  afterAll(async () => {
    await agent.end('SIGTERM');
    agent = await startWithGates();
  });

  test('a dump that hangs is given up, the workload runs on, and it is tried again', async () => {
    gates.holdCriu('dump');
    const source = await runSource(cluster, memory());
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ code: 'STEP_TIMEOUT', step: 'criu-dump' });
    expect(end['problem']).toContain('2 s');
    await expectRuns(source.container);
    const from = agent.logs().length;
    gates.openAll();
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container, { from }), source.container);
    await expectRuns(source.container);
    await expectNoStaging(source.id);
    await source.pod.remove();
  });

  test('a capture that hangs while the workload is frozen is given up, and it runs on', async () => {
    gates.holdHelper('criu-dump', 'capture');
    const source = await runSource(cluster, memory());
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ code: 'STEP_TIMEOUT', step: 'criu-dump' });
    await expectRuns(source.container);
    // The pod goes only when no attempt is under way that it would tear the ground from.
    const from = agent.logs().length;
    gates.openAll();
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container, { from }), source.container);
    await source.pod.remove();
  });

  test('a restore that hangs is given up, and its container ends', async () => {
    const source = await checkpointed(cluster, agent, memory());
    await source.pod.remove();
    gates.holdCriu('restore');
    const { container, pod } = await runTarget(cluster, source);
    const end = await operationEnd(agent, 'restore', container);
    expect(end).toMatchObject({ code: 'STEP_TIMEOUT', step: 'criu-restore' });
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    await expectNoOrphans();
    await pod.remove();
  });
});

describe('with a small volume', () => {
  let volume: Volume;
  beforeAll(async () => {
    await agent.end('SIGTERM');
    volume = await cluster.makeVolume('small', { sizeMiB: 192 });
    agent = await startWithGates({ volume });
  });

  async function freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(volume.hostPath);
    return bavail * bsize;
  }
  const filler = () => join(volume.hostPath, 'filler');
  async function fillUp(): Promise<void> {
    execFileSync('fallocate', ['-l', `${(await freeBytes()) - 65_536}`, filler()]);
  }

  test('a checkpoint that cannot fit is refused before anything is done', async () => {
    const source = await runSource(cluster, memory(120));
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ result: 'refused', code: 'CHECKPOINT_REFUSED', reasons: [{ code: 'VOLUME_SPACE' }] });
    const [reason] = end['reasons'] as { found: string; wanted: string }[];
    expect(Number.parseInt(reason?.found ?? '', 10)).toBeLessThan(Number.parseInt(reason?.wanted ?? '', 10));
    await expectRuns(source.container);
    expect(readdirSync(volume.hostPath)).toEqual([]);
    await source.pod.remove();
  });

  test.each(['criu-dump', 'finalize'])('one that is filled up in %s costs nothing but the attempt', async (step) => {
    if (step === 'criu-dump') gates.holdCriu('dump');
    else gates.holdHelper(step);
    const source = await runSource(cluster, memory(8));
    await reached(step === 'criu-dump' ? 'criu-dump' : 'helper');
    await fillUp();
    gates.openAll();
    const end = await operationEnd(agent, 'checkpoint', source.container);
    rmSync(filler());
    const [reason] = end['reasons'] as { code: string }[];
    expect([end['code'], reason?.code]).toEqual(
      step === 'criu-dump' ? ['DUMP_FAILED', 'IMAGE_SPACE'] : ['STORAGE_FULL', undefined],
    );
    await expectRuns(source.container);
    await expectNoStaging(source.id, volume);
    await source.pod.remove();
  });

  test('and what was published before is still whole', async () => {
    const source = await runSource(cluster, memory(4));
    requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container), source.container);
    await fillUp();
    const other = await runSource(cluster, memory(4));
    const end = await operationEnd(agent, 'checkpoint', other.container);
    expect(end).toMatchObject({ code: 'CHECKPOINT_REFUSED' });
    // Reading needs no space, but for the reader's mark: it is refused by name or works.
    const target = await runTarget(cluster, source);
    const restore = await operationEnd(agent, 'restore', target.container);
    if (restore['msg'] === 'operation succeeded') await expectRuns(target.container);
    else {
      expect(restore).toMatchObject({ code: 'STORAGE_FULL' });
      expect((await target.container.status()).state).toBe('CONTAINER_RUNNING');
      rmSync(filler());
      const from = agent.logs().length;
      requireSuccess(agent, await operationEnd(agent, 'restore', target.container, { from }), target.container);
      await expectRuns(target.container);
    }
    rmSync(filler(), { force: true });
  });
});
