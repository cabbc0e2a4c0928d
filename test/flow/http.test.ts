import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type HttpEndpoint, type HttpOptions, startHttp } from '../../agent/api/http.ts';
import { memoryLog } from '../fakes/log.ts';
import { watchedOperations } from '../unit/api/metrics-operations.ts';

const { log, said } = memoryLog();
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function start(changes: Partial<HttpOptions> = {}): Promise<HttpEndpoint> {
  const { registry } = watchedOperations().metrics;
  const ready = { readiness: () => [] };
  const endpoint = await startHttp({ address: '127.0.0.1:0', metrics: registry, health: ready, log, ...changes });
  ends.push(() => endpoint.stop());
  return endpoint;
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

function ask({ port }: HttpEndpoint, path: string, method = 'GET', host = '127.0.0.1'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host, port, path, method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** A client that says exactly this; what it was answered, when the server has closed the connection. */
async function dial({ port }: HttpEndpoint, text = ''): Promise<{ socket: Socket; closed: Promise<string> }> {
  const socket = connect(port, '127.0.0.1');
  ends.push(() => socket.destroy());
  let answer = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    answer += chunk;
  });
  // A reset is a way to be closed.
  socket.on('error', () => undefined);
  const closed = new Promise<string>((resolve) => {
    socket.on('close', () => resolve(answer));
  });
  await once(socket, 'connect');
  socket.write(text);
  return { socket, closed };
}

/** Whether the server's side of a connection is still open. A client that does not read is not told by its own socket. */
function isEstablished(serverPort: number, clientPort = 0): boolean {
  const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, '0');
  const table = readFileSync('/proc/net/tcp', 'utf8');
  return new RegExp(`:${hex(serverPort)} [0-9A-F]+:${hex(clientPort)} 01 `).test(table);
}

describe('/metrics', () => {
  it('answers with what Prometheus reads', async () => {
    const { metrics } = watchedOperations();
    const { status, headers, body } = await ask(await start({ metrics: metrics.registry }), '/metrics');
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(body).toContain('# TYPE snapshot_agent_operations_total counter\n');
    expect(body).toMatch(/^snapshot_agent_build_info\{.*criu="4\.2".*\} 1$/m);
    expect(body).toMatch(/^process_resident_memory_bytes \d+$/m);
  });

  it('says 500 and nothing else where the metrics cannot be read, and the log says why', async () => {
    const broken = { metrics: () => Promise.reject(new Error('out of order')), contentType: 'text/plain' };
    const endpoint = await start({ metrics: broken });
    const { status, body } = await ask(endpoint, '/metrics');
    expect(status).toBe(500);
    expect(body).not.toContain('out of order');
    expect(said('http request failed')).toContainEqual(
      expect.objectContaining({ path: '/metrics', err: expect.objectContaining({ message: 'out of order' }) }),
    );
    expect((await ask(endpoint, '/healthz')).status).toBe(200);
  });

  it('is made once for all who ask at the same time, and anew for who asks later', async () => {
    let made = 0;
    let give: (text: string) => void = () => undefined;
    const metrics = {
      metrics: () => {
        made += 1;
        return new Promise<string>((resolve) => {
          give = resolve;
        });
      },
      contentType: 'text/plain',
    };
    const endpoint = await start({ metrics });
    const [go, last] = ['', 'Connection: close\r\n'].map((more) => `GET /metrics HTTP/1.1\r\nHost: a\r\n${more}\r\n`);
    const { closed } = await dial(endpoint, `${go}${go}${last}`);
    await expect.poll(() => made).toBe(1);
    give('first');
    expect((await closed).match(/^first/gm)).toHaveLength(3);
    expect(made).toBe(1);
    const later = ask(endpoint, '/metrics');
    await expect.poll(() => made).toBe(2);
    give('second');
    expect((await later).body).toBe('second');
  });
});

describe('/healthz and /readyz', () => {
  it('say 200 where all is well', async () => {
    const endpoint = await start();
    const [health, ready] = [await ask(endpoint, '/healthz'), await ask(endpoint, '/readyz')];
    expect([health.status, JSON.parse(health.body)]).toEqual([200, { status: 'ok' }]);
    expect([ready.status, JSON.parse(ready.body)]).toEqual([200, { ready: true, reasons: [] }]);
    expect(ready.headers['cache-control']).toBe('no-store');
  });

  it('differ where the agent is not ready: it lives, and says every reason', async () => {
    let reasons = ['the runtime does not answer', 'the watch is stale'];
    const endpoint = await start({ health: { readiness: () => reasons } });
    const { status, body } = await ask(endpoint, '/readyz');
    expect([status, JSON.parse(body)]).toEqual([503, { ready: false, reasons }]);
    expect((await ask(endpoint, '/healthz')).status).toBe(200);
    reasons = [];
    expect((await ask(endpoint, '/readyz')).status).toBe(200);
  });

  it('are answered while a scrape hangs', async () => {
    const metrics = { metrics: () => new Promise<string>(() => undefined), contentType: 'text/plain' };
    const endpoint = await start({ metrics });
    await dial(endpoint, 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
    expect((await ask(endpoint, '/healthz')).status).toBe(200);
    expect((await ask(endpoint, '/readyz')).status).toBe(200);
  });

  it('do not mind a query', async () => {
    expect((await ask(await start(), '/readyz?verbose=1')).status).toBe(200);
  });
});

describe('anything else', () => {
  it.each(['/', '/metrics/', '/debug/pprof', '/metrics%00', '/../metrics', '//metrics', '/readyz/..'])(
    'at %s is not found',
    async (path) => {
      const { status, body } = await ask(await start(), path);
      expect(status).toBe(404);
      expect(JSON.parse(body)).toMatchObject({ paths: ['/metrics', '/healthz', '/readyz'] });
    },
  );

  it.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE'])('with %s is not allowed', async (method) => {
    const { status, headers } = await ask(await start(), '/metrics', method);
    expect([status, headers['allow']]).toEqual([405, 'GET, HEAD']);
  });

  it('of HEAD has the head of GET and no body', async () => {
    const endpoint = await start();
    const [head, get] = [await ask(endpoint, '/healthz', 'HEAD'), await ask(endpoint, '/healthz')];
    expect(head.status).toBe(200);
    expect(head.body).toBe('');
    expect(head.headers['content-length']).toBe(get.headers['content-length']);
  });
});

