import { X509Certificate } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { credentials, status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Client } from '../../agent/api/callers.ts';
import { DEFAULT_LIMITS } from '../../agent/api/grpc.ts';
import { FOREIGN, WORKER } from '../fakes/agent-service.ts';
import { type Authority, type Issued, makeAuthority } from './grpc/certificates.ts';
import { connectTo, eventually, failureOf, type TestClient } from './grpc/client.ts';
import { artifactOf, type Started, startEndpoint } from './grpc/endpoint.ts';

const SERVER_NAMES = 'DNS:localhost,IP:127.0.0.1';
let work: string;
let authority: Authority;
let other: Authority;
let serverCertificate: Issued;
let operator: Issued;
let tenant: Issued;

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'grpc-tls-'));
  [authority, other] = await Promise.all([makeAuthority(work, 'clients'), makeAuthority(work, 'others')]);
  serverCertificate = await authority.issue('agent', { names: SERVER_NAMES });
  operator = await authority.issue('snapshot-operator');
  tenant = await authority.issue('team-a', { names: 'URI:spiffe://cluster/ns/team-a' });
});
afterAll(() => rm(work, { recursive: true, force: true }));

const CLIENTS: readonly Client[] = [
  { name: 'snapshot-operator', namespaces: ['*'] },
  { name: 'spiffe://cluster/ns/team-a', namespaces: ['team-a'] },
];

let started: Started;
let clients: readonly Client[];
let files: { certificateFile: string; keyFile: string; clientCaFile: string };
const open: TestClient[] = [];

beforeEach(async () => {
  clients = CLIENTS;
  const home = await mkdtemp(join(tmpdir(), 'grpc-'));
  files = {
    certificateFile: join(home, 'tls.crt'),
    keyFile: join(home, 'tls.key'),
    clientCaFile: join(home, 'ca.crt'),
  };
  await provide();
  const tcp = { ...files, address: '127.0.0.1:0', certificatesEveryMs: 20 };
  started = await startEndpoint({ tcp, clients: () => clients }, home);
});
async function provide(): Promise<void> {
  await copyFile(serverCertificate.certFile, files.certificateFile);
  await copyFile(serverCertificate.keyFile, files.keyFile);
  await copyFile(authority.file, files.clientCaFile);
}
afterEach(async () => {
  for (const client of open.splice(0)) client.close();
  await started.stop();
});

const port = () => Number(started.endpoint.addresses.tcp?.split(':').at(-1));

/** A client of its own connection: gRPC shares connections between clients of the same address and credentials otherwise. */
function connect(who: Issued | undefined, trust: Buffer = authority.certificate): TestClient {
  const creds = credentials.createSsl(trust, who?.key ?? null, who?.cert ?? null);
  const client = connectTo(`localhost:${port()}`, creds, { 'grpc.use_local_subchannel_pool': 1 });
  open.push(client);
  return client;
}

