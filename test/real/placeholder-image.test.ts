import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SENTINELS } from '../../contract/keys.ts';
import { VERSION } from '../../contract/version.ts';
import { AgentDaemonSet, type AgentPod } from './environment/agent-daemonset.ts';
import { importAgentImage } from './environment/agent-image.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { BARE_BASE, importPlaceholder, type MadeImage, SHELL_BASE } from './environment/placeholder-image.ts';
import { markReady, runSource, runTarget, sentinel } from './scenario.ts';

/** Placeholder images as they are shipped to be made, over somebody else's images; the agent in its own image. */
let cluster: Cluster;
let agent: AgentPod;
const made = new Map<string, MadeImage>();
const BASES = { 'with a shell': SHELL_BASE, 'with one static program': BARE_BASE };

beforeAll(async () => {
  cluster = await Cluster.start();
  await importAgentImage(cluster);
  for (const base of Object.values(BASES)) made.set(base.name, await importPlaceholder(cluster, base));
  agent = await new AgentDaemonSet(cluster).startPod();
}, 600_000);
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

/** How long a container runs once a worker in it was asked to end is up to the worker: both here end at once. */
const GRACE_SECONDS = 20;

function imageOver(base: { readonly name: string }): MadeImage {
  const image = made.get(base.name);
  if (image === undefined) throw new Error(`no placeholder was made over ${base.name}`);
  return image;
}

async function released(container: Container, name: string): Promise<void> {
  await eventually(
    `${name} of container ${container.name}`,
    () => {
      const failed = agent
        .logs()
        .find((line) => line['containerId'] === container.id && line['msg'] === 'operation failed');
      if (failed !== undefined) throw new Error(JSON.stringify(failed));
      try {
        return sentinel(container, name) || undefined;
      } catch {
        return undefined; // Not there yet.
      }
    },
    { timeoutMs: 60_000, explain: () => agent.explain() },
  );
}

/** What the image gives a process: its user, and its environment. */
function givenTo(pid: number): { user: string | undefined; mode: string | undefined } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  const mode = environment.find((one) => one.startsWith('WORKER_MODE='));
  return { user: /^Uid:\t(\d+)\t/m.exec(status)?.[1], mode };
}

describe.each(Object.entries(BASES))('over an image %s', (_, base) => {
  test('the placeholder is started as its base is, and says what it is made from', () => {
    const { config } = imageOver(base);
    const { Labels, ...started } = config;
    const { Labels: own = {}, ...asBefore } = base.config as { Labels?: Record<string, string> };
    const { 'org.opencontainers.image.base.digest': _digest, ...kept } = own;
    expect(started).toEqual(asBefore);
    expect(Labels).toEqual({
      ...kept,
      'org.opencontainers.image.base.name': base.name,
      'nvidia.com/snapshot-standby-version': VERSION,
    });
  });

  test('it adds snapshot-standby and its bill of materials, and no directory of the base is touched', () => {
    const { added } = imageOver(base);
    expect(added).toContain('./usr/local/bin/snapshot-standby');
    expect(added).toContain('./usr/share/snapshot/bom.json');
    expect(added.filter((name) => !name.startsWith('./usr/share/snapshot/'))).toEqual([
      './usr/local/bin/snapshot-standby',
    ]);
    expect(added.filter((name) => name.endsWith('/'))).toEqual([]);
  });

  test('a worker started by the entry point of the base is checkpointed, and restored into a pod of the same image in standby', async () => {
    const { name: image } = imageOver(base);
    // No command: the image's own.
    const source = await runSource(cluster, { image, command: [] });
    const before = await source.container.check();
    expect(before).toMatchObject({ check: 'ok' });
    const given = givenTo(await source.container.pid());
    expect(given).toEqual({
      user: base === BARE_BASE ? '65532' : '1000',
      mode: `WORKER_MODE=${base === BARE_BASE ? 'bare' : 'shell'}`,
    });
    await markReady(source.container);
    await released(source.container, SENTINELS.complete);
    await source.pod.remove();

    const target = await runTarget(cluster, source);
    await released(target.container, SENTINELS.restored);
    const standby = await target.container.pid();
    expect(readFileSync(`/proc/${standby}/comm`, 'utf8').trim()).toBe('standby-armed');
    expect(givenTo(standby)).toEqual(given);
    const restored = await target.container.workloadPid();
    expect(restored).not.toBe(standby);
    expect(givenTo(restored)).toEqual(given);
    const after = await target.container.check();
    expect(after).toMatchObject({ check: 'ok', pid: 1, uid: Number(given.user) });
    expect(after['digest']).toBe(before['digest']);
    expect(Number(after['beats'])).toBeGreaterThanOrEqual(Number(before['beats']));
    await target.container.stop(GRACE_SECONDS);
    expect(await target.container.ended()).toMatchObject({ exit_code: base === BARE_BASE ? 7 : 0 });
    await target.pod.remove();
  });
});
