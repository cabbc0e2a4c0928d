import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SENTINELS } from '../../contract/keys.ts';
import type { RuncContainer } from '../gpu/harness/container.ts';
import { RuncNode, WORKERS } from '../gpu/harness/node.ts';
import { Operations, requireSuccess } from '../gpu/harness/operations.ts';
import { requireCgroup } from '../gpu/sections/restored.ts';
import type { Agent } from './environment/agent.ts';
import { REPOSITORY } from './environment/host.ts';

/** The node that the GPU tests run on, proven here with a workload that needs no GPU: what fails there is then not the harness. */
let node: RuncNode;
let agent: Agent;
let operations: Operations;

beforeAll(async () => {
  node = await RuncNode.start({ workers: join(REPOSITORY, 'test/workloads') });
  agent = await node.startAgent();
  operations = await Operations.connect(agent);
});

afterAll(async () => {
  operations?.close();
  await node?.stop();
  expect(node?.leftovers()).toEqual([]);
});

const LIMIT = 512 << 20;

async function source(name: string): Promise<RuncContainer> {
  const args = ['/usr/bin/env', 'python3', '-u', `${WORKERS}/memory.py`];
  const container = await node.run({ name, args, memoryLimitBytes: LIMIT });
  await container.waitForOutput('{"ready":…}', (line) => 'ready' in line);
  await writeFile(join(container.controlDirectory, SENTINELS.ready), 'ready');
  return container;
}

test.each([
  ['snapshot-standby', undefined],
  ['sleep', ['sleep', 'infinity']],
] as const)('a worker goes on in the place of %s, in its cgroup', async (name, args) => {
  const worker = await source(`worker-for-${name}`);
  const taken = await operations.checkpoint(worker, { id: `for-${name}` });
  expect(requireSuccess(taken, agent).figures).toMatchObject({ pauseSeconds: expect.any(Number) });
  expect(await worker.check()).toMatchObject({ check: 'ok' });
  await worker.remove();

  const request = { name: `place-${name}`, memoryLimitBytes: LIMIT, ...(args === undefined ? {} : { args }) };
  const placeholder = await node.runPlaceholder(request);
  const seen: string[] = [];
  const asked = { id: `for-${name}`, waitSeconds: 30, onStep: (step: string) => seen.push(step) };
  requireSuccess(await operations.restore(placeholder, asked), agent);
  expect(seen).toContain('criu-restore');
  expect(await placeholder.check()).toMatchObject({ check: 'ok', host: `place-${name}` });
  requireCgroup(placeholder, LIMIT);
  await placeholder.remove();
});

test('a container that has ended is told of as such', async () => {
  const container = await node.run({ name: 'short', args: ['sh', '-c', 'exit 7'] });
  await expect.poll(() => container.exitCode).toBe(7);
  await expect(operations.checkpoint(container, { id: 'short' })).rejects.toThrow('runs on this node');
  await container.remove();
});