describe('mutual TLS', () => {
  it('lets a client in that has a good certificate and a configured name', async () => {
    expect((await connect(operator).ask('GetNodeInfo')).node).toBe('node-a');
    expect(started.audit().at(-1)).toMatchObject({ caller: 'snapshot-operator', code: 'OK' });
    expect(started.audit().at(-1)?.['peer']).toMatch(/127\.0\.0\.1:\d+$/);
  });

  it.each([
    ['no certificate', () => Promise.resolve(undefined)],
    ['a certificate of another authority', () => other.issue('snapshot-operator')],
    ['a certificate that has run out', () => authority.issue('snapshot-operator', { days: -1 })],
  ])('refuses a client with %s at the handshake', async (_, issue) => {
    const error = await failureOf(connect(await issue()).ask('GetNodeInfo'));
    expect(error.code).toBe(status.UNAVAILABLE);
    await expect.poll(() => started.lines.map(({ msg }) => msg)).toContain('a client was refused at the TLS handshake');
    expect(started.audit()).toEqual([]);
  });

  it('refuses old versions of TLS', async () => {
    const socket = connectTls({
      port: port(),
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      ciphers: 'DEFAULT@SECLEVEL=0',
      ...{ ca: authority.certificate, cert: operator.cert, key: operator.key },
    });
    const end = await new Promise((resolve) => {
      socket.once('error', () => resolve('refused')).once('secureConnect', () => resolve('connected'));
    });
    expect(end).toBe('refused');
    socket.destroy();
  });

  it.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'resumes no %s session: every connection is verified anew',
    async (version) => {
      const options = { port: port(), minVersion: version, maxVersion: version, ALPNProtocols: ['h2'] };
      const identity = { ca: authority.certificate, cert: operator.cert, key: operator.key };
      const first = connectTls({ ...options, ...identity });
      const session = await new Promise<Buffer | undefined>((resolve, reject) => {
        first.once('session', resolve).once('error', reject);
        // Where no session is offered, the server's first words after the handshake are the end of waiting.
        first.once('data', () => resolve(first.getSession()));
      });
      first.destroy();
      const second = connectTls({ ...options, ...identity, ...(session && { session }) });
      await new Promise((resolve, reject) => {
        second.once('secureConnect', resolve).once('error', reject);
      });
      expect(second.isSessionReused()).toBe(false);
      second.destroy();
    },
  );

  it('refuses a client without TLS, and stays well', async () => {
    const plain = connectTo(`localhost:${port()}`);
    open.push(plain);
    expect((await failureOf(plain.ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
    expect((await connect(operator).ask('GetNodeInfo')).node).toBe('node-a');
  });

  it('forbids a client whose name nobody configured, naming what was seen', async () => {
    const client = connect(await authority.issue('stranger'));
    const error = await failureOf(client.ask('GetNodeInfo'));
    expect([error.code, client.details(error).info.reason]).toEqual([status.PERMISSION_DENIED, 'FORBIDDEN']);
    expect(error.details).toContain('stranger');
    expect(started.audit()).toMatchObject([{ caller: '', code: 'PERMISSION_DENIED', reason: 'FORBIDDEN' }]);
  });

  it('lets a stranger ask no more often than others, from however many connections', async () => {
    await started.stop();
    const limits = { ...DEFAULT_LIMITS, burst: 3, callsPerSecond: 0.001 };
    const tcp = { ...files, address: '127.0.0.1:0' };
    await mkdir(dirname(files.certificateFile), { recursive: true });
    await provide();
    started = await startEndpoint({ tcp, clients: () => clients, limits }, dirname(files.certificateFile));
    const stranger = await authority.issue('stranger');
    const codes: number[] = [];
    for (let n = 0; n < 8; n += 1) codes.push((await failureOf(connect(stranger).ask('GetNodeInfo'))).code);
    const { PERMISSION_DENIED, RESOURCE_EXHAUSTED } = status;
    expect(codes).toEqual(Array.from({ length: 8 }, (_, n) => (n < 3 ? PERMISSION_DENIED : RESOURCE_EXHAUSTED)));
    // Another stranger, and who is configured, are counted by themselves.
    const other = await failureOf(connect(await authority.issue('stranger')).ask('GetNodeInfo'));
    expect(other.code).toBe(PERMISSION_DENIED);
    expect((await connect(operator).ask('GetNodeInfo')).node).toBe('node-a');
    expect(started.audit().map(({ level, code }) => [level, code])).toEqual([
      ...Array.from({ length: 3 }, () => [30, 'PERMISSION_DENIED']),
      ...Array.from({ length: 5 }, () => [20, 'RESOURCE_EXHAUSTED']),
      [30, 'PERMISSION_DENIED'],
      [30, 'OK'],
    ]);
    expect(started.ended.filter(({ code }) => code === 'RESOURCE_EXHAUSTED')).toHaveLength(5);
  });

  it('asks for the configured names at each call', async () => {
    const client = connect(operator);
    await client.ask('GetNodeInfo');
    clients = [];
    expect((await failureOf(client.ask('GetNodeInfo'))).code).toBe(status.PERMISSION_DENIED);
  });

  it('answers health checks of every good certificate', async () => {
    const client = connect(await authority.issue('prober'));
    expect(await client.ask('grpc.health.v1.Health/Check')).toEqual({ status: 'SERVING' });
  });
});

describe('changed certificate files', () => {
  const state = () => [started.endpoint.certificates?.isStale(), started.endpoint.certificates?.expiriesMs()];
  const until = (certificate: Buffer) => Date.parse(new X509Certificate(certificate).validTo);

  it('say until when they are good: the server, and the last of the authorities', async () => {
    expect(state()).toEqual([
      false,
      { server: until(serverCertificate.cert), client_ca: until(authority.certificate) },
    ]);
    const longer = await authority.issue('agent', { names: SERVER_NAMES, days: 3 });
    expect(until(longer.cert)).toBeGreaterThan(until(serverCertificate.cert));
    await copyFile(longer.certFile, files.certificateFile);
    // The key is that of the other one still.
    await eventually(() => started.endpoint.certificates?.isStale() === true);
    expect(state()).toEqual([true, { server: until(serverCertificate.cert), client_ca: until(authority.certificate) }]);
    await copyFile(longer.keyFile, files.keyFile);
    await eventually(() => started.endpoint.certificates?.isStale() === false);
    expect(state()).toEqual([false, { server: until(longer.cert), client_ca: until(authority.certificate) }]);
  });

  it('do not count where there is no TCP', async () => {
    const local = await startEndpoint();
    expect(local.endpoint.certificates).toBeUndefined();
    await local.stop();
  });

  it('are used for new connections, without a restart, while old ones go on', async () => {
    const before = connect(operator);
    await before.ask('GetNodeInfo');
    const next = await other.issue('agent', { names: SERVER_NAMES });
    await copyFile(next.certFile, files.certificateFile);
    await copyFile(next.keyFile, files.keyFile);
    await copyFile(other.file, files.clientCaFile);
    await eventually(() =>
      started.lines.some(({ msg }) => msg.includes('certificate or the client authorities changed')),
    );
    const newOperator = await other.issue('snapshot-operator');
    await expect
      .poll(
        async () =>
          (
            await connect(newOperator, other.certificate)
              .ask('GetNodeInfo')
              .catch(() => ({}))
          ).node,
      )
      .toBe('node-a');
    expect((await failureOf(connect(operator, other.certificate).ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
    expect((await before.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it.each([
    ['a key of another certificate', () => copyFile(operator.keyFile, files.keyFile)],
    ['no key', () => writeFile(files.keyFile, '')],
    ['an empty list of authorities', () => writeFile(files.clientCaFile, '')],
    ['an authority that is none', () => copyFile(operator.certFile, files.clientCaFile)],
    ['a file that is gone', () => rm(files.certificateFile)],
  ])('that hold %s are not used', async (_, change) => {
    await change();
    await eventually(() => started.lines.some(({ msg }) => msg === 'changed certificate files are not used'));
    expect((await connect(operator).ask('GetNodeInfo')).node).toBe('node-a');
    expect((await failureOf(connect(await other.issue('x')).ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
  });

  it.each([
    ['is taken', () => `127.0.0.1:${port()}`, 'EADDRINUSE'],
    ['is none', () => 'nonsense', 'is not host:port'],
  ])('do not help an address that %s', async (_, address, says) => {
    const start = startEndpoint({ tcp: { ...files, address: address() } });
    await expect(start).rejects.toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining(says) });
  });

  it('are an error at the start where they do not fit', async () => {
    await writeFile(files.clientCaFile, 'no certificate');
    const start = startEndpoint({ tcp: { ...files, address: '127.0.0.1:0' } });
    await expect(start).rejects.toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining('ca.crt') });
  });
});

describe('a client of one namespace', () => {
  it('sees no operation of another, whatever it asks', async () => {
    const client = connect(tenant);
    const own = started.fake.begin(WORKER, 'request-a').view.id;
    const foreign = started.fake.begin(FOREIGN, 'request-b').view.id;
    expect((await client.ask('GetOperation', { name: own })).name).toBe(own);
    const list = await client.ask('ListOperations');
    expect(list.operations.map(({ name }: { name: string }) => name)).toEqual([own]);
    for (const method of ['GetOperation', 'CancelOperation'])
      expect((await failureOf(client.ask(method, { name: foreign }))).code).toBe(status.NOT_FOUND);
    expect((await client.watch('WatchOperation', { name: foreign }).ended)?.code).toBe(status.NOT_FOUND);
    expect(started.fake.handle(foreign).cancelled.aborted).toBe(false);
  });

  it('may not name another', async () => {
    const client = connect(tenant);
    const target = { namespace: 'team-b', pod: 'worker-0', container: 'main' };
    const start = { request_id: 'r', checkpoint_id: 'c', target };
    const calls = [
      client.ask('Checkpoint', start),
      client.ask('Restore', start),
      client.ask('CheckCompatibility', { target, checkpoint: {} }),
      client.ask('ListOperations', { namespace: 'team-b' }),
      client.ask('ListCheckpoints', { storage: { through: target } }),
    ];
    for (const call of calls) expect((await failureOf(call)).code).toBe(status.PERMISSION_DENIED);
    expect(started.fake.calls).toEqual([]);
  });

  it('finds no container of another by its id', async () => {
    const start = { request_id: 'r', checkpoint_id: 'c', target: { container_id: FOREIGN.containerId } };
    const error = await failureOf(connect(tenant).ask('Checkpoint', start));
    expect(error.code).toBe(status.NOT_FOUND);
    expect(started.fake.calls[0]?.caller).toEqual({
      name: 'spiffe://cluster/ns/team-a',
      namespaces: new Set(['team-a']),
    });
  });

  it('is not shown an operation of another, whatever the service answers with', async () => {
    const client = connect(tenant);
    const foreign = started.fake.begin(FOREIGN, 'shared').view;
    started.fake.checkpoint = () => Promise.resolve(foreign);
    const target = { namespace: 'team-a', pod: 'worker-0', container: 'main' };
    const error = await failureOf(client.ask('Checkpoint', { request_id: 'shared', checkpoint_id: 'c', target }));
    expect([error.code, client.details(error).info.reason]).toEqual([status.ALREADY_EXISTS, 'REQUEST_CONFLICT']);
  });

  it('sees, verifies and deletes no artifact of another', async () => {
    const { fake } = started;
    fake.artifacts.set('own/1', artifactOf('team-a', 'own'));
    fake.artifacts.set('foreign/1', artifactOf('team-b', 'foreign'));
    const client = connect(tenant);
    const list = await client.ask('ListCheckpoints');
    expect(list.checkpoints.map((one: { checkpoint_id: string }) => one.checkpoint_id)).toEqual(['own']);
    for (const method of ['GetCheckpoint', 'InspectCheckpoint', 'VerifyCheckpoint', 'DeleteCheckpoint']) {
      const error = await failureOf(client.ask(method, { checkpoint_id: 'foreign', version: '1' }));
      expect([error.code, client.details(error).info.reason]).toEqual([status.NOT_FOUND, 'ARTIFACT_NOT_FOUND']);
    }
    expect(fake.artifacts.has('foreign/1')).toBe(true);
  });

  it('is not shown what the service lets through by mistake', async () => {
    const { fake } = started;
    const foreign = artifactOf('team-b', 'foreign');
    fake.getArtifact = () => Promise.resolve(foreign);
    fake.listArtifacts = () => Promise.resolve({ artifacts: [foreign, { ...foreign, record: undefined }], next: '' });
    const client = connect(tenant);
    expect((await client.ask('ListCheckpoints')).checkpoints).toEqual([]);
    const error = await failureOf(client.ask('GetCheckpoint', { checkpoint_id: 'foreign' }));
    expect(error.code).toBe(status.NOT_FOUND);
  });
});

it('the operator sees all namespaces', async () => {
  const client = connect(operator);
  started.fake.begin(WORKER, 'request-a');
  started.fake.begin(FOREIGN, 'request-b');
  expect((await client.ask('ListOperations')).operations).toHaveLength(2);
  const team = await client.ask('ListOperations', { namespace: 'team-b' });
  expect(team.operations[0].metadata.target.namespace).toBe('team-b');
});
