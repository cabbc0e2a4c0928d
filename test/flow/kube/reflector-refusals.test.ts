import { writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Fault } from './collection.ts';
import { useCollection } from './following.ts';
import { eventually, json, status } from './server.ts';

const { current, followed, stage } = useCollection();

/** Refusals that both a list and a watch can meet, and the word for each. */
const REFUSALS: readonly [string, string, Fault][] = [
  [
    '403, as just after a start of the server',
    'forbidden',
    (response) => status(response, { code: 403, reason: 'Forbidden' }),
  ],
  ['404', 'refused', (response) => response.writeHead(404, { 'content-type': 'text/plain' }).end('404 page not found')],
  ['410', 'gone', (response) => status(response, { code: 410, reason: 'Expired' })],
  [
    '429 in plain text',
    'throttled',
    (response) => response.writeHead(429).end('Too many requests, please try again later.'),
  ],
  ['500 without a reason', 'server-error', (response) => status(response, { code: 500 })],
  ['503', 'server-error', (response) => response.writeHead(503).end()],
  ['504', 'server-error', (response) => status(response, { code: 504, reason: 'Timeout' })],
];

describe('the reflector tries again after', () => {
  it.each(REFUSALS)('a list is answered %s', async (_, reason, fault) => {
    stage.server.collection.put('a', '1');
    stage.server.collection.faults.list.push(fault, fault);
    const { view, lost } = await followed();
    expect(lost()).toEqual([reason, reason]);
    expect(Object.fromEntries(view)).toEqual({ a: '1' });
  });

  it.each(REFUSALS)('a watch is answered %s, and loses nothing', async (_, reason, fault) => {
    stage.server.collection.put('a', '1');
    const spoilt: Fault = (response, request) => {
      stage.server.collection.put(`during-${stage.server.collection.count('watch')}`, '1');
      return fault(response, request);
    };
    stage.server.collection.faults.watch.push(spoilt, spoilt);
    const { view, lost } = await followed();
    expect(lost()).toEqual([reason, reason]);
    await eventually(() => expect(Object.fromEntries(view)).toEqual(current()));
    expect(view.size).toBe(3);
  });

  it.each(['header', 'status'] as const)('a 429, when the time is over that its %s asks for', async (where) => {
    stage.server.collection.faults.watch.push((response) => {
      const details = where === 'status' ? { details: { retryAfterSeconds: 1 } } : {};
      const headers = where === 'header' ? { 'retry-after': '1' } : {};
      json(
        response,
        429,
        { kind: 'Status', code: 429, reason: 'TooManyRequests', ...details },
        headers as Record<string, string>,
      );
    });
    const { waits } = await followed();
    expect(waits()).toHaveLength(1);
    expect(waits()[0]).toBeGreaterThanOrEqual(1_000);
    expect(stage.server.collection.count('list')).toBe(1);
  });

  it('a 401, at once with the token that the file has by now', async () => {
    const accepts =
      (token: string): Fault =>
      (response, request) =>
        request.headers.authorization === `Bearer ${token}`
          ? 'pass'
          : status(response, { code: 401, reason: 'Unauthorized' });
    stage.server.collection.faults.watch.push(accepts('second'), accepts('second'));
    stage.server.collection.faults.list.push(() => {
      writeFileSync(stage.server.tokenPath, 'second');
      return 'pass';
    });
    const { lost } = await followed();
    expect(lost()).toEqual([]);
    expect(stage.server.collection.calls.map(({ authorization }) => authorization)).toEqual([
      'Bearer first',
      'Bearer first',
      'Bearer second',
    ]);
  });

  it('a 401 that stays, once the token is good', async () => {
    const refuse: Fault = (response) => status(response, { code: 401, reason: 'Unauthorized' });
    stage.server.collection.faults.list.push(refuse, refuse, refuse, refuse);
    const { lost } = await followed();
    expect(lost()).toEqual(['unauthorized', 'unauthorized']);
  });

  it('nobody answers for long, and hears what happened meanwhile', async () => {
    const { view, lost } = await followed();
    await stage.server.away();
    await eventually(() => expect(lost().filter((reason) => reason === 'unreachable').length).toBeGreaterThan(12));
    stage.server.collection.put('meanwhile', '1');
    await stage.server.back();
    await eventually(() => expect(Object.fromEntries(view)).toEqual({ meanwhile: '1' }));
    expect(stage.server.collection.count('list')).toBe(1);
  });
});
