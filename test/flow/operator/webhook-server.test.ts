import type { ClientRequest } from 'node:http';
import { Agent as HttpsAgent, request as open } from 'node:https';
import { connect as connectPlain } from 'node:net';
import { text } from 'node:stream/consumers';
import { connect, type TLSSocket } from 'node:tls';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { firstCertificates } from '../../../operator/webhook/certificate-making.ts';
import type { Certificates } from '../../../operator/webhook/certificate-secret.ts';
import { newWebhookMetrics } from '../../../operator/webhook/metrics.ts';
import {
  startWebhookServer,
  WEBHOOK_PATH,
  type WebhookServer,
  type WebhookServerOptions,
} from '../../../operator/webhook/server.ts';
import { memoryLog } from '../../fakes/log.ts';
import { question } from '../../unit/operator/webhook/pods.ts';

const NAME = 'webhook.system.svc';
const REVIEW = JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: question() });
const ALLOWED = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: { uid: '', allowed: true } };

let one: Certificates;
let two: Certificates;
beforeAll(async () => {
  const form = { name: NAME, certificateDays: 1, authorityDays: 3, nowMs: Date.now() };
  const former = { former: [], formerUntilMs: 0 };
  [one, two] = await Promise.all([firstCertificates(form, former), firstCertificates(form, former)]);
});

let server: WebhookServer;
let metrics: ReturnType<typeof newWebhookMetrics>;
let log: ReturnType<typeof memoryLog>;
beforeEach(() => {
  [metrics, log] = [newWebhookMetrics(), memoryLog()];
});
afterEach(() => server.stop());

async function start(more: Partial<WebhookServerOptions> = {}, isServing = true): Promise<void> {
  server = await startWebhookServer({
    ...{ listen: { host: '127.0.0.1', port: 0 }, log: log.log, metrics },
    admit: () => ({ result: 'passed', why: 'not-a-candidate', detail: '' }),
    ...more,
  });
  if (isServing) server.serve(one.leaf);
}

interface Call {
  readonly method?: string;
  readonly path?: string;
  readonly type?: string;
  readonly authority?: Certificates;
  readonly agent?: HttpsAgent;
  /** Sends the body; by default all of the review. */
  readonly send?: (message: ClientRequest) => void;
}

function call({ method = 'POST', path = WEBHOOK_PATH, type = 'application/json', send, ...more }: Call = {}) {
  const { authority = one, agent } = more;
  return new Promise<{ status: number; body: unknown; connection: string | undefined }>((resolve, reject) => {
    const message = open(
      {
        ...{
          host: '127.0.0.1',
          port: server.port,
          servername: NAME,
          ca: authority.authority.certificate,
          method,
          path,
        },
        ...{ headers: { 'content-type': type }, agent: agent ?? false },
      },
      (response) => {
        const { statusCode: status = 0, headers } = response;
        const done = (body: string) => resolve({ status, body: JSON.parse(body), connection: headers.connection });
        text(response).then(done, reject);
      },
    );
    message.on('error', reject);
    if (send === undefined) message.end(method === 'GET' ? undefined : REVIEW);
    else send(message);
  });
}

const results = async () => {
  const counter = await metrics.registry.getSingleMetric('snapshot_operator_webhook_admissions_total')?.get();
  return Object.fromEntries(counter?.values.map(({ labels, value }) => [labels['result'], value]) ?? []);
};
const SMALL = { limits: { maxBodyBytes: 1_000, deadlineMs: 100, clientMs: 300 } };

