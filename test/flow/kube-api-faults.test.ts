import { describe, expect, it, vi } from 'vitest';
import { codeOf, PODS, useServer } from '../fakes/kube-api/calling.ts';
import { serverError, startKubeApi, tooManyRequests, WRITES } from '../fakes/kube-api/server.ts';

const { stage, put, call, annotate, annotation, watch } = useServer();

/** Whether nothing has come while a later call went there and back. */
async function isSilent(answer: Promise<unknown>): Promise<boolean> {
  const nothing = Symbol('nothing');
  const roundTrip = call(`${PODS}/web`).then(() => nothing);
  return (await Promise.race([answer, roundTrip])) === nothing;
}

describe('a fault', () => {
  it('resets before anything is stored', async () => {
    stage.api.fault({ verb: 'patch' }, { kind: 'reset', at: 'request' }, { times: 1 });
    expect(await codeOf(annotate('a'))).toBe('ECONNRESET');
    expect(annotation()).toBeUndefined();
    expect((await annotate('b')).status).toBe(200);
  });

  it('resets after the write was stored: the answer is lost', async () => {
    stage.api.fault({ verb: 'patch' }, { kind: 'reset', at: 'answer' }, { times: 1 });
    expect(await codeOf(annotate('a'))).toBe('ECONNRESET');
    expect(annotation()).toBe('a');
  });

  it('resets in the middle of a body', async () => {
    stage.api.fault({ verb: 'list' }, { kind: 'reset', at: 'body' });
    const answer = await call(PODS);
    expect(answer.status).toBe(200);
    expect(await codeOf(answer.text())).toBe('ECONNRESET');
  });

  it('is silent: the connection is taken, and nothing comes', async () => {
    const fault = stage.api.fault({ verb: 'patch' }, { kind: 'silent', at: 'request' });
    const answer = annotate('a');
    await vi.waitFor(() => expect(fault.hits).toBe(1));
    expect(await isSilent(answer)).toBe(true);
    expect(annotation()).toBeUndefined();
    stage.api.resetConnections();
    expect(await codeOf(answer)).toBe('ECONNRESET');
  });

  it('is silent after the write was stored', async () => {
    stage.api.fault({ verb: 'patch' }, { kind: 'silent', at: 'answer' });
    const answer = annotate('a');
    await vi.waitFor(() => expect(annotation()).toBe('a'));
    expect(await isSilent(answer)).toBe(true);
    stage.api.resetConnections();
    expect(await codeOf(answer)).toBe('ECONNRESET');
  });

  it('delays an answer after the write was stored', async () => {
    stage.api.fault({ verb: 'patch' }, { kind: 'delay', at: 'answer', ms: 500 });
    const answer = annotate('a');
    await vi.waitFor(() => expect(annotation()).toBe('a'));
    expect(await isSilent(answer)).toBe(true);
    expect((await answer).status).toBe(200);
  });

  it.each([
    ['429', tooManyRequests(7), [429, '7', 'text/plain; charset=utf-8']],
    ['503', serverError(503), [503, null, 'application/json']],
    ['403', { kind: 'forbidden' } as const, [403, null, 'application/json']],
  ])('answers %s in place of the server, and stores nothing', async (_, fault, expected) => {
    stage.api.fault({ verb: 'patch' }, fault, { times: 2 });
    for (const _ of [1, 2]) {
      const { status, headers } = await annotate('a');
      expect([status, headers.get('retry-after'), headers.get('content-type')]).toEqual(expected);
    }
    expect(annotation()).toBeUndefined();
    expect((await annotate('b')).status).toBe(200);
  });

  it('meets only the calls of its pattern, and none once it is lifted', async () => {
    const fault = stage.api.fault({ resource: 'pods', where: ({ path }) => path.endsWith('/web') }, serverError());
    expect([(await call(PODS)).status, (await call(`${PODS}/web`)).status]).toEqual([200, 500]);
    fault.lift();
    expect([(await call(`${PODS}/web`)).status, fault.hits]).toEqual([200, 1]);
  });
});

