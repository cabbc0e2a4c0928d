import { readFileSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import { workload } from './environment/pod.ts';
import { checkpointed, readRecord, restored } from './scenario.ts';

/** On a machine that sees cgroup v2 only, every container is in a cgroup namespace of its own: the case of today's distributions. */
let cluster: Cluster;
let agent: Agent;

beforeAll(async () => {
  cluster = await Cluster.start({ cgroups: 'v2' });
  agent = await cluster.startAgent();
});

afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const unified = (pid: number) => /^0::.*$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[0];
const cgroupNamespace = (pid: number | 'self') => readlinkSync(`/proc/${pid}/ns/cgroup`);

test.each([
  ['memory', undefined],
  ['tree', undefined],
  ['memoryobjects', ['sleep', 'infinity']],
] as const)('%s joins the cgroup and the cgroup namespace of its new container', async (name, placeholder) => {
  const source = await checkpointed(cluster, agent, { command: workload(name), control: false });
  expect(readRecord(source.artifact)).toMatchObject({ platform: { cgroupVersion: 2 } });
  await source.pod.remove();
  const target = await restored(cluster, agent, source, placeholder ? { command: placeholder } : {});
  expect(await target.container.check()).toMatchObject({ check: 'ok', host: target.pod.name });
  const first = await target.container.pid();
  const root = await target.container.workloadPid();
  expect(root).not.toBe(first);
  expect(unified(root)).toBe(unified(first));
  expect(unified(root)).toContain(target.container.id);
  expect(cgroupNamespace(root)).toBe(cgroupNamespace(first));
  expect(cgroupNamespace(root)).not.toBe(cgroupNamespace('self'));
  await target.container.stop(0);
  await target.pod.remove();
});
