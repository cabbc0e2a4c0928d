import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recordKeyOf } from '../../contract/record-key.ts';
import { type MountedSecret, mountSecret } from '../fakes/mounted-secret.ts';
import { connectTo, type TestClient } from '../flow/grpc/client.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import { workload } from './environment/pod.ts';
import { type Checkpointed, checkpointed, operationEnd, readRecord, restored, runTarget } from './scenario.ts';

/** The record key changes while an agent runs: what it signs, and whose records it believes, from one moment to the next. */
const [ONE, TWO] = ['07'.repeat(32), '08'.repeat(32)];

let cluster: Cluster;
let agent: Agent;
let secret: MountedSecret;
let caller: TestClient;
beforeAll(async () => {
  cluster = await Cluster.start();
  secret = await mountSecret(join(cluster.sharedDirectory, 'record-keys'), { 'record.key': ONE });
  const key = { file: join(secret.path, 'record.key'), acceptedDirectory: secret.path, create: false };
  agent = await cluster.startAgent({ config: { storage: { key } } });
  caller = connectTo(`unix:${agent.apiSocket}`);
});
afterAll(async () => {
  caller?.close();
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

function idOf(text: string): string {
  const key = recordKeyOf(Buffer.from(text));
  if (typeof key === 'string') throw new Error(key);
  return key.id;
}

/** Kubelet swaps the Secret, and the agent takes it without a restart. */
async function swap(files: Readonly<Record<string, string>>): Promise<void> {
  const { pid } = agent;
  const from = agent.logs().length;
  await secret.swap(files);
  await agent.waitForLog('the change', ({ msg }) => msg === 'the record keys changed', { from });
  expect(agent.pid).toBe(pid);
}

// Enough memory for blocks whose tags come from the key.
const checkpointOne = () => checkpointed(cluster, agent, { command: workload('memory', '16') });
const signedBy = ({ artifact }: Checkpointed) => (readRecord(artifact)['signature'] as { keyId: string }).keyId;

test('a key is accepted, signs, and is forgotten, while the agent runs', async () => {
  const first = await checkpointOne();
  expect(signedBy(first)).toBe(idOf(ONE));

  await swap({ 'record.key': ONE, [`next-${idOf(TWO)}.key`]: TWO });
  const between = await checkpointOne();
  expect(signedBy(between)).toBe(idOf(ONE));

  await swap({ 'record.key': TWO, [`previous-${idOf(ONE)}.key`]: ONE });
  const second = await checkpointOne();
  expect(signedBy(second)).toBe(idOf(TWO));
  for (const source of [first, between, second]) {
    const { digest } = await source.container.check();
    const { container } = await restored(cluster, agent, source);
    expect(await container.check()).toMatchObject({ check: 'ok', digest });
  }

  for (const { id, version } of [first, second]) {
    const asked = { checkpoint_id: id, version };
    expect(await caller.ask('GetCheckpoint', asked)).toMatchObject({ complete: true });
    expect((await caller.ask('VerifyCheckpoint', asked)).files).toBeGreaterThan(0);
    expect((await caller.ask('InspectCheckpoint', asked)).processes).not.toEqual([]);
  }

  await swap({ 'record.key': TWO });
  const target = await runTarget(cluster, first);
  const refused = await operationEnd(agent, 'restore', target.container);
  expect(refused).toMatchObject({ result: 'refused', code: 'ARTIFACT_UNSIGNED' });
  const { container } = await restored(cluster, agent, second);
  expect(await container.check()).toMatchObject({ check: 'ok' });
});
