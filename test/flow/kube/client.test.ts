import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { isConflict, isGone } from '../../../kube/error.ts';
import { eventually, json, serve, status } from './server.ts';

let requests: IncomingMessage[];
let answer: (request: IncomingMessage, response: ServerResponse) => unknown;
let failures: string[];
let server: Awaited<ReturnType<typeof serve>>;
let client: KubeClient;
beforeEach(async () => {
  requests = [];
  failures = [];
  answer = (_, response) => json(response, 200, { ok: true });
  server = await serve((request, response) => {
    requests.push(request);
    answer(request, response);
  });
  client = await openKube({
    kubeconfigPath: server.kubeconfigPath,
    onFailure: (verb, code) => failures.push(`${verb} ${code}`),
  });
});
afterEach(async () => {
  client.close();
  await server.close();
});

const get = (path = '/api/v1/namespaces/demo/pods/web-1') => client.request({ method: 'GET', path });
/** Follows one stream; returns its lines. */
async function watch(signal = new AbortController().signal, onLine?: (line: string) => void) {
  const lines: string[] = [];
  const take = onLine ?? ((line: string) => lines.push(line));
  await client.watch({ path: '/api/v1/pods', query: { watch: true }, idleMs: 200, signal, onLine: take });
  return lines;
}

describe('a request', () => {
  it('carries the token of the user, its query without what is undefined, and its body', async () => {
    let sent = '';
    answer = (request, response) => {
      request.setEncoding('utf8').on('data', (text: string) => {
        sent += text;
      });
      request.on('end', () => json(response, 200, { answered: 'ü' }));
    };
    const body = { note: 'ü' };
    const query = { dryRun: 'All', fieldManager: undefined, force: true };
    const contentType = 'application/merge-patch+json';
    const patched = await client.request({ method: 'PATCH', path: '/api/v1/x', query, body, contentType });
    expect(patched).toEqual({ answered: 'ü' });
    expect(sent).toBe('{"note":"ü"}');
    expect(requests[0]?.url).toBe('/api/v1/x?dryRun=All&force=true');
    expect(requests[0]?.headers).toMatchObject({ authorization: 'Bearer first', 'content-type': contentType });
  });

  it('keeps its connection for the next one', async () => {
    await get();
    await get();
    expect(requests[0]?.socket).toBe(requests[1]?.socket);
  });

  it('is sent again on a new connection when the server had closed the kept one, if it only reads', async () => {
    await get();
    answer = (request, response) => {
      if (requests.length === 2) request.socket.resetAndDestroy();
      else json(response, 200, { ok: true });
    };
    expect(await get()).toEqual({ ok: true });
    expect(requests).toHaveLength(3);

    answer = (request) => request.socket.resetAndDestroy();
    await expect(client.request({ method: 'POST', path: '/api/v1/x', body: {} })).rejects.toMatchObject({
      reason: 'Reset',
    });
    expect(requests).toHaveLength(4);
  });

  it('is sent once more with the token of now when it is answered 401, whatever it does', async () => {
    answer = (request, response) => {
      writeFileSync(server.tokenPath, 'second');
      if (request.headers.authorization === 'Bearer second') json(response, 200, { ok: true });
      else status(response, { code: 401, reason: 'Unauthorized', message: 'Unauthorized' });
    };
    expect(await client.request({ method: 'POST', path: '/api/v1/x', body: {} })).toEqual({ ok: true });
    expect(failures).toEqual([]);
  });

  it.each<[string, (response: ServerResponse) => unknown, object]>([
    [
      'a Status',
      (response) => status(response, { code: 409, reason: 'Conflict', message: 'has been modified' }),
      {
        status: 409,
        reason: 'Conflict',
        message: 'GET /api/v1/namespaces/demo/pods/web-1: 409 Conflict: has been modified',
      },
    ],
    [
      'plain text',
      (response) => response.writeHead(404, { 'content-type': 'text/plain' }).end('404 page not found\n'),
      { status: 404, reason: '', message: 'GET /api/v1/namespaces/demo/pods/web-1: 404: 404 page not found' },
    ],
    [
      'text that only says it is JSON',
      (response) => response.writeHead(502, { 'content-type': 'application/json' }).end('<html>'),
      { status: 502, message: 'GET /api/v1/namespaces/demo/pods/web-1: 502: <html>' },
    ],
    ['a page where JSON should be', (response) => response.end('<html>'), { status: 0, reason: 'Malformed' }],
    ['a reset', (response) => response.socket?.resetAndDestroy(), { status: 0, reason: 'Reset' }],
    ['no HTTP', (response) => response.socket?.end('hello\r\n\r\n'), { status: 0, reason: 'Malformed' }],
  ])('says what it was and what came: %s', async (_, spoil, error) => {
    answer = (__, response) => spoil(response);
    await expect(get()).rejects.toMatchObject({ name: 'KubeError', ...error });
    expect(failures).toHaveLength(1);
  });

  it('ends after its time, and with the reason of its signal', async () => {
    answer = () => undefined;
    const late = client.request({ method: 'GET', path: '/api', timeoutMs: 50 });
    await expect(late).rejects.toMatchObject({ reason: 'TimedOut', message: 'GET /api: no complete answer for 50 ms' });
    const why = new Error('enough');
    const stop = new AbortController();
    const stopped = client.request({ method: 'GET', path: '/api', signal: stop.signal });
    await eventually(() => expect(requests).toHaveLength(2));
    stop.abort(why);
    await expect(stopped).rejects.toBe(why);
    await expect(client.request({ method: 'GET', path: '/api', signal: stop.signal })).rejects.toBe(why);
  });

  it('says that nobody is there', async () => {
    await server.away();
    await expect(get()).rejects.toMatchObject({ status: 0, reason: 'Unreachable' });
    expect(failures).toEqual(['get undefined']);
  });

  it('counts as a failure under its verb', async () => {
    answer = (_, response) => status(response, { code: 503 });
    await Promise.allSettled([get(), get('/api/v1/pods')]);
    await Promise.allSettled([client.request({ method: 'PUT', path: '/api/v1/x' }), watch()]);
    expect(failures.sort()).toEqual(['get 503', 'list 503', 'update 503', 'watch 503']);
  });

  it.each([
    ['404', { code: 404, reason: 'NotFound' }, true, false],
    [
      '422 for the uid',
      { code: 422, reason: 'Invalid', details: { causes: [{ field: 'metadata.uid' }] } },
      true,
      false,
    ],
    ['422 for another field', { code: 422, reason: 'Invalid', details: { causes: [{ field: 'spec' }] } }, false, false],
    ['409', { code: 409, reason: 'Conflict' }, false, true],
  ])('tells from %s whether the object is gone, or was written by others', async (_, refusal, gone, conflict) => {
    answer = (__, response) => status(response, refusal);
    const error = await get().catch((thrown: unknown) => thrown);
    expect([isGone(error), isConflict(error)]).toEqual([gone, conflict]);
  });
});

