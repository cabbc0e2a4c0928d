import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, failureOf } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { HeldNode } from './grpc/held.ts';
import type { ApiNode, Plain } from './grpc/node.ts';
import { markReady } from './scenario.ts';

let held: HeldNode;
let node: ApiNode;
/** Without a control directory: it is quiet as soon as it has run for a second. */
let source: Plain;
/** Says when it is quiet, and has not said so. */
let unready: Plain;

beforeAll(async () => {
  held = await HeldNode.start();
  node = held.node;
  const command = workload('memory', '2');
  [source, unready] = await Promise.all([node.runPlain({ command }), node.runPlain({ command, control: true })]);
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

/** The code and the details of the error that a call ends with. */
async function refused(call: Promise<unknown>) {
  return node.api.details(await failureOf(call));
}

/** The same of an operation that ended without success. */
function failed(operation: Answer) {
  expect(operation).toMatchObject({ done: true, result: 'error' });
  return node.api.statusDetails(operation.error);
}

const ask = (request: object, kind = 'Checkpoint') => node.api.ask(kind, { target: source.target, ...request });

describe('a request', () => {
  test('that comes again gives the recorded operation, under way and over, whatever its trace', async () => {
    const request = { request_id: 'again', checkpoint_id: 'again', wait_seconds: 60 };
    held.gates.holdCriu('dump');
    const { name } = await ask(request);
    await held.gates.reached('criu-dump');
    const under = await ask({ ...request, trace_id: 'a'.repeat(32) });
    expect(under).toMatchObject({
      name,
      done: false,
      metadata: { state: 'OPERATION_STATE_RUNNING', step: 'criu-dump' },
    });
    await held.letGo();
    const end = node.requireSuccess(await node.end(name));
    expect(await ask(request)).toEqual(end);
    // By name or by id, it is the same container, but not the same request.
    const target = { container_id: source.container.id };
    expect(await refused(ask({ ...request, target }))).toMatchObject({ code: status.ALREADY_EXISTS });
  });

  test.each([
    ['another checkpoint', { checkpoint_id: 'another' }, 'Checkpoint'],
    ['another version', { version: '2' }, 'Checkpoint'],
    ['another end', { after: 'AFTER_CHECKPOINT_STOP' }, 'Checkpoint'],
    ['another wait', { wait_seconds: 61 }, 'Checkpoint'],
    ['a restore', {}, 'Restore'],
  ])('with the same id for %s is refused', async (_, other, kind) => {
    const request = { request_id: 'contents', checkpoint_id: 'contents', wait_seconds: 60 };
    const { name } = await ask(request);
    const error = await refused(ask({ ...request, ...other }, kind));
    expect(error).toMatchObject({ code: status.ALREADY_EXISTS, info: { reason: 'REQUEST_CONFLICT' } });
    node.requireSuccess(await node.end(name));
  });

  test('that comes many times at once is one operation', async () => {
    const request = { request_id: 'at-once', checkpoint_id: 'at-once', wait_seconds: 60 };
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(request)));
    expect(new Set(answers.map(({ name }) => name)).size).toBe(1);
    node.requireSuccess(await node.end(answers[0].name));
    const { operations } = await node.api.ask('ListOperations');
    expect(operations.filter(({ metadata }: Answer) => metadata.request_id === 'at-once')).toHaveLength(1);
  });

  test('for a busy container is refused, leaves nothing behind, and can be made again', async () => {
    const requests = ['one', 'two', 'three'].map((id) => ({ request_id: id, checkpoint_id: id, wait_seconds: 60 }));
    const calls = await Promise.allSettled(requests.map((request) => ask(request)));
    const accepted = calls.findIndex((call) => call.status === 'fulfilled');
    const others = requests.filter((_, index) => index !== accepted);
    expect(calls.filter((call) => call.status === 'rejected')).toHaveLength(2);
    for (const call of calls)
      if (call.status === 'rejected')
        expect(await refused(Promise.reject(call.reason))).toMatchObject({
          code: status.ABORTED,
          info: { reason: 'TARGET_BUSY', metadata: { retryable: 'true' } },
          retrySeconds: expect.any(Number),
        });
    const { request_id } = requests[accepted] ?? {};
    const { operations } = await node.api.ask('ListOperations');
    const known: Answer[] = operations.filter(({ metadata }: Answer) =>
      requests.some((request) => request.request_id === metadata.request_id),
    );
    expect(known.map(({ metadata }) => metadata.request_id)).toEqual([request_id]);
    node.requireSuccess(await node.end(known[0].name));
    for (const request of others) node.requireSuccess(await node.end((await ask(request)).name));
  });

  test('for a container that does not run here is NOT_FOUND', async () => {
    const ended = await node.runPlain({ command: workload('memory', '2') });
    await ended.container.signal('SIGKILL');
    await ended.container.ended();
    const targets = [
      { ...source.target, container: 'other' },
      { ...source.target, namespace: 'elsewhere' },
      { container_id: 'f'.repeat(64) },
      { ...source.target, container_id: unready.container.id },
      ended.target,
      { container_id: ended.container.id },
    ];
    for (const target of targets)
      for (const kind of ['Checkpoint', 'Restore']) {
        const error = await refused(ask({ request_id: 'nowhere', checkpoint_id: 'nowhere', target }, kind));
        expect(error).toMatchObject({ code: status.NOT_FOUND, info: { reason: 'CONTAINER_NOT_FOUND' } });
      }
    await ended.pod.remove();
  });

  test('that is wrong is told every wrong field', async () => {
    const wrong = { request_id: 'a b', checkpoint_id: '.hidden', version: 'tmp', base_path: 'a/b', trace_id: '0' };
    const error = await refused(
      ask({ ...wrong, target: { namespace: 'default', container_id: 'containerd://x' }, wait_seconds: 86_401 }),
    );
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, info: { reason: 'REQUEST_INVALID' } });
    expect(error.fields.map(({ field }) => field).toSorted()).toEqual(
      [...Object.keys(wrong), 'target.container_id', 'wait_seconds'].toSorted(),
    );
    for (const { description } of error.fields) expect(description).not.toBe('');
    const empty = await refused(node.api.ask('Restore', {}));
    expect(empty.fields.map(({ field }) => field).toSorted()).toEqual(['checkpoint_id', 'request_id', 'target']);
  });
});

