import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { type Authority, makeAuthority } from '../flow/grpc/certificates.ts';
import { connectTo, failureOf } from '../flow/grpc/client.ts';
import type { JsonLine } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { workload } from './environment/pod.ts';
import { CertifiedNode, OPERATOR, TENANT } from './grpc/certified.ts';
import type { ApiNode, Plain } from './grpc/node.ts';

/** Who may connect over TCP, and what the audit says of it. */

let certified: CertifiedNode;
let node: ApiNode;
let other: Authority;

beforeAll(async () => {
  certified = await CertifiedNode.start();
  node = certified.node;
  other = await makeAuthority(node.cluster.directory, 'others');
});
afterAll(async () => {
  expect(await certified?.stop()).toEqual([]);
});

const audit = (from = 0) =>
  node.agent
    .logs()
    .slice(from)
    .filter(({ msg }) => msg === 'grpc call');
const REMOTE = /^127\.0\.0\.1:\d+$/;

/** The one audit line of the call that `call` makes, which has ended when it is written. */
async function lineOf(method: string, call: () => Promise<unknown>): Promise<JsonLine> {
  const before = audit().length;
  await call().catch(() => undefined);
  const lines = () => audit().slice(before);
  await eventually('the audit line', () => (lines().some((line) => line['method'] === method) ? true : undefined));
  const own = lines().filter((line) => line['method'] === method);
  expect(own).toHaveLength(1);
  return own[0] ?? {};
}

describe('over TCP', () => {
  test('a client with a good certificate and a configured name is let in', async () => {
    const operator = await certified.operator();
    expect((await operator.ask('GetNodeInfo')).node).toBe('test-node');
    expect((await operator.ask('grpc.health.v1.Health/Check')).status).toBe('SERVING');
    const line = await lineOf('ListOperations', () => operator.ask('ListOperations'));
    expect(line).toMatchObject({ caller: OPERATOR, code: 'OK', seconds: expect.any(Number) });
    expect(line['peer']).toMatch(REMOTE);
  });

  test.each([
    ['no certificate', () => Promise.resolve(undefined), /it showed no certificate/],
    ['a certificate of another authority', () => other.issue(OPERATOR), /^UNABLE_TO_/],
    ['a certificate that has run out', () => certified.authority.issue(OPERATOR, { days: -1 }), /^CERT_HAS_EXPIRED/],
  ])('a client with %s is refused at the handshake, and it is said whose it was', async (_, issue, why) => {
    const from = node.agent.logs().length;
    const client = certified.connect(await issue());
    expect((await failureOf(client.ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
    const refusal = await node.agent.waitForLog(
      'the refusal',
      ({ msg }) => msg === 'a client was refused at the TLS handshake',
      { from },
    );
    expect(refusal['peer']).toBe('127.0.0.1');
    expect(`${refusal['code']} ${refusal['reason']}`).toMatch(why);
    expect(audit(from)).toEqual([]);
  });

  test('a client without TLS is refused', async () => {
    const plain = connectTo(`localhost:${certified.port}`);
    expect((await failureOf(plain.ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
    plain.close();
  });

  test('a client that trusts another authority does not take the agent for one', async () => {
    const client = certified.connect(await certified.authority.issue(OPERATOR), other);
    expect((await failureOf(client.ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
  });

  test('a client whose name nobody configured may do nothing, and is told its names', async () => {
    const stranger = certified.connect(await certified.authority.issue('stranger'));
    for (const method of ['GetNodeInfo', 'ListOperations', 'ListCheckpoints']) {
      const error = await failureOf(stranger.ask(method));
      expect(error.code).toBe(status.PERMISSION_DENIED);
      expect(stranger.details(error).info.reason).toBe('FORBIDDEN');
      expect(error.details).toContain('stranger');
    }
    const line = await lineOf('VerifyCheckpoint', () => stranger.ask('VerifyCheckpoint'));
    expect(line).toMatchObject({ caller: '', code: 'PERMISSION_DENIED', reason: 'FORBIDDEN' });
    expect(line['peer']).toMatch(REMOTE);
  });

  test('a client whose name is taken from the configuration is shut out at once, without a restart', async () => {
    const tenant = await certified.tenant();
    await tenant.ask('ListOperations');
    const path = join(node.cluster.directory, 'agents/etc/default.yaml');
    const before = await readFile(path, 'utf8');
    const config = parse(before) as { api: { clients: { name: string }[] } };
    const clients = config.api.clients.filter(({ name }) => name !== TENANT);
    await writeFile(path, stringify({ ...config, api: { ...config.api, clients } }));
    await eventually('the end of its rights', async () => {
      const code = await tenant.ask('ListOperations').then(
        () => status.OK,
        (error: { code: status }) => error.code,
      );
      return code === status.PERMISSION_DENIED ? true : undefined;
    });
    await writeFile(path, before);
    await eventually('its rights', () =>
      tenant.ask('ListOperations').then(
        () => true,
        () => undefined,
      ),
    );
  });
});

describe('the audit', () => {
  let source: Plain;
  beforeAll(async () => {
    source = await node.runPlain({ command: workload('memory', '2'), pod: { namespace: 'team-a' } });
  });

  test('says who called for what, from where, and what came of it', async () => {
    const tenant = await certified.tenant();
    const request = { request_id: 'audited', checkpoint_id: 'audited', target: source.target, wait_seconds: 60 };
    const started = await lineOf('Checkpoint', () => tenant.ask('Checkpoint', request));
    expect(started).toMatchObject({
      caller: TENANT,
      code: 'OK',
      target: { ...source.target, requestId: 'audited', checkpointId: 'audited', version: '1' },
    });
    const [{ name }] = (await node.api.ask('ListOperations')).operations;
    const watched = await lineOf('WatchOperation', () => tenant.watch('WatchOperation', { name }).ended);
    expect(watched).toMatchObject({ code: 'OK', target: { operation: name } });
    const elsewhere = { ...request, request_id: 'other', target: { ...source.target, namespace: 'team-b' } };
    const refused = await lineOf('Checkpoint', () => tenant.ask('Checkpoint', elsewhere));
    expect(refused).toMatchObject({
      caller: TENANT,
      code: 'PERMISSION_DENIED',
      reason: 'FORBIDDEN',
      target: { namespace: 'team-b' },
    });
    for (const { peer } of [started, watched, refused]) expect(peer).toMatch(REMOTE);
    const local = await lineOf('DeleteCheckpoint', () =>
      node.api.ask('DeleteCheckpoint', { checkpoint_id: 'missing', version: '1' }),
    );
    expect(local).toMatchObject({
      ...{ peer: 'unix', caller: 'local', code: 'NOT_FOUND', reason: 'ARTIFACT_NOT_FOUND' },
      target: { checkpointId: 'missing', version: '1' },
    });
  });
});