describe('limits', () => {
  it('refuse a head that is too large', async () => {
    const { closed } = await dial(
      await start(),
      `GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: ${'a'.repeat(9_000)}\r\n\r\n`,
    );
    expect(await closed).toMatch(/^HTTP\/1\.1 431 /);
  });

  it('refuse a path that is too long', async () => {
    expect((await ask(await start(), `/healthz?${'a'.repeat(2_000)}`)).status).toBe(414);
  });

  it('refuse what is not HTTP', async () => {
    const { closed } = await dial(await start(), '\u0016\u0003\u0001 nonsense\r\n\r\n');
    expect(await closed).toMatch(/^HTTP\/1\.1 400 /);
  });

  it('end a connection whose request brings a body: it is never read as the next request', async () => {
    const smuggled = 'GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n';
    const head = `GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: ${smuggled.length}\r\n\r\n`;
    const { closed } = await dial(await start(), head + smuggled);
    const answer = await closed;
    expect(answer.match(/^HTTP\/1\.1 /gm)).toHaveLength(1);
    expect(answer).toMatch(/^Connection: close\r$/m);
  });

  it('cut off a client that does not send its request', async () => {
    const { closed } = await dial(await start({ clientTimeoutMs: 200 }), 'GET /healthz HTTP/1.1\r\nHost');
    expect(await closed).not.toContain('200 OK');
  });

  it('cut off a client that does not take its answer, and go on serving others', async () => {
    const metrics = { metrics: () => Promise.resolve('x'.repeat(64 * 2 ** 20)), contentType: 'text/plain' };
    const endpoint = await start({ metrics, clientTimeoutMs: 300 });
    const { socket, closed } = await dial(endpoint);
    socket.pause();
    expect(isEstablished(endpoint.port, socket.localPort)).toBe(true);
    socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
    expect((await ask(endpoint, '/healthz')).status).toBe(200);
    await expect.poll(() => isEstablished(endpoint.port, socket.localPort), { timeout: 10_000 }).toBe(false);
    socket.resume();
    await closed;
    expect(socket.bytesRead).toBeLessThan(64 * 2 ** 20);
  });

  it('close connections that are too many, until there is room again', async () => {
    const endpoint = await start();
    const held = await Promise.all(Array.from({ length: 64 }, () => dial(endpoint)));
    const { closed } = await dial(endpoint, 'GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
    expect(await closed).toBe('');
    for (const { socket } of held) socket.destroy();
    await expect.poll(async () => (await ask(endpoint, '/healthz').catch(() => undefined))?.status).toBe(200);
  });
});

describe('the address', () => {
  it.each(['[::1]:0', 'localhost:0', ':0'])('may be %s', async (address) => {
    const endpoint = await start({ address });
    const host = address.startsWith('[') ? '::1' : 'localhost';
    expect((await ask(endpoint, '/healthz', 'GET', host)).status).toBe(200);
  });

  it.each(['', '9090', 'host', '::1:9090', 'host:70000', 'host:-1', 'http://host:9090', '[::1]'])(
    'cannot be %j',
    async (address) => {
      await expect(start({ address })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: `the HTTP address is not host:port: ${address}`,
      });
    },
  );

  it('that is taken, or not of this machine, is an error that names it', async () => {
    const { port } = await start();
    for (const address of [`127.0.0.1:${port}`, '192.0.2.1:0'])
      await expect(start({ address })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining(`cannot listen at ${address}`),
      });
  });
});

describe('stopping', () => {
  it('closes idle connections and frees the port', async () => {
    const endpoint = await start();
    const { closed } = await dial(endpoint, 'GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
    await endpoint.stop();
    expect(await closed).toContain('200 OK');
    await expect(ask(endpoint, '/healthz')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('lets an answer under way end, and its connection with it', async () => {
    let give: (text: string) => void = () => undefined;
    const late = new Promise<string>((resolve) => {
      give = resolve;
    });
    const endpoint = await start({ metrics: { metrics: () => late, contentType: 'text/plain' } });
    const { closed } = await dial(endpoint, 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
    await ask(endpoint, '/healthz');
    const stopped = endpoint.stop();
    give('the last answer');
    await stopped;
    const answer = await closed;
    expect(answer).toMatch(/^Connection: close\r$/m);
    expect(answer).toMatch(/the last answer$/);
  });

  it('does not wait for an answer that never comes', async () => {
    const metrics = { metrics: () => new Promise<string>(() => undefined), contentType: 'text/plain' };
    const endpoint = await start({ metrics });
    const { closed } = await dial(endpoint, 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
    // The answer shows that the request before it has been read.
    await ask(endpoint, '/healthz');
    await endpoint.stop();
    expect(await closed).toBe('');
  });
});