describe('an operation', () => {
  test.each(['GetOperation', 'CancelOperation'])('that nobody knows is NOT_FOUND to %s', async (method) => {
    const error = await refused(node.api.ask(method, { name: 'nobody' }));
    expect(error).toMatchObject({ code: status.NOT_FOUND, info: { reason: 'OPERATION_NOT_FOUND' } });
    expect((await node.api.watch('WatchOperation', { name: 'nobody' }).ended)?.code).toBe(status.NOT_FOUND);
    expect(await refused(node.api.ask(method, { name: '../x' }))).toMatchObject({ code: status.INVALID_ARGUMENT });
  });

  test('is listed, newest first, in pages, by kind and state', async () => {
    const pages: Answer[][] = [];
    let page_token = '';
    do {
      const page = await node.api.ask('ListOperations', { page_size: 3, page_token });
      pages.push(page.operations);
      page_token = page.next_page_token;
    } while (page_token !== '');
    const all = (await node.api.ask('ListOperations')).operations;
    expect(all.length).toBeGreaterThan(3);
    expect(pages.flat()).toEqual(all);
    expect(pages.slice(0, -1).map(({ length }) => length)).toEqual(pages.slice(0, -1).map(() => 3));
    const created = all.map(({ metadata }: Answer) => metadata.create_time.seconds);
    expect(created).toEqual(created.toSorted((a: number, b: number) => b - a));
    const succeeded = { states: ['OPERATION_STATE_SUCCEEDED'], kinds: ['OPERATION_KIND_CHECKPOINT'] };
    expect((await node.api.ask('ListOperations', succeeded)).operations).toEqual(all);
    for (const none of [{ states: ['OPERATION_STATE_RUNNING'] }, { kinds: ['OPERATION_KIND_RESTORE'] }])
      expect((await node.api.ask('ListOperations', none)).operations).toEqual([]);
  });
});

