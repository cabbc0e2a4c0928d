import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { MAX_RECORD_KEYS } from '../../contract/record-key.ts';
import { type Json, type KubeApi, type Role, serverError, startKubeApi, WRITES } from '../fakes/kube-api/server.ts';
import { askedFor, grantsOf } from '../fakes/kube-api/shipped-roles.ts';
import { newCredentialsRuns, SECRETS } from './credentials/runs.ts';

const HOUR = 3_600_000;

let api: KubeApi;
let home: string;
let runs: Awaited<ReturnType<typeof newCredentialsRuns>>;
beforeEach(async () => {
  api = await startKubeApi();
  home = await mkdtemp(join(tmpdir(), 'credentials-'));
  runs = await newCredentialsRuns(api, home);
});
afterEach(async () => {
  runs.close();
  await api.close();
  await rm(home, { recursive: true, force: true });
});

const versions = () => api.list('secrets').map(({ metadata }) => metadata.resourceVersion);
const keysIn = () => Object.keys(runs.data('snapshot-record-key')).sort();

describe('snapshotctl credentials ensure', () => {
  it('makes four Secrets, and writes nothing the second time', async () => {
    const first = await runs.command();
    expect(first).toMatchObject({ status: 0, err: '' });
    expect(
      first.out
        .trimEnd()
        .split('\n')
        .map((line) => line.replace(/,.*/, '')),
    ).toEqual(SECRETS.map((name) => `${name}: made`));
    expect(api.list('secrets').map(({ metadata, ['type']: type }) => [metadata.name, type])).toEqual([
      ['snapshot-agent-tls', 'kubernetes.io/tls'],
      ['snapshot-ca', 'Opaque'],
      ['snapshot-operator-tls', 'kubernetes.io/tls'],
      ['snapshot-record-key', 'Opaque'],
    ]);
    const before = versions();
    const second = await runs.command('-o', 'json');
    expect(JSON.parse(second.out)).toMatchObject({
      secrets: SECRETS.map((secret) => ({ secret, state: 'unchanged' })),
    });
    expect(versions()).toEqual(before);
  });

  it('asks which clock was wrong where a certificate begins later than now, and changes nothing by a clock that lags', async () => {
    const now = Date.now();
    await runs.at(now);
    const before = versions();
    const message =
      /^Secret snapshot-ca has a certificate that begins at .*, and it is 1970-.* here: one clock was wrong/;
    await expect(runs.at(0)).rejects.toThrow(message);
    expect(versions()).toEqual(before);
    // By a clock that runs ahead everything has run out.
    await runs.at(now + 20 * 365 * 24 * HOUR);
    await expect(runs.at(now)).rejects.toThrow(/^Secret snapshot-ca has a certificate that begins at 20/);
    api.remove('secrets', 'demo/snapshot-ca');
    expect((await runs.at(now)).map(({ secret, state }) => `${secret}: ${state}`)).toEqual([
      'snapshot-record-key: unchanged',
      'snapshot-ca: made',
      'snapshot-agent-tls: rotated',
      'snapshot-operator-tls: rotated',
    ]);
  });

  it('keeps every private key to the Secrets, whatever it does', async () => {
    const said: string[] = [];
    for (const more of [
      [],
      ['--rotate', 'ca'],
      ['--rotate', 'record-key', '-o', 'json'],
      ['--rotate', 'certificates'],
    ]) {
      const { out, err, status } = await runs.command(...more);
      expect(status).toBe(0);
      said.push(out, err);
    }
    const text = said.join('');
    expect(text).not.toContain('PRIVATE');
    const secret = SECRETS.flatMap((name) => Object.entries(runs.data(name))).filter(([file]) => file.endsWith('.key'));
    expect(secret).toHaveLength(6);
    for (const [, content] of secret) {
      const [, longest = ''] = content.trim().split('\n');
      expect(text).not.toContain(longest || content.trim());
      expect(text).not.toContain(Buffer.from(content).toString('base64').slice(0, 40));
    }
  });

  it('gives the Secrets their labels, those that are there already too, and keeps those of others', async () => {
    await runs.command();
    api.patch('secrets', 'demo/snapshot-ca', { metadata: { labels: { theirs: 'x' }, annotations: { note: 'y' } } });
    await runs.command('--labels', 'a=b', '--labels', 'app.kubernetes.io/part-of=snapshot');
    for (const { metadata } of api.list('secrets'))
      expect(metadata.labels).toMatchObject({ a: 'b', 'app.kubernetes.io/part-of': 'snapshot' });
    expect(api.get('secrets', 'demo/snapshot-ca')?.metadata).toMatchObject({
      labels: { theirs: 'x' },
      annotations: { note: 'y' },
    });
    const before = versions();
    await runs.command('--labels', 'a=b');
    expect(versions()).toEqual(before);
  });

  it.each<[readonly string[], RegExp]>([
    [['--tls'], /--tls needs --ca-secret/],
    [[], /name --record-key-secret, or --tls/],
    [['--record-key-secret', 'a', '--rotate', 'ca'], /--rotate ca needs --tls/],
    [['--record-key-secret', 'A_b'], /"A_b" cannot be the name/],
    [['--record-key-secret', 'a', '--record-key-days', '1.5'], /whole number/],
    [['--record-key-secret', 'a', '--server-name', 'two words'], /DNS name/],
    [['--record-key-secret', 'a', '--labels', 'nothing'], /key=value/],
    [['--record-key-secret', 'a', '--rotate', 'all'], /Allowed choices are record-key, ca, certificates/],
    [['--tls', '--ca-secret', 'a', '--agent-tls-secret', 'a', '--operator-tls-secret', 'b'], /a name of its own/],
    [
      ['--tls', '--ca-secret', 'a', '--agent-tls-secret', 'b', '--operator-tls-secret', 'c', '--ca-days', '269'],
      /at least three times --certificate-days, 270/,
    ],
  ])('refuses %j before it asks the server', async (args, why) => {
    const { status, err } = await runs.bare(...args);
    expect(status).toBe(2);
    expect(err).toMatch(why);
    expect(api.calls()).toEqual([]);
  });
});

