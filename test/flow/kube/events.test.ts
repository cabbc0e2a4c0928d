import type { ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import type { EventNote, eventObject } from '../../../kube/event-object.ts';
import { type EventLimits, type EventLoss, newEventWriter } from '../../../kube/events.ts';
import { eventually, json, serve, status } from './server.ts';

const SOURCE = { component: 'snapshot', host: 'node-1' };
const POD = { apiVersion: 'v1', kind: 'Pod', namespace: 'demo', name: 'web-1', uid: 'u' };

let written: ReturnType<typeof eventObject>[];
let calls: string[];
/** Answers in place of the server; where it returns `pass`, the server answers too. */
let fault: (body: ReturnType<typeof eventObject>, response: ServerResponse) => unknown;
let server: Awaited<ReturnType<typeof serve>>;
let client: KubeClient;
let stop: AbortController;
let running: Promise<void>;
beforeEach(async () => {
  [written, calls, fault] = [[], [], () => 'pass'];
  server = await serve((request, response) => {
    void text(request).then((sent) => {
      calls.push(`${request.method} ${request.url}`);
      const body = JSON.parse(sent) as ReturnType<typeof eventObject>;
      if (fault(body, response) !== 'pass') return;
      const isThere = written.some(({ metadata }) => metadata.name === body.metadata.name);
      if (isThere) return status(response, { code: 409, reason: 'AlreadyExists' });
      written.push(body);
      json(response, 201, body);
    });
  });
  client = await openKube({ kubeconfigPath: server.kubeconfigPath });
  stop = new AbortController();
  running = Promise.resolve();
});
afterEach(async () => {
  stop.abort();
  await running;
  client.close();
  await server.close();
});

/** A writer that runs. */
function open(limits: Partial<EventLimits> = {}) {
  const lost: [string, EventLoss][] = [];
  const writer = newEventWriter({
    client,
    source: SOURCE,
    onLost: (note, loss) => lost.push([note.reason, loss]),
    limits: { backoff: { minMs: 1, maxMs: 20 }, timeoutMs: 200, stopMs: 300, ...limits },
  });
  const run = () => {
    running = writer.run(stop.signal);
  };
  return { write: (reason: string, more: Partial<EventNote> = {}) => writer.write(note(reason, more)), lost, run };
}
function note(reason: string, more: Partial<EventNote> = {}): EventNote {
  return { about: POD, type: 'Normal', reason, message: `${reason} it was`, ...more };
}
const reasons = () => written.map(({ reason }) => reason);

describe('an Event', () => {
  it('is written with what it is about, in the namespace of that', async () => {
    const { write, run } = open();
    run();
    write('CheckpointRequested', { type: 'Warning', annotations: { trace: 'abc' } });
    await eventually(() => expect(written).toHaveLength(1));
    expect(calls).toEqual(['POST /api/v1/namespaces/demo/events']);
    const [event] = written;
    expect(event).toMatchObject({
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { namespace: 'demo', annotations: { trace: 'abc' } },
      involvedObject: POD,
      type: 'Warning',
      reason: 'CheckpointRequested',
      message: 'CheckpointRequested it was',
      source: SOURCE,
      count: 1,
    });
    expect(event?.metadata.name).toMatch(/^web-1-[0-9a-f]{16}$/);
    expect(event?.firstTimestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  });

  it('about an object without a namespace is written to the namespace default', async () => {
    const { write, run } = open();
    run();
    write('NodeTold', { about: { apiVersion: 'v1', kind: 'Node', name: 'node-1' } });
    await eventually(() => expect(calls).toEqual(['POST /api/v1/namespaces/default/events']));
  });

  it('that says the same as one that still waits is counted with it', async () => {
    const { write, run } = open();
    for (const reason of ['A', 'B', 'A', 'A']) write(reason);
    write('A', { message: 'something else' });
    write('A', { about: { ...POD, uid: 'another' } });
    run();
    await eventually(() => expect(written).toHaveLength(4));
    expect(written.map(({ reason, count }) => `${reason} ${count}`)).toEqual(['A 3', 'B 1', 'A 1', 'A 1']);
  });

  it.each<[string, (response: ServerResponse) => unknown]>([
    ['401', (response) => status(response, { code: 401 })],
    ['403, as just after a start of the server', (response) => status(response, { code: 403, reason: 'Forbidden' })],
    ['409 for another reason than its name', (response) => status(response, { code: 409, reason: 'Conflict' })],
    ['429', (response) => response.writeHead(429).end('Too many requests')],
    ['500', (response) => status(response, { code: 500 })],
    ['nothing', () => undefined],
    ['a reset', (response) => response.socket?.resetAndDestroy()],
  ])('that is answered %s is sent again, under the same name', async (_, spoil) => {
    const { write, run, lost } = open();
    const names = new Set<string>();
    let spoilt = 0;
    fault = (body, response) => {
      names.add(body.metadata.name);
      spoilt += 1;
      return spoilt <= 2 ? spoil(response) : 'pass';
    };
    write('A');
    run();
    await eventually(() => expect(reasons()).toEqual(['A']));
    expect([names.size, lost]).toEqual([1, []]);
  });

  it('whose answer was lost appears once', async () => {
    const { write, run, lost } = open();
    fault = (body, response) => {
      if (calls.length > 1) return 'pass';
      written.push(body);
      return response.socket?.resetAndDestroy();
    };
    write('A');
    write('B');
    run();
    await eventually(() => expect(reasons()).toEqual(['A', 'B']));
    expect(calls).toHaveLength(3);
    expect(lost).toEqual([]);
  });

  it.each([400, 404, 413, 422])('that is refused with %i is given up, and does not hold up others', async (code) => {
    const { write, run, lost } = open();
    fault = (body, response) => (body.reason === 'Bad' ? status(response, { code }) : 'pass');
    write('Bad');
    write('Good');
    run();
    await eventually(() => expect(reasons()).toEqual(['Good']));
    expect(lost).toEqual([['Bad', 'refused']]);
  });

  it('that stays forbidden is given up after some tries, and does not hold up others', async () => {
    const { write, run, lost } = open();
    fault = (body, response) => (body.reason === 'Bad' ? status(response, { code: 403 }) : 'pass');
    write('Bad');
    write('Good');
    run();
    await eventually(() => expect(lost).toEqual([['Bad', 'refused']]));
    expect(reasons()).toEqual(['Good']);
    expect(calls).toHaveLength(6);
  });

  it('about something that cannot be named in a path is given up', async () => {
    const { write, run, lost } = open();
    write('Odd', { about: { ...POD, namespace: '..' } });
    run();
    await eventually(() => expect(lost).toEqual([['Odd', 'refused']]));
  });
});

describe('the writer of Events', () => {
  it('keeps the latest while the API is away, and writes them when it is back', async () => {
    const { write, run, lost } = open({ queued: 3 });
    run();
    await server.away();
    for (const reason of ['A', 'B', 'C', 'D', 'E']) write(reason);
    await server.back();
    await eventually(() => expect(reasons()).toContain('E'));
    // One may be on its way while the others wait.
    const gone = lost.map(([reason]) => reason);
    expect(['A', 'A,B']).toContain(gone.join());
    expect(new Set(lost.map(([, loss]) => loss))).toEqual(new Set(['overflow']));
    expect([...gone, ...reasons()]).toHaveLength(5);
  });

  it('gives up what could not be said for too long', async () => {
    const { write, run, lost } = open({ ageMs: 50 });
    fault = (_, response) => status(response, { code: 503 });
    write('A');
    run();
    await eventually(() => expect(lost).toEqual([['A', 'too-old']]));
  });

  it('sends a number of them at once, and then one at a time', async () => {
    const { write, run } = open({ burst: 3, spacingMs: 150 });
    const atMs: number[] = [];
    fault = () => {
      atMs.push(performance.now());
      return 'pass';
    };
    for (let index = 0; index < 6; index += 1) write(`R${index}`);
    run();
    await eventually(() => expect(written).toHaveLength(6));
    const [third = 0, fourth = 0, , sixth = 0] = atMs.slice(2);
    expect(fourth - third).toBeGreaterThan(50);
    expect(sixth - fourth).toBeGreaterThan(250);
  });

  it('sends what waits when it is stopped', async () => {
    const { write, run, lost } = open();
    run();
    stop.abort();
    for (const reason of ['A', 'B']) write(reason);
    await running;
    expect([reasons(), lost]).toEqual([['A', 'B'], []]);
  });

  it.each([
    ['does not answer', () => undefined],
    ['is in trouble', (_: unknown, response: ServerResponse) => status(response, { code: 503 })],
  ])('stops in time when the API %s, and says what was not written', async (_, spoil) => {
    const { write, run, lost } = open({ timeoutMs: 60_000 });
    fault = spoil;
    for (const reason of ['A', 'B', 'C']) write(reason);
    run();
    await eventually(() => expect(calls.length).toBeGreaterThan(0));
    stop.abort();
    await running;
    expect(lost).toEqual([
      ['A', 'stopped'],
      ['B', 'stopped'],
      ['C', 'stopped'],
    ]);
  });
});