describe('a question is answered with leave to create the pod', () => {
  it('and with what was made of it', async () => {
    const patch = [{ op: 'add', path: '/x', value: 1 } as const];
    await start({ admit: () => ({ result: 'shaped', patch, checkpoint: 'team/a', checkpointId: 'ckpt' }) });
    const { status, body } = await call({
      path: `${WEBHOOK_PATH}?timeout=10s`,
      type: 'application/json; charset=utf-8',
    });
    expect([status, body]).toMatchObject([200, { response: { uid: 'u-1', allowed: true, patchType: 'JSONPatch' } }]);
    expect(await results()).toEqual({ shaped: 1 });
  });

  it('and a warning, where the pod stands in its own way', async () => {
    await start({ admit: () => ({ result: 'passed', why: 'conflict', detail: 'the volume is taken' }) });
    const warnings = ['the pod is not restored from its checkpoint, and starts cold: the volume is taken'];
    expect((await call()).body).toEqual({ ...ALLOWED, response: { uid: 'u-1', allowed: true, warnings } });
  });

  it('whatever telling of it comes to', async () => {
    await start({
      onVerdict: () => {
        throw new Error('no room');
      },
    });
    expect((await call()).body).toEqual({ ...ALLOWED, response: { uid: 'u-1', allowed: true } });
    expect(log.said('what became of a pod could not be told')).toHaveLength(1);
  });

  it.each<[string, Call, number, string]>([
    ['is not JSON', { send: (message) => message.end('{') }, 200, 'bad-request'],
    ['is of another version', { send: (message) => message.end('{"kind":"AdmissionReview"}') }, 200, 'bad-request'],
    ['is empty', { send: (message) => message.end() }, 200, 'bad-request'],
    ['has another type', { type: 'text/plain' }, 415, 'bad-request'],
    ['is no POST', { method: 'GET' }, 405, 'bad-request'],
    ['is too large', { send: (message) => message.end('x'.repeat(1_001)) }, 413, 'bad-request'],
    ['never ends', { send: (message) => message.write('{') }, 408, 'late'],
  ])('also where it %s', async (_, asked, status, result) => {
    await start(SMALL);
    expect(await call(asked)).toMatchObject({ status, body: ALLOWED });
    expect(await results()).toEqual({ [result]: 1 });
    server.serve(one.leaf);
    expect((await call({ send: (message) => message.end('{') })).status).toBe(200);
  });

  it('and takes nothing for the next question that was left of one', async () => {
    await start(SMALL);
    const agent = new HttpsAgent({ keepAlive: true, maxSockets: 1 });
    const send = (message: ClientRequest) => message.end('x'.repeat(1_001));
    expect(await call({ agent, send })).toMatchObject({ status: 413, connection: 'close' });
    expect((await call({ agent, type: 'text/plain' })).status).toBe(415);
    const small = (message: ClientRequest) => message.end('{}');
    expect(await call({ agent, send: small })).toMatchObject({ status: 200, connection: 'keep-alive' });
    agent.destroy();
  });

  it('also where there are too many large ones, and there is room again after them', async () => {
    await start({ limits: { maxBytesAtOnce: 1_000, deadlineMs: 60_000 } });
    let release = () => undefined as unknown;
    const taken = new Promise<void>((resolve) => {
      void call({
        send: (message) => {
          message.write('x'.repeat(900), () => resolve());
          release = () => message.destroy();
        },
      }).catch(() => undefined);
    });
    await taken;
    const large = () => call({ send: (message) => message.end(`"${'x'.repeat(400)}"`) });
    await expect.poll(async () => (await large()).status, { timeout: 10_000 }).toBe(503);
    release();
    await expect.poll(async () => (await large()).status, { timeout: 10_000 }).toBe(200);
  });
});

describe('the server', () => {
  it('says that it lives, and of any other path that nothing is there', async () => {
    await start();
    expect(await call({ method: 'GET', path: '/healthz' })).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect((await call({ path: '/mutate' })).status).toBe(404);
    expect(await results()).toEqual({});
  });

  it('makes no connection before it has a certificate', async () => {
    await start({}, false);
    await expect(call()).rejects.toThrow();
    server.serve(one.leaf);
    expect((await call()).status).toBe(200);
  });

  it('shows another certificate on new connections, and goes on with those that there are', async () => {
    await start();
    const agent = new HttpsAgent({ keepAlive: true, maxSockets: 1 });
    const kept = () => call({ agent, send: (message) => message.end(REVIEW) });
    expect((await kept()).status).toBe(200);
    server.serve(two.leaf);
    await expect(call()).rejects.toThrow(/certificate|signature/);
    expect((await call({ authority: two })).status).toBe(200);
    expect((await kept()).status).toBe(200);
    agent.destroy();
  });

  it('keeps what it shows where it is given what does not fit', async () => {
    await start();
    expect(() => server.serve({ certificate: one.leaf.certificate, key: two.leaf.key })).toThrow();
    expect((await call()).status).toBe(200);
  });

  const ended = (socket: { on(event: 'close', listener: () => void): unknown }) =>
    new Promise<void>((resolve) => socket.on('close', () => resolve()));
  const tls = () =>
    new Promise<TLSSocket>((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port: server.port, servername: NAME, ca: one.authority.certificate });
      socket.once('secureConnect', () => resolve(socket)).on('error', reject);
    });

  it('ends connections that come to no request', async () => {
    await start({ limits: { clientMs: 200 } });
    const silent = connectPlain(server.port, '127.0.0.1').on('error', () => undefined);
    const idle = await tls();
    const slow = await tls();
    slow.write('POST / HTTP/1.1\r\nx-a: 1\r\n');
    for (const socket of [idle, slow]) socket.on('error', () => undefined).resume();
    await Promise.all([silent, idle, slow].map(ended));
    expect((await call()).status).toBe(200);
  });

  it('bears with callers that hang up in the middle', async () => {
    await start();
    for (let count = 0; count < 5; count += 1) {
      const socket = await tls();
      socket.write(
        `POST ${WEBHOOK_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{`,
      );
      socket.destroy();
    }
    expect((await call()).status).toBe(200);
  });

  it('stops, also while somebody is connected', async () => {
    await start();
    const socket = (await tls()).on('error', () => undefined);
    const closed = ended(socket);
    await server.stop();
    await closed;
    await expect(call()).rejects.toThrow(/ECONNREFUSED/);
  });

  it('says where it cannot listen', async () => {
    await start();
    const second = { listen: { host: '127.0.0.1', port: server.port }, log: log.log, metrics };
    const admit = () => ({ result: 'passed', why: 'disabled', detail: '' }) as const;
    await expect(startWebhookServer({ ...second, admit })).rejects.toThrow(/EADDRINUSE/);
  });
});
