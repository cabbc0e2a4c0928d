import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startKubeApi } from '../fakes/kube-api/server.ts';
import { type Answer, failureOf } from '../flow/grpc/client.ts';
import { programAt } from '../flow/snapshotctl-agents/program.ts';
import { putAgent, serveRelay } from '../flow/snapshotctl-agents/stage.ts';
import type { Volume } from './environment/cluster.ts';
import { workload } from './environment/pod.ts';
import { ApiNode, type Plain } from './grpc/node.ts';

/** The agent has no volume of its own: each is reached through a container that mounts it. */

let node: ApiNode;
/** Mounts the volume at the configured path. */
let source: Plain;
/** Mounts it at another one. */
let elsewhere: Plain;
/** Mounts none. */
let without: Plain;
let volume: Volume;
const ELSEWHERE = '/data/checkpoints';
const memory = { command: workload('memory', '2') };

beforeAll(async () => {
  node = await ApiNode.start(() => Promise.resolve({ accessMode: 'podMount' }));
  volume = node.cluster.volume;
  [source, elsewhere, without] = await Promise.all([
    node.runPlain({ ...memory, volume }),
    node.runPlain({ ...memory, volume: { ...volume, mountPath: ELSEWHERE } }),
    node.runPlain(memory),
  ]);
});
afterAll(async () => {
  expect(await node?.stop()).toEqual([]);
});

async function refused(call: Promise<unknown>) {
  return node.api.details(await failureOf(call));
}
const through = ({ target }: Plain, base_path = '') => ({ storage: { through: target, base_path } });

test('the node says that volumes are reached through pods', async () => {
  expect(await node.api.ask('GetNodeInfo')).toMatchObject({
    access_mode: 'ACCESS_MODE_POD_MOUNT',
    base_path: '/checkpoints',
  });
});

test('a checkpoint goes to the volume that its container mounts, wherever that is, and a restore reads from there', async () => {
  await node.perform('Checkpoint', source, { checkpoint_id: 'one' });
  await node.perform('Checkpoint', elsewhere, { checkpoint_id: 'two', base_path: ELSEWHERE });
  for (const id of ['one', 'two']) expect(existsSync(join(volume.hostPath, id, 'versions/1/manifest.yaml'))).toBe(true);
  const target = await node.runPlaceholder({ volume });
  const wanted = { restore: { checkpoint_id: 'one' } };
  const checked = await node.api.ask('CheckCompatibility', { target: target.target, ...wanted });
  expect(checked).toEqual({ compatible: true, mismatches: [], not_checked: [] });
  await node.perform('Restore', target, { checkpoint_id: 'one' });
  expect(await target.container.check()).toMatchObject({ check: 'ok' });
  await target.pod.remove();
});

test('snapshotctl finds a pod with the volume by itself, or takes the one that is named', async () => {
  const program = programAt('dist/snapshotctl/snapshotctl.mjs');
  const directory = await mkdtemp(join(tmpdir(), 'ctl-'));
  const api = await startKubeApi();
  try {
    putAgent(api, { namespace: 'snapshot', name: 'snapshot-agent-1', node: 'test-node' });
    serveRelay(api, program, node.agent.apiSocket);
    const put = ({ pod, container }: Plain, volumes: readonly object[], mountPath: string) =>
      api.put({
        kind: 'Pod',
        metadata: { name: pod.name, namespace: pod.namespace },
        spec: {
          ...{ nodeName: 'test-node', volumes },
          containers: [{ name: container.name, volumeMounts: [{ name: 'checkpoint-storage', mountPath }] }],
        },
        status: { phase: 'Running' },
      });
    put(without, [], '/nothing');
    put(elsewhere, [{ name: 'checkpoint-storage' }], ELSEWHERE);
    const flags = ['--kubeconfig', await api.writeKubeconfig(directory), '-n', source.pod.namespace];
    const found = await program.run(['list', ...flags, '-o', 'json']);
    expect([found.code, found.err]).toEqual([0, `through pod ${elsewhere.pod.namespace}/${elsewhere.pod.name}\n`]);
    const ids = JSON.parse(found.out).checkpoints.map(({ checkpointId }: { checkpointId: string }) => checkpointId);
    expect(ids).toEqual(['one', 'two']);
    const inside = await program.run(['inspect', 'two', ...flags]);
    expect(inside).toMatchObject({ code: 0, out: expect.stringContaining(`${ELSEWHERE}/two/versions/1`) });
    expect(await program.run(['diff', 'one', ...flags])).toMatchObject({ code: 0 });
    const none = await program.run(['list', ...flags, '--through', without.pod.name]);
    expect(none).toMatchObject({ code: 3, err: expect.stringMatching(/STORAGE_NOT_ATTACHED[\s\S]*Pass --through/) });
  } finally {
    await api.close();
    await rm(directory, { recursive: true, force: true });
  }
});