describe('an operation that is too early', () => {
  test.each([0, 1])('for a source that is not quiet fails after %i s, and leaves it as it is', async (wait_seconds) => {
    const { name } = await node.begin('Checkpoint', unready, { wait_seconds });
    const error = failed(await node.end(name));
    expect(error).toMatchObject({ code: status.DEADLINE_EXCEEDED, info: { reason: 'QUIESCE_TIMEOUT' } });
    expect(error.message).toContain('ready-for-snapshot is not there yet');
    expect(await unready.container.check()).toMatchObject({ check: 'ok' });
  });

  test.each([0, 1])('for an artifact that is not there fails after %i s', async (wait_seconds) => {
    const target = await node.runPlaceholder();
    const { name } = await node.begin('Restore', target, { wait_seconds, checkpoint_id: 'missing' });
    const error = failed(await node.end(name));
    expect(error).toMatchObject({ code: status.NOT_FOUND, info: { reason: 'ARTIFACT_NOT_FOUND' } });
    expect((await target.container.status()).state).toBe('CONTAINER_RUNNING');
    await target.pod.remove();
  });

  test('for a placeholder that has not said who it is fails', async () => {
    await node.perform('Checkpoint', source, { checkpoint_id: 'for-standby' });
    const target = await node.runPlaceholder({ control: true, command: ['sh', '-c', 'while :; do sleep 1; done'] });
    const { name } = await node.begin('Restore', target, { wait_seconds: 0, checkpoint_id: 'for-standby' });
    const error = failed(await node.end(name));
    expect(error).toMatchObject({ code: status.DEADLINE_EXCEEDED, info: { reason: 'QUIESCE_TIMEOUT' } });
    expect(error.message).toContain('restore-context.json');
    await target.pod.remove();
  });

  test('says what it waits for, and begins when that comes', async () => {
    const target = await node.runPlaceholder({ control: true });
    const restore = await node.begin('Restore', target, { checkpoint_id: 'awaited' });
    const checkpoint = await node.begin('Checkpoint', unready, { checkpoint_id: 'awaited' });
    const watches = [restore, checkpoint].map(({ name }) => node.api.watch('WatchOperation', { name }));
    const waiting = await Promise.all(
      watches.map((watch) => watch.until(({ metadata }) => metadata.state === 'OPERATION_STATE_WAITING')),
    );
    expect(waiting.map(({ metadata }) => metadata.waiting_for)).toEqual([
      'the artifact is not there yet',
      'ready-for-snapshot is not there yet',
    ]);
    // A target that waits is busy all the same.
    expect(await refused(node.begin('Restore', target))).toMatchObject({ code: status.ABORTED });
    await markReady(unready.container);
    for (const watch of watches) {
      expect(await watch.ended).toBeUndefined();
      node.requireSuccess(watch.seen.at(-1));
    }
    expect(await target.container.check()).toMatchObject({ check: 'ok' });
    await target.pod.remove();
  });

  test('is cancelled at once', async () => {
    const target = await node.runPlaceholder({ control: true });
    const { name } = await node.begin('Restore', target, { checkpoint_id: 'never', wait_seconds: 3600 });
    await node.api.watch('WatchOperation', { name }).until(({ metadata }) => metadata.waiting_for !== '');
    await node.api.ask('CancelOperation', { name });
    expect(failed(await node.end(name))).toMatchObject({ code: status.CANCELLED, info: { reason: 'CANCELLED' } });
    // Its container is free again.
    await node.perform('Restore', target, { checkpoint_id: 'awaited' });
    await target.pod.remove();
  });
});
