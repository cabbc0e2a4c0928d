import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, failureOf, type TestClient } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { CertifiedNode } from './grpc/certified.ts';
import type { ApiNode, Plain } from './grpc/node.ts';

/** A client whose certificate opens the namespace team-a to it, on a node and a volume that others use as well. */

let certified: CertifiedNode;
let node: ApiNode;
let tenant: TestClient;
let operator: TestClient;
let own: Plain;
let foreign: Plain;
/** An operation of the others that waits for as long as it is let. */
let waiting: Answer;

beforeAll(async () => {
  certified = await CertifiedNode.start();
  node = certified.node;
  [tenant, operator] = await Promise.all([certified.tenant(), certified.operator()]);
  const command = workload('memory', '2');
  [own, foreign] = (await Promise.all(
    ['team-a', 'team-b'].map((namespace) => node.runPlain({ command, pod: { namespace } })),
  )) as [Plain, Plain];
  await node.perform('Checkpoint', foreign, { checkpoint_id: 'foreign' });
  const target = await node.runPlaceholder({ pod: { namespace: 'team-b' } });
  waiting = await node.begin('Restore', target, { request_id: 'theirs', checkpoint_id: 'never', wait_seconds: 3600 });
});
afterAll(async () => {
  expect(await certified?.stop()).toEqual([]);
});

async function refused(call: Promise<unknown>) {
  const { code, info, message } = tenant.details(await failureOf(call));
  for (const word of [foreign.pod.name, foreign.pod.uid]) expect(message).not.toContain(word);
  return { code, reason: info.reason };
}
const FORBIDDEN = { code: status.PERMISSION_DENIED, reason: 'FORBIDDEN' };
const notFound = (reason: string) => ({ code: status.NOT_FOUND, reason });

async function followed(client: TestClient, { name }: Answer): Promise<Answer> {
  const watch = client.watch('WatchOperation', { name });
  expect(await watch.ended).toBeUndefined();
  return watch.seen.at(-1);
}

test('uses its own containers, operations and artifacts like anybody', async () => {
  const request = { request_id: 'mine', checkpoint_id: 'mine', target: own.target, wait_seconds: 60 };
  const checkpoint = await tenant.ask('Checkpoint', request);
  node.requireSuccess(await followed(tenant, checkpoint));
  expect((await tenant.ask('GetOperation', { name: checkpoint.name })).done).toBe(true);
  expect(await tenant.ask('GetCheckpoint', { checkpoint_id: 'mine' })).toMatchObject({
    complete: true,
    record: { source: { namespace: 'team-a', pod: own.pod.name } },
  });
  const { bytes } = await tenant.ask('VerifyCheckpoint', { checkpoint_id: 'mine' });
  expect(bytes).toBeGreaterThan(2 << 20);

  const target = await node.runPlaceholder({ pod: { namespace: 'team-a' } });
  const into = { target: target.target, restore: { checkpoint_id: 'mine' } };
  expect(await tenant.ask('CheckCompatibility', into)).toEqual({ compatible: true, mismatches: [], not_checked: [] });
  const restore = await tenant.ask('Restore', { ...request, request_id: 'back', target: target.target });
  node.requireSuccess(await followed(tenant, restore));
  expect(await target.container.check()).toMatchObject({ check: 'ok' });
  await target.pod.remove();
});