describe('a watch', () => {
  it('breaks in the middle of an event', async () => {
    const answer = await watch();
    stage.api.watches.tearNextEvent();
    put('web-2');
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    const half = Buffer.from((await reader.read()).value ?? []).toString();
    expect(half).toMatch(/^\{"type":"ADDED"/);
    expect(half).not.toContain('\n');
    expect(await codeOf(reader.read())).toBe('ECONNRESET');
  });

  it('that begins under a fault breaks in its first event', async () => {
    stage.api.fault({ verb: 'watch' }, { kind: 'reset', at: 'body' });
    const answer = await watch();
    put('web-2');
    expect(await codeOf(answer.text())).toBe('ECONNRESET');
  });

  it('goes silent and stays open', async () => {
    const answer = await watch('&timeoutSeconds=1');
    stage.api.watches.mute();
    put('web-2');
    const text = answer.text();
    expect(await isSilent(text)).toBe(true);
    expect(stage.api.watches.count()).toBe(1);
    stage.api.watches.reset();
    expect(await codeOf(text)).toBe('ECONNRESET');
  });

  it('gets its bookmarks two seconds and one second before its time is over, and then ends', async () => {
    const version = stage.api.version;
    const lines = (await (await watch('&timeoutSeconds=3&allowWatchBookmarks=true')).text()).trim().split('\n');
    const events = lines.map((line) => JSON.parse(line) as { type: string; object: object });
    const object = { kind: 'Pod', apiVersion: 'v1', metadata: { resourceVersion: version } };
    const bookmark = { type: 'BOOKMARK', object: { ...object, spec: { containers: null }, status: {} } };
    expect(events).toEqual([bookmark, bookmark]);
  });

  it('gets bookmarks as often as the test wants them, if it asked for them', async () => {
    const fast = await startKubeApi({ bookmarkMs: 10 });
    const headers = { authorization: `Bearer ${fast.token}` };
    const answer = await fetch(
      `${fast.url}${PODS}?watch=true&allowWatchBookmarks=true&resourceVersion=${fast.version}`,
      { headers },
    );
    const plain = await fetch(`${fast.url}${PODS}?watch=true&resourceVersion=${fast.version}`, { headers });
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toContain('BOOKMARK');
    fast.watches.end();
    expect(await plain.text()).toBe('');
    await fast.close();
  });

  it('loses and doubles nothing over a reset when it goes on from its last version', async () => {
    const first = await watch();
    const from = stage.api.version;
    for (let index = 0; index < 50; index += 1) put(`pod-${index}`);
    stage.api.watches.reset();
    expect(await codeOf(first.text())).toBe('ECONNRESET');
    const second = await call(`${PODS}?watch=true&resourceVersion=${from}`);
    for (let index = 50; index < 100; index += 1) put(`pod-${index}`);
    await new Promise((resolve) => setImmediate(resolve));
    stage.api.watches.end();
    const names = (await second.text()).trim().split('\n');
    const told = names.map(
      (line) => (JSON.parse(line) as { object: { metadata: { name: string } } }).object.metadata.name,
    );
    expect(told).toEqual(Array.from({ length: 100 }, (_, index) => `pod-${index}`));
  });
});

describe('a gate', () => {
  it('holds a write before it is stored', async () => {
    const gate = stage.api.gate({ verb: WRITES }, 'request');
    const answer = annotate('a');
    const held = await gate.next();
    expect([held.call.verb, held.call.body, annotation()]).toEqual([
      'patch',
      { metadata: { annotations: { state: 'a' } } },
      undefined,
    ]);
    held.release();
    expect([(await answer).status, annotation()]).toEqual([200, 'a']);
  });

  it('holds the answer of a write that is stored, and lets all go when it opens', async () => {
    const gate = stage.api.gate({ verb: WRITES }, 'answer');
    const answer = annotate('a');
    await gate.next();
    expect([annotation(), gate.waiting, stage.api.calls({ verb: 'patch' })[0]?.status]).toEqual(['a', 1, 0]);
    gate.open();
    expect([(await answer).status, gate.waiting, (await annotate('b')).status]).toEqual([200, 0, 200]);
  });

  it.each([
    ['request', undefined],
    ['answer', 'a'],
  ] as const)('drops a call at its %s, as one of an agent that was killed', async (at, stored) => {
    const gate = stage.api.gate({ verb: WRITES }, at);
    const answer = annotate('a');
    (await gate.next()).drop();
    expect([await codeOf(answer), annotation()]).toEqual(['ECONNRESET', stored]);
  });

  it('holds the calls in the order in which they came', async () => {
    const gate = stage.api.gate({ verb: 'patch' }, 'request');
    const answers = [annotate('a')];
    const one = await gate.next();
    answers.push(annotate('b'));
    const two = await gate.next();
    two.release();
    await answers[1];
    expect(annotation()).toBe('b');
    one.release();
    await answers[0];
    expect(annotation()).toBe('a');
  });
});
