import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, failureOf } from '../flow/grpc/client.ts';
import { eventually } from './environment/host.ts';
import { workload } from './environment/pod.ts';
import { HeldNode } from './grpc/held.ts';
import type { ApiNode, Plain } from './grpc/node.ts';
import { artifactPath } from './scenario.ts';

/** The artifacts of a volume that the agent mounts itself. */

let held: HeldNode;
let node: ApiNode;
let source: Plain;
let operation: Answer;

beforeAll(async () => {
  held = await HeldNode.start();
  node = held.node;
  source = await node.runPlain({ command: workload('memory', '8') });
  operation = await node.perform('Checkpoint', source, { checkpoint_id: 'good', trace_id: 'a'.repeat(32) });
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

const pathOf = (id: string) => artifactPath(node.cluster.volume, { id, version: '1' });
const get = (checkpoint_id: string): Promise<Answer> => node.api.ask('GetCheckpoint', { checkpoint_id });

async function refused(call: Promise<unknown>) {
  return node.api.details(await failureOf(call));
}

async function ids(): Promise<string[]> {
  const { checkpoints } = await node.api.ask('ListCheckpoints');
  return checkpoints.map((one: Answer) => one.checkpoint_id);
}

/** An artifact of its own with one byte changed in the middle of a file; in the record itself, in a word of it. */
async function damaged(id: string, file: string): Promise<void> {
  await node.perform('Checkpoint', source, { checkpoint_id: id });
  const path = join(pathOf(id), file);
  const content = readFileSync(path);
  const at = file === 'manifest.yaml' ? content.indexOf('"namespace": "default"') + 14 : content.length >> 1;
  content[at] = (content[at] ?? 0) ^ 1;
  writeFileSync(path, content);
}

test('an artifact is shown as its record has it', async () => {
  expect(await get('good')).toMatchObject({
    checkpoint_id: 'good',
    version: '1',
    location: '/checkpoints/good/versions/1',
    complete: true,
    problem: null,
    readers: [],
    record: {
      operation_id: operation.name,
      trace_id: 'a'.repeat(32),
      create_time: { seconds: expect.closeTo(operation.metadata.end_time.seconds, -1) },
      source: {
        ...{ node: 'test-node', namespace: 'default', pod: source.pod.name, pod_uid: source.pod.uid },
        ...{ container: 'main', container_id: source.container.id, image: expect.stringContaining('placeholder') },
      },
      platform: { kernel: release(), criu: expect.stringMatching(/^4\./), gpu_driver: '', gpu_models: [] },
      sizes: {
        criu_bytes: operation.metadata.figures['criuBytes'],
        bulk_bytes: operation.metadata.figures['bulkBytes'],
      },
      processes: 1,
      pause_seconds: operation.metadata.figures['pauseSeconds'],
    },
  });
});

test('artifacts are listed in pages', async () => {
  for (const checkpoint_id of ['more-1', 'more-2', 'more-3'])
    await node.perform('Checkpoint', source, { checkpoint_id });
  await node.perform('Checkpoint', source, { checkpoint_id: 'more-2', version: 'v2' });
  const pages: string[][] = [];
  let page_token = '';
  do {
    const page = await node.api.ask('ListCheckpoints', { page_size: 2, page_token });
    pages.push(page.checkpoints.map((one: Answer) => `${one.checkpoint_id}/${one.version}`));
    page_token = page.next_page_token;
  } while (page_token !== '');
  expect(pages).toEqual([['good/1', 'more-1/1'], ['more-2/1', 'more-2/v2'], ['more-3/1']]);
  const error = await refused(node.api.ask('ListCheckpoints', { page_token: '../../etc' }));
  expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, fields: [{ field: 'page_token' }] });
});