test('artifacts are listed, shown, looked into, verified and deleted through any container that mounts their volume', async () => {
  for (const storage of [through(source), through(elsewhere, ELSEWHERE)]) {
    const { checkpoints } = await node.api.ask('ListCheckpoints', storage);
    expect(checkpoints.map((one: Answer) => one.checkpoint_id)).toEqual(['one', 'two']);
    expect(await node.api.ask('GetCheckpoint', { ...storage, checkpoint_id: 'two' })).toMatchObject({
      complete: true,
      location: `${storage.storage.base_path || '/checkpoints'}/two/versions/1`,
      record: { source: { pod: elsewhere.pod.name } },
    });
    const verified = await node.api.ask('VerifyCheckpoint', { ...storage, checkpoint_id: 'one' });
    expect(verified.bytes).toBeGreaterThan(2 << 20);
    const inside = await node.api.ask('InspectCheckpoint', { ...storage, checkpoint_id: 'one' });
    expect(inside).toMatchObject({ checkpoint: { checkpoint_id: 'one', readers: [] }, processes: [{ pid: 1 }] });
    const fits = await node.api.ask('CheckCompatibility', { ...storage, restore: { checkpoint_id: 'one' } });
    expect(fits).toMatchObject({ compatible: true, not_checked: expect.arrayContaining(['image', 'mounts']) });
  }
  await node.api.ask('DeleteCheckpoint', { ...through(source), checkpoint_id: 'two', version: '1' });
  const error = await refused(
    node.api.ask('GetCheckpoint', { ...through(elsewhere, ELSEWHERE), checkpoint_id: 'two' }),
  );
  expect(error).toMatchObject({ code: status.NOT_FOUND, info: { reason: 'ARTIFACT_NOT_FOUND' } });
});

const CALLS: Readonly<Record<string, object>> = {
  ListCheckpoints: {},
  GetCheckpoint: { checkpoint_id: 'one' },
  InspectCheckpoint: { checkpoint_id: 'one' },
  VerifyCheckpoint: { checkpoint_id: 'one' },
  DeleteCheckpoint: { checkpoint_id: 'one', version: '1' },
};

test.each(Object.entries(CALLS))('%s needs a container that mounts the volume', async (method, request) => {
  for (const storage of [{}, { storage: {} }, { storage: { base_path: ELSEWHERE } }]) {
    const error = await refused(node.api.ask(method, { ...request, ...storage }));
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, info: { reason: 'REQUEST_INVALID' } });
    expect(error.fields).toEqual([{ field: 'storage.through', description: expect.stringContaining('is required') }]);
  }
  const nobody = { storage: { through: { ...source.target, container: 'nobody' } } };
  expect(await refused(node.api.ask(method, { ...request, ...nobody }))).toMatchObject({
    code: status.NOT_FOUND,
    info: { reason: 'CONTAINER_NOT_FOUND' },
  });
  for (const storage of [through(without), through(source, ELSEWHERE)])
    expect(await refused(node.api.ask(method, { ...request, ...storage }))).toMatchObject({
      code: status.FAILED_PRECONDITION,
      info: { reason: 'STORAGE_NOT_ATTACHED' },
    });
});

test('an operation on a container without the volume fails, and leaves it as it is', async () => {
  for (const kind of ['Checkpoint', 'Restore'] as const) {
    const { name } = await node.begin(kind, without, { checkpoint_id: 'one' });
    const end = await node.end(name);
    expect(node.api.statusDetails(end.error)).toMatchObject({
      code: status.FAILED_PRECONDITION,
      info: { reason: 'STORAGE_NOT_ATTACHED' },
    });
    expect(await without.container.check()).toMatchObject({ check: 'ok' });
  }
});