describe('of others', () => {
  const ids = { request_id: 'request', checkpoint_id: 'ckpt' };

  test.each(['Checkpoint', 'Restore'])('it can start no %s, by whichever name', async (method) => {
    const { container } = foreign;
    // Whether anything is there makes no difference.
    for (const target of [foreign.target, { ...foreign.target, pod: 'nobody' }])
      expect(await refused(tenant.ask(method, { ...ids, target }))).toEqual(FORBIDDEN);
    const targets = [{ container_id: container.id }, { ...own.target, container_id: container.id }];
    for (const target of targets)
      expect(await refused(tenant.ask(method, { ...ids, target }))).toEqual(notFound('CONTAINER_NOT_FOUND'));
  });

  test('it sees no operation, and ends none', async () => {
    const { name } = waiting;
    for (const method of ['GetOperation', 'CancelOperation'])
      expect(await refused(tenant.ask(method, { name }))).toEqual(notFound('OPERATION_NOT_FOUND'));
    expect((await tenant.watch('WatchOperation', { name }).ended)?.code).toBe(status.NOT_FOUND);
    expect(await refused(tenant.ask('ListOperations', { namespace: 'team-b' }))).toEqual(FORBIDDEN);
    const namespaces = async (client: TestClient) => {
      const { operations } = await client.ask('ListOperations');
      return [...new Set(operations.map(({ metadata }: Answer) => metadata.target.namespace))].toSorted();
    };
    expect(await namespaces(tenant)).toEqual(['team-a']);
    expect(await namespaces(operator)).toEqual(['team-a', 'team-b']);
    expect((await operator.ask('GetOperation', { name })).metadata.state).toBe('OPERATION_STATE_WAITING');
  });

  test('a request id that they used is its own as well, and shows it nothing', async () => {
    const request = { request_id: 'theirs', checkpoint_id: 'never', target: own.target, wait_seconds: 3600 };
    const { name } = await tenant.ask('Restore', request);
    expect(name).not.toBe(waiting.name);
    expect((await tenant.ask('Restore', request)).name).toBe(name);
    await tenant.ask('CancelOperation', { name });
    expect((await followed(tenant, { name })).metadata.target.namespace).toBe('team-a');
    expect((await operator.ask('GetOperation', { name: waiting.name })).done).toBe(false);
  });

  test('it sees, reads and deletes no artifact', async () => {
    const name = { checkpoint_id: 'foreign', version: '1' };
    for (const method of ['GetCheckpoint', 'InspectCheckpoint', 'VerifyCheckpoint', 'DeleteCheckpoint'])
      expect(await refused(tenant.ask(method, name))).toEqual(notFound('ARTIFACT_NOT_FOUND'));
    const into = { target: own.target, restore: { checkpoint_id: 'foreign' } };
    for (const check of [into, { restore: { checkpoint_id: 'foreign' } }])
      expect(await refused(tenant.ask('CheckCompatibility', check))).toEqual(notFound('ARTIFACT_NOT_FOUND'));
    const listed = async (client: TestClient) => {
      const { checkpoints } = await client.ask('ListCheckpoints');
      return checkpoints.map((one: Answer) => one.checkpoint_id);
    };
    expect(await listed(tenant)).toEqual(['mine']);
    expect(await listed(operator)).toEqual(['foreign', 'mine']);
    for (const method of [
      'ListCheckpoints',
      'GetCheckpoint',
      'InspectCheckpoint',
      'VerifyCheckpoint',
      'DeleteCheckpoint',
    ])
      expect(await refused(tenant.ask(method, { ...name, storage: { through: foreign.target } }))).toEqual(FORBIDDEN);
    expect((await operator.ask('VerifyCheckpoint', name)).files).toBeGreaterThan(0);
  });

  test('it checks no container', async () => {
    const check = (target: object) => refused(tenant.ask('CheckCompatibility', { target, checkpoint: {} }));
    expect(await check(foreign.target)).toEqual(FORBIDDEN);
    expect(await check({ container_id: foreign.container.id })).toEqual(notFound('CONTAINER_NOT_FOUND'));
  });

  test('it can neither restore, adopt nor replace an artifact, and does not hear whose it is', async () => {
    const target = await node.runPlaceholder({ pod: { namespace: 'team-a' } });
    const attempts = [
      await tenant.ask('Restore', { request_id: 'take-1', checkpoint_id: 'foreign', target: target.target }),
      ...(await replaced()),
    ];
    for (const attempt of attempts) {
      const { error } = await followed(tenant, attempt);
      const { code, info, message } = tenant.statusDetails(error);
      expect({ code, reason: info.reason }).toEqual({ code: status.PERMISSION_DENIED, reason: 'ARTIFACT_FOREIGN' });
      expect(message).not.toContain('team-b');
    }
    expect((await target.container.status()).state).toBe('CONTAINER_RUNNING');
    expect(await own.container.check()).toMatchObject({ check: 'ok' });
    expect(await operator.ask('GetCheckpoint', { checkpoint_id: 'foreign' })).toMatchObject({
      complete: true,
      record: { source: { namespace: 'team-b' } },
    });
    await operator.ask('VerifyCheckpoint', { checkpoint_id: 'foreign' });
    await target.pod.remove();
  });

  async function replaced(): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (const existing of ['EXISTING_ARTIFACT_ADOPT', 'EXISTING_ARTIFACT_REPLACE']) {
      const request = {
        request_id: existing,
        checkpoint_id: 'foreign',
        target: own.target,
        existing,
        wait_seconds: 60,
      };
      answers.push(await tenant.ask('Checkpoint', request));
      await followed(tenant, answers.at(-1));
    }
    return answers;
  }
});

test('deletes its own artifact', async () => {
  await tenant.ask('DeleteCheckpoint', { checkpoint_id: 'mine', version: '1' });
  expect(await refused(tenant.ask('GetCheckpoint', { checkpoint_id: 'mine' }))).toEqual(notFound('ARTIFACT_NOT_FOUND'));
});
