import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { workload } from './environment/pod.ts';
import { processes } from './environment/processes.ts';
import { type Checkpointed, checkpointed, type Restored, restored, runTarget } from './scenario.ts';

/** What can be PID 1 of a placeholder. Only the first was made for it. */
const PLACEHOLDERS = {
  'snapshot-standby': ['/usr/local/bin/snapshot-standby'],
  'sleep infinity': ['sleep', 'infinity'],
  'a shell that reaps': ['sh', '-c', 'while :; do sleep 1; done'],
} as const;
const kinds = Object.keys(PLACEHOLDERS) as (keyof typeof PLACEHOLDERS)[];

let cluster: Cluster;
let agent: Agent;
/** Ends with 42 on SIGUSR2; on SIGTERM it cleans up, which takes a moment, and ends with 0. */
let exits: Checkpointed;
/** Ends by a fault on SIGUSR2. */
let faults: Checkpointed;

beforeAll(async () => {
  cluster = await Cluster.start();
  agent = await cluster.startAgent();
  [exits, faults] = await Promise.all([
    checkpointed(cluster, agent, { command: workload('exits', '42'), control: false }),
    checkpointed(cluster, agent, { command: workload('exits', 'segfault'), control: false }),
  ]);
  await Promise.all([exits.pod.remove(), faults.pod.remove()]);
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

async function revived(source: Checkpointed, kind: keyof typeof PLACEHOLDERS): Promise<Restored> {
  return restored(cluster, agent, source, { command: PLACEHOLDERS[kind] });
}

/** Processes in the container's cgroup. */
function remains(container: Container): string[] {
  return processes()
    .filter(({ cgroups }) => cgroups.includes(container.id))
    .map(({ pid, state, command }) => `${pid} ${state} ${command}`);
}

async function expectNothingLeft(container: Container): Promise<void> {
  await eventually('the last process of the container', () => (remains(container).length === 0 ? true : undefined), {
    explain: () => remains(container).join('\n'),
  });
}

function said(container: Container, key: string): boolean {
  return container.output().some((line) => line[key] === true);
}

describe.each(kinds)('with %s as PID 1, the container ends', (kind) => {
  test('with the exit code of the restored process', async () => {
    const { container, pod } = await revived(exits, kind);
    await container.signal('SIGUSR2');
    expect(await container.ended()).toMatchObject({ exit_code: 42 });
    await expectNothingLeft(container);
    await pod.remove();
  });

  test('with 128 + the signal that ended it: a fault, a SIGKILL', async () => {
    const [fault, killed] = await Promise.all([revived(faults, kind), revived(exits, kind)]);
    await fault.container.signal('SIGUSR2');
    await killed.container.signal('SIGKILL');
    expect(await fault.container.ended()).toMatchObject({ exit_code: 139 });
    expect(await killed.container.ended()).toMatchObject({ exit_code: 137 });
    await Promise.all([expectNothingLeft(fault.container), expectNothingLeft(killed.container)]);
    await Promise.all([fault.pod.remove(), killed.pod.remove()]);
  });

  test('as its SIGTERM handler says, long before the grace period is over', async () => {
    const { container, pod } = await revived(exits, kind);
    const began = performance.now();
    await container.stop(30);
    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    expect(performance.now() - began).toBeLessThan(10_000);
    // The handler was let finish.
    expect([said(container, 'terminating'), said(container, 'terminated')]).toEqual([true, true]);
    await expectNothingLeft(container);
    await pod.remove();
  });

  test('at once without a grace period, with everything that ran in it', async () => {
    const { container, pod } = await revived(exits, kind);
    // Somebody looks around in the container meanwhile.
    const session = container.exec('sleep', '1000').catch(() => undefined);
    await eventually('the session', () => remains(container).find((line) => line.includes('sleep 1000')));
    await container.stop(0);
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    expect(said(container, 'terminating')).toBe(false);
    await expectNothingLeft(container);
    await session;
    await pod.remove();
  });
});

test('a restored tree ends with its first process, whole', async () => {
  const tree = await checkpointed(cluster, agent, { command: workload('tree'), control: false });
  await tree.pod.remove();
  const targets = await Promise.all(kinds.map((kind) => revived(tree, kind)));
  for (const { container, pod } of targets) {
    expect(await container.check()).toMatchObject({ check: 'ok' });
    expect(remains(container).length).toBeGreaterThan(6);
    await container.signal('SIGKILL');
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    await expectNothingLeft(container);
    await pod.remove();
  }
});

test('a restored process that ends at once still gives its exit code', async () => {
  const targets = await Promise.all(
    kinds.map(async (kind) => {
      const { container, pod } = await runTarget(cluster, exits, { command: PLACEHOLDERS[kind] });
      // As early as its process can be seen: perhaps before the agent has finished the restore.
      const first = await container.pid();
      await eventually(
        'the restored process',
        async () => {
          const pid = await container.workloadPid();
          if (pid === first) return undefined;
          process.kill(pid, 'SIGUSR2');
          return true;
        },
        { everyMs: 1, timeoutMs: 60_000 },
      );
      return { container, pod };
    }),
  );
  for (const { container, pod } of targets) {
    // Where it ended before it was confirmed to run, the restore failed, and the container with it.
    expect([42, 137]).toContain((await container.ended()).exit_code);
    await expectNothingLeft(container);
    await pod.remove();
  }
});

describe('without the agent', () => {
  type Lives = 'stays' | 'ends' | 'terminated' | 'ends later' | 'terminated later';
  const lives: Lives[] = ['stays', 'ends', 'terminated', 'ends later', 'terminated later'];

  test('restored containers live on; what happened meanwhile and what happens later is as if it had been there', async () => {
    const made = await Promise.all(
      kinds.flatMap((kind) =>
        lives.map(async (life) => ({ kind, life, ...(await revived(exits, kind)), stopping: Promise.resolve() })),
      ),
    );
    const of = (kind: string, life: Lives) => {
      const one = made.find((candidate) => candidate.kind === kind && candidate.life === life);
      if (one === undefined) throw new Error(`${kind}, ${life} was not made`);
      return one;
    };
    await agent.end('SIGKILL');
    for (const { container } of made) expect(await container.check()).toMatchObject({ check: 'ok' });

    // Grace periods begin while nobody is there to forward the signal.
    for (const one of made.filter(({ life }) => life === 'terminated')) one.stopping = one.container.stop(60);
    for (const { container } of made.filter(({ life }) => life === 'ends')) await container.signal('SIGUSR2');
    // Standby needs no agent.
    expect(await of('snapshot-standby', 'ends').container.ended()).toMatchObject({ exit_code: 42 });
    expect(await of('snapshot-standby', 'terminated').container.ended()).toMatchObject({ exit_code: 0 });
    // Long enough for a shell to go round its loop.
    await sleep(1500);
    for (const kind of kinds.slice(1)) {
      expect((await of(kind, 'ends').container.status()).state).toBe('CONTAINER_RUNNING');
      expect(said(of(kind, 'terminated').container, 'terminating')).toBe(false);
    }

    const from = agent.logs().length;
    await agent.start();
    await agent.waitForLog('its start', (line) => line['msg'] === 'started', { from });
    for (const kind of kinds) {
      expect(await of(kind, 'ends').container.ended()).toMatchObject({ exit_code: 42 });
      const { container, stopping } = of(kind, 'terminated');
      await stopping;
      expect(await container.ended()).toMatchObject({ exit_code: 0 });
      expect(said(container, 'terminated')).toBe(true);
    }

    for (const kind of kinds) {
      await of(kind, 'ends later').container.signal('SIGUSR2');
      expect(await of(kind, 'ends later').container.ended()).toMatchObject({ exit_code: 42 });
      const began = performance.now();
      await of(kind, 'terminated later').container.stop(30);
      expect(await of(kind, 'terminated later').container.ended()).toMatchObject({ exit_code: 0 });
      expect(performance.now() - began).toBeLessThan(10_000);
      expect(await of(kind, 'stays').container.check()).toMatchObject({ check: 'ok' });
    }

    // A stop that is asked for in the ordinary way leaves them alone as well.
    expect(await agent.end('SIGTERM')).toMatchObject({ exitCode: 0 });
    for (const kind of kinds) expect(await of(kind, 'stays').container.check()).toMatchObject({ check: 'ok' });
    await agent.start();
    for (const { container, life } of made) if (life !== 'stays') await expectNothingLeft(container);
    await Promise.all(made.map(({ pod }) => pod.remove()));
  });
});

test('an exit code that nobody can know any more is not taken for success', async () => {
  const { container, pod } = await revived(exits, 'a shell that reaps');
  await agent.end('SIGKILL');
  // Somebody in the container wakes its PID 1, which then reaps the restored process while no agent runs.
  process.kill(await container.pid(), 'SIGCONT');
  const root = await container.workloadPid();
  await container.signal('SIGUSR2');
  await eventually('its end', () => (processes().some(({ pid }) => pid === root) ? undefined : true));
  const from = agent.logs().length;
  await agent.start();
  expect(await container.ended()).toMatchObject({ exit_code: 137 });
  await agent.waitForLog(
    'the reason',
    (line) => line['containerId'] === container.id && line['reason'] === 'EXIT_CODE_UNKNOWN',
    { from },
  );
  await expectNothingLeft(container);
  await pod.remove();
});

test('the agent keeps nothing of containers that ended', async () => {
  // Pins are children of the agent; after a moment none is left. The lock of the node it keeps for as long as it lives.
  const isPin = ({ parent, command }: { parent: number; command: string }) =>
    parent === agent.pid && !command.includes(' lock ');
  await eventually('the end of the pins', () => (processes().some(isPin) ? undefined : true), {
    explain: () =>
      processes()
        .filter(isPin)
        .map(({ command }) => command)
        .join('\n'),
  });
});