describe('a stream', () => {
  it('ends when the server ends it', async () => {
    answer = (_, response) => response.end('{"a":1}\n\n{"b":2}\n');
    expect(await watch()).toEqual(['{"a":1}', '{"b":2}']);
  });

  it('that breaks on a kept connection is not asked for a second time behind our back', async () => {
    await get();
    answer = (_, response) => {
      response.write('{"a":1}\n', () => setTimeout(() => response.socket?.resetAndDestroy(), 20));
    };
    await expect(watch()).rejects.toMatchObject({ reason: 'Reset' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(requests).toHaveLength(2);
    expect(requests[1]?.socket).toBe(requests[0]?.socket);
  });

  it('may last longer than its time of silence, as long as something comes', async () => {
    answer = (_, response) => {
      let lines = 0;
      const timer = setInterval(() => {
        lines += 1;
        response.write(`${lines}\n`);
        if (lines < 6) return;
        clearInterval(timer);
        response.end();
      }, 60);
    };
    expect(await watch()).toEqual(['1', '2', '3', '4', '5', '6']);
  });

  it('that is silent is given up', async () => {
    answer = (_, response) => response.write('{"a":1}\n{"b"');
    await expect(watch()).rejects.toMatchObject({ reason: 'Silent' });
  });

  it('whose line has no end is given up before it fills the memory', async () => {
    answer = (_, response) => {
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(1 << 20, 'x')));
      };
      response.on('drain', more);
      more();
    };
    await expect(watch()).rejects.toMatchObject({ reason: 'TooLarge' });
    await eventually(() => expect(server.sockets.size).toBe(0));
  });

  it('ends with what its reader throws, and closes its connection', async () => {
    answer = (_, response) => response.write('{"a":1}\n');
    const odd = Object.assign(new Error('odd'), { code: 'ECONNRESET' });
    const throwing = watch(undefined, () => {
      throw odd;
    });
    await expect(throwing).rejects.toBe(odd);
    await eventually(() => expect(server.sockets.size).toBe(0));
    expect(failures).toEqual([]);
  });
});