describe('the verification', () => {
  test('reads all of an artifact', async () => {
    const answer = await node.api.ask('VerifyCheckpoint', { checkpoint_id: 'good' });
    const files = readdirSync(pathOf('good'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name !== 'manifest.yaml')
      .map((name) => statSync(join(pathOf('good'), name)))
      .filter((found) => found.isFile());
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    expect(answer).toEqual({ files: files.length, bytes, seconds: expect.any(Number) });
    expect((await get('good')).readers).toEqual([]);
  });

  test.each([
    ['criu/pages-1.img', 'ARTIFACT_CORRUPT', status.DATA_LOSS],
    ['memory/bulk.pages', 'ARTIFACT_CORRUPT', status.DATA_LOSS],
    ['rootfs/diff.tar', 'ARTIFACT_CORRUPT', status.DATA_LOSS],
    ['manifest.yaml', 'ARTIFACT_UNSIGNED', status.PERMISSION_DENIED],
  ])('sees one changed byte in %s, and a restore does so too', async (file, reason, code) => {
    const id = `damaged-${file.replace('/', '-')}`;
    await damaged(id, file);
    const error = await refused(node.api.ask('VerifyCheckpoint', { checkpoint_id: id }));
    expect(error).toMatchObject({ code, info: { reason } });
    const target = await node.runPlaceholder();
    const { name } = await node.begin('Restore', target, { checkpoint_id: id });
    const end = await node.end(name);
    // What is filled block by block is verified block by block, when the container has been changed already.
    const isLate = file === 'memory/bulk.pages';
    expect(node.api.statusDetails(end.error).info.reason).toBe(reason);
    expect(end.metadata.state).toBe(isLate ? 'OPERATION_STATE_FAILED' : 'OPERATION_STATE_REFUSED');
    if (isLate) await target.container.ended();
    else expect((await target.container.status()).state).toBe('CONTAINER_RUNNING');
    await target.pod.remove();
  });

  test('what can be seen without reading all of it is shown with the artifact', async () => {
    await node.perform('Checkpoint', source, { checkpoint_id: 'short' });
    const path = join(pathOf('short'), 'criu/pages-1.img');
    writeFileSync(path, readFileSync(path).subarray(1));
    const shown = await get('short');
    expect(shown).toMatchObject({ complete: false, record: { operation_id: expect.any(String) } });
    const { code, info } = node.api.statusDetails(shown.problem);
    expect([code, info.reason]).toEqual([status.DATA_LOSS, 'ARTIFACT_CORRUPT']);
    const unsigned = await get('damaged-manifest.yaml');
    expect(unsigned).toMatchObject({ complete: false, record: null });
    expect(node.api.statusDetails(unsigned.problem).info.reason).toBe('ARTIFACT_UNSIGNED');
    expect(await ids()).toEqual(expect.arrayContaining(['short', 'damaged-manifest.yaml']));
  });
});

describe('a deletion', () => {
  const request = { checkpoint_id: 'good', version: '1' };

  test('waits for a restore that is reading, for as long as it is told', async () => {
    const target = await node.runPlaceholder();
    const reader = await held.hold({ step: 'fill', program: 'bulk-fill' }, 'Restore', target, request);
    expect((await get('good')).readers).toEqual([reader.name]);
    const busy = await refused(node.api.ask('DeleteCheckpoint', request));
    expect(busy).toMatchObject({
      code: status.ABORTED,
      info: { reason: 'ARTIFACT_BUSY' },
      retrySeconds: expect.any(Number),
    });
    expect(busy.message).toContain(reader.name);
    // A caller that does not wait any longer ends the wait.
    const deadline = Date.now() + 500;
    const late = node.api.ask('DeleteCheckpoint', { ...request, wait_seconds: 60 }, { deadline });
    expect((await failureOf(late)).code).toBe(status.DEADLINE_EXCEEDED);
    expect(await get('good')).toMatchObject({ complete: true });

    const waiting = node.api.ask(
      'DeleteCheckpoint',
      { ...request, wait_seconds: 60 },
      { deadline: Number.POSITIVE_INFINITY },
    );
    await held.letGo();
    node.requireSuccess(await node.end(reader.name));
    expect(await waiting).toEqual({});
    expect(await target.container.check()).toMatchObject({ check: 'ok' });
    await eventually('the artifact to be gone', () => (existsSync(pathOf('good')) ? undefined : true));
    await target.pod.remove();
  });

  test('is for good', async () => {
    for (const method of ['GetCheckpoint', 'VerifyCheckpoint', 'DeleteCheckpoint'])
      expect(await refused(node.api.ask(method, request))).toMatchObject({
        code: status.NOT_FOUND,
        info: { reason: 'ARTIFACT_NOT_FOUND' },
      });
    expect(await ids()).not.toContain('good');
    // The id can be used again.
    const { response } = await node.perform('Checkpoint', source, request);
    expect(response.adopted).toBe(false);
  });

  test('is of one version, named in full', async () => {
    const { fields } = await refused(node.api.ask('DeleteCheckpoint', { checkpoint_id: 'more-2' }));
    expect(fields.map(({ field }) => field)).toEqual(['version']);
    await node.api.ask('DeleteCheckpoint', { checkpoint_id: 'more-2', version: 'v2' });
    expect(await get('more-2')).toMatchObject({ complete: true });
    // Also of what nobody can read any more.
    await node.api.ask('DeleteCheckpoint', { checkpoint_id: 'damaged-manifest.yaml', version: '1' });
    expect(await ids()).not.toContain('damaged-manifest.yaml');
  });
});

test('the node says what it is and what it can do', async () => {
  const info = await node.api.ask('GetNodeInfo');
  const isUnified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  expect(info).toMatchObject({
    node: 'test-node',
    boot_id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    kernel: release(),
    criu: expect.stringMatching(/^4\.\d/),
    runtime: expect.stringMatching(/^containerd /),
    access_mode: 'ACCESS_MODE_AGENT_MOUNT',
    base_path: '/checkpoints',
  });
  expect(info.capabilities).toContainEqual({ name: 'criu', available: true, detail: info.criu });
  expect(info.capabilities).toContainEqual({
    name: 'cgroup-v2',
    available: isUnified,
    detail: `the node has cgroup v${isUnified ? 2 : 1}`,
  });
  for (const { detail } of info.capabilities) expect(detail).not.toBe('');
});