describe('with the rights of docs/credentials.md', () => {
  it('does all that it does, and each of them is needed', async () => {
    const page = await readFile(resolve(import.meta.dirname, '../../docs/credentials.md'), 'utf8');
    const [, yaml = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? [];
    const role = parse(yaml) as Role;
    api.setRoles([{ ...role, metadata: { namespace: 'demo' } }]);
    for (const more of [[], ['--rotate', 'ca'], ['--rotate', 'record-key'], ['--rotate', 'certificates']])
      expect(await runs.command(...more)).toMatchObject({ status: 0 });
    expect(askedFor(api.calls())).toEqual(grantsOf([role]));
    const foreign = await runs.bare('--record-key-secret', 'somebody-elses');
    expect(foreign).toMatchObject({
      status: 1,
      err: expect.stringMatching(/somebody-elses.*403 Forbidden.*docs\/credentials\.md/),
    });
  });
});

describe('several runs at once', () => {
  it('agree on one set of credentials', async () => {
    const all = await Promise.all(Array.from({ length: 6 }, () => runs.at(Date.now())));
    const made = all
      .flat()
      .filter(({ state }) => state === 'made')
      .map(({ secret }) => secret);
    expect(made.sort()).toEqual([...SECRETS].sort());
    runs.requireChain();
    expect(keysIn()).toEqual(['record.key']);
  });

  it('make one change of each thing, also where all are asked for it', async () => {
    const began = Date.now() - 3 * HOUR;
    await runs.at(began);
    await Promise.all(Array.from({ length: 4 }, () => runs.at(began + HOUR, { rotate: 'all' })));
    expect(Object.keys(runs.data('snapshot-ca')).sort()).toEqual(['ca.crt', 'ca.key', 'next.crt', 'next.key']);
    expect(keysIn()).toHaveLength(2);
    await Promise.all(Array.from({ length: 4 }, () => runs.at(began + 2 * HOUR)));
    expect(Object.keys(runs.data('snapshot-ca')).sort()).toEqual(['ca.crt', 'ca.key', 'previous.crt']);
    expect(keysIn()).toEqual([expect.stringMatching(/^previous-/), 'record.key']);
    runs.requireChain();
  });

  it('give up where a Secret changes all the time', async () => {
    await runs.at(Date.now());
    const stop = api.onCall(({ verb }) => {
      if (verb === 'update')
        api.patch('secrets', 'demo/snapshot-record-key', { metadata: { annotations: { at: String(Math.random()) } } });
    });
    await expect(runs.at(Date.now(), { rotate: 'all' })).rejects.toThrow(/snapshot-record-key changes all the time/);
    stop();
  });
});

describe('where things fail', () => {
  it.each(['request', 'answer'] as const)(
    'goes on after a connection that broke at the %s of a write, and makes nothing twice',
    async (at) => {
      api.fault({ verb: WRITES }, { kind: 'reset', at }, { times: 2 });
      const reports = await runs.at(Date.now());
      expect(reports.map(({ state }) => state)).toEqual(['made', 'made', 'made', 'made']);
      runs.requireChain();
      expect(api.calls({ verb: 'update' })).toEqual([]);
    },
  );

  it('reads again while the server has its troubles, and says after a while that it cannot be reached', async () => {
    const fault = api.fault({ verb: 'get' }, serverError(), { times: 3 });
    expect(await runs.at(Date.now())).toHaveLength(4);
    fault.lift();
    api.fault({}, serverError());
    await expect(runs.at(Date.now())).rejects.toMatchObject({
      exit: 'unreachable',
      message: expect.stringMatching(/read Secret snapshot-record-key/),
    });
  });

  it('goes on after a run that was killed between any two writes', async () => {
    for (let writes = 0; writes < 4; writes += 1) {
      const gate = api.gate({ verb: WRITES }, 'request');
      const stop = new AbortController();
      const killed = runs.at(Date.now(), { signal: stop.signal }).catch(() => undefined);
      for (let n = 0; n < writes; n += 1) (await gate.next()).release();
      (await gate.next()).drop();
      stop.abort();
      gate.open();
      await killed;
      expect(await runs.at(Date.now())).toHaveLength(4);
      runs.requireChain();
      for (const name of SECRETS) api.remove('secrets', `demo/${name}`);
    }
  });

  it('leaves a Secret that it does not understand, and looks after the rest', async () => {
    const data = { password: Buffer.from('hunter2').toString('base64') };
    api.put({
      kind: 'Secret',
      metadata: { name: 'snapshot-record-key', namespace: 'demo' },
      data,
    } as unknown as Parameters<KubeApi['put']>[0]);
    const { status, out, err } = await runs.command();
    expect(status).toBe(3);
    expect(err).toMatch(
      /^snapshotctl: Secret snapshot-record-key holds password, which is no record key: nothing was changed/,
    );
    expect(err).not.toContain('hunter2');
    expect(out.split('\n')).toHaveLength(4);
    expect((api.get('secrets', 'demo/snapshot-record-key') as unknown as Json)['data']).toEqual(data);
    runs.requireChain();
  });

  it('does not change an immutable Secret', async () => {
    await runs.at(Date.now());
    api.patch('secrets', 'demo/snapshot-record-key', { immutable: true });
    await expect(runs.at(Date.now(), { rotate: 'all' })).rejects.toThrow(/snapshot-record-key is immutable/);
  });

  it('says nothing of what the server says about a write: it may repeat all of it', async () => {
    const { out, err, status } = await runs.command('--labels', 'bad label=PRIVATE');
    expect(status).toBe(1);
    expect(out).toBe('');
    expect(err).toMatch(/cannot write Secret snapshot-record-key in namespace demo: 422 Invalid \(metadata\.labels\)/);
    expect(err).not.toContain('PRIVATE');
  });
});

describe('record keys in their Secret', () => {
  it('come one after the other, in an order that is kept, until there is no room', async () => {
    let now = Date.now() - 1000 * 24 * HOUR;
    const ids: string[] = [];
    const turn = async (forgetOldest = false) => {
      await runs.at(now + HOUR, { rotate: 'record-key', forgetOldest });
      await runs.at(now + 2 * HOUR);
      now += 2 * HOUR;
      ids.push(runs.signing());
    };
    await runs.at(now);
    ids.push(runs.signing());
    for (let n = 1; n < MAX_RECORD_KEYS; n += 1) await turn();
    expect(new Set(ids).size).toBe(MAX_RECORD_KEYS);
    expect(runs.note('snapshot-record-key', 'previousKeys')).toBe(ids.slice(0, -1).join(','));
    await expect(turn()).rejects.toMatchObject({
      exit: 'refused',
      message: expect.stringContaining(`takes key ${ids[0]} away`),
    });
    expect(keysIn()).toHaveLength(MAX_RECORD_KEYS);
    await turn(true);
    expect(keysIn()).toHaveLength(MAX_RECORD_KEYS);
    expect(keysIn()).not.toContain(`previous-${ids[0]}.key`);
    expect(keysIn()).toContain(`previous-${ids[1]}.key`);
  });
});
