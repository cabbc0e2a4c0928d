import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadRecordKeys } from '../../agent/store/key.ts';
import { followRecordKeys, type LiveRecordKeys } from '../../agent/store/key-following.ts';
import { artifactState } from '../../agent/store/verify.ts';
import { until } from '../fakes/cri-server.ts';
import { type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';
import { memoryLog } from '../fakes/log.ts';
import { type MountedSecret, mountSecret } from '../fakes/mounted-secret.ts';
import { makeArtifact, makeVolume } from '../unit/store/volume.ts';
import { newCredentialsRuns } from './credentials/runs.ts';
import { connectTo, failureOf, type TestClient } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

const HOUR = 3_600_000;

let api: KubeApi;
let home: string;
let runs: Awaited<ReturnType<typeof newCredentialsRuns>>;
beforeEach(async () => {
  api = await startKubeApi();
  home = await mkdtemp(join(tmpdir(), 'rotation-'));
  runs = await newCredentialsRuns(api, home);
});
afterEach(async () => {
  runs.close();
  await api.close();
  await rm(home, { recursive: true, force: true });
});

describe('a change of the authority', () => {
  let agent: Started;
  let mounted: MountedSecret;
  /** What the operator has read last. */
  let operator: Record<string, string>;
  const open: TestClient[] = [];
  afterEach(async () => {
    for (const client of open.splice(0)) client.close();
    await agent.stop();
  });

  async function startAgent(): Promise<void> {
    mounted = await mountSecret(join(home, 'agent-tls'), runs.data('snapshot-agent-tls'));
    const file = (name: string) => join(mounted.path, name);
    const files = { certificateFile: file('tls.crt'), keyFile: file('tls.key'), clientCaFile: file('ca.crt') };
    const clients = [{ name: 'snapshot-operator', namespaces: ['*'] }];
    const tcp = { ...files, address: '127.0.0.1:0', certificatesEveryMs: 5 };
    agent = await startEndpoint({ tcp, clients: () => clients });
    operator = runs.data('snapshot-operator-tls');
  }

  /** A connection of its own, with the credentials as the operator has them now. */
  function connect(files = operator): TestClient {
    const bytes = (name: string) => Buffer.from(files[name] ?? '');
    const creds = credentials.createSsl(bytes('ca.crt'), bytes('tls.key'), bytes('tls.crt'));
    const port = agent.endpoint.addresses.tcp?.split(':').at(-1);
    const names = { 'grpc.ssl_target_name_override': 'snapshot-agent', 'grpc.default_authority': 'snapshot-agent' };
    const client = connectTo(`127.0.0.1:${port}`, creds, { ...names, 'grpc.use_local_subchannel_pool': 1 });
    open.push(client);
    return client;
  }

  const CHANGED = 'the server certificate or the client authorities changed';

  /** Kubelet brings the Secret to the agent, which takes it. */
  async function deliverToAgent(): Promise<void> {
    const before = agent.lines.filter(({ msg }) => msg === CHANGED).length;
    await mounted.swap(runs.data('snapshot-agent-tls'));
    await until(() => agent.lines.filter(({ msg }) => msg === CHANGED).length > before, 'the agent takes the Secret');
  }
  function deliverToOperator(): Promise<void> {
    operator = runs.data('snapshot-operator-tls');
    return Promise.resolve();
  }

  it.each([
    ['the agents first', [deliverToAgent, deliverToOperator]],
    ['the operator first', [deliverToOperator, deliverToAgent]],
  ])('fails no call, where kubelet reaches %s', async (_, deliveries) => {
    // In such a way that all certificates are good now, whatever time the runs believe it is.
    const now = Date.now();
    await runs.at(now - 3 * HOUR, { certificateDays: 1 });
    const first = runs.data('snapshot-operator-tls');
    await startAgent();
    const lasting = connect();
    const served: string[] = [];
    const call = async (stage: string) => {
      expect((await connect().ask('GetNodeInfo')).node).toBe('node-a');
      expect((await lasting.ask('GetNodeInfo')).node).toBe('node-a');
      served.push(stage);
    };
    const stage = async (name: string, run: () => Promise<unknown>) => {
      await run();
      await call(`${name}, written`);
      for (const deliver of deliveries) {
        await deliver();
        await call(`${name}, delivered`);
      }
    };
    await call('the beginning');
    await stage('next', () => runs.at(now - 2 * HOUR, { rotate: 'ca' }));
    await stage('promoted', () => runs.at(now - HOUR));
    await stage('dropped', () => runs.at(now + 22 * HOUR));
    expect(served).toHaveLength(10);
    expect(runs.data('snapshot-agent-tls')['ca.crt']?.match(/BEGIN/g)).toHaveLength(1);
    // The last thing that the former authority signed is good for another moment, and is nobody any more.
    expect(
      (await failureOf(connect({ ...operator, ...only(first, 'tls.crt', 'tls.key') }).ask('GetNodeInfo'))).code,
    ).toBe(14);
  });

  it('would fail calls where the next authority signed before everybody trusts it', async () => {
    const now = Date.now();
    await runs.at(now - 3 * HOUR);
    await startAgent();
    await runs.at(now - 2 * HOUR, { rotate: 'ca' });
    await runs.at(now - HOUR);
    // Neither delivery of the first run came in that hour.
    await deliverToOperator();
    expect((await failureOf(connect().ask('GetNodeInfo'))).code).toBe(14);
  });
});

function only(files: Record<string, string>, ...names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, files[name] ?? '']));
}

describe('a change of the record key', () => {
  const agents: { readonly keys: LiveRecordKeys; readonly secret: MountedSecret }[] = [];
  let volume: Awaited<ReturnType<typeof makeVolume>>;
  beforeEach(async () => {
    volume = await makeVolume();
  });
  afterEach(async () => {
    for (const { keys } of agents.splice(0)) keys.stop();
    await volume.remove();
  });

  async function startAgent(name: string) {
    const secret = await mountSecret(join(home, name), runs.data('snapshot-record-key'));
    const files = { path: join(secret.path, 'record.key'), acceptedDirectory: secret.path, create: false };
    const { log, said } = memoryLog();
    const keys = followRecordKeys(files, { first: await loadRecordKeys(files), log, everyMs: 5 });
    const deliver = async () => {
      const before = said('the record keys changed').length;
      await secret.swap(runs.data('snapshot-record-key'));
      await until(() => said('the record keys changed').length > before, `${name} takes the Secret`);
    };
    agents.push({ keys, secret });
    return { name, keys, deliver };
  }

  it.each([
    ['one agent', false],
    ['the other agent', true],
  ])(
    'leaves every artifact good for every agent at every stage, where kubelet reaches %s first',
    async (_, isReversed) => {
      const began = Date.now();
      await runs.at(began);
      const both = [await startAgent('a'), await startAgent('b')];
      const published: { readonly id: string; readonly by: string }[] = [];
      /** Each publishes, and each verifies all that there is. */
      const look = async () => {
        for (const { name, keys } of both) {
          const id = `${name}-${published.length}`;
          await makeArtifact(volume, { id, keys: keys.current() });
          published.push({ id, by: keys.current().current.id });
        }
        for (const { keys } of both)
          for (const { id, by } of published)
            expect(await artifactState(volume, { id, version: '1', keys: keys.current() })).toMatchObject({
              state: 'complete',
              artifact: { key: { id: by } },
            });
      };
      const order = isReversed ? [...both].reverse() : both;
      const stage = async (run: () => Promise<unknown>) => {
        await run();
        await look();
        for (const { deliver } of order) {
          await deliver();
          await look();
        }
      };
      await look();
      await stage(() => runs.at(began + HOUR, { rotate: 'record-key' }));
      await stage(() => runs.at(began + 2 * HOUR));
      await stage(() => runs.at(began + 3 * HOUR, { rotate: 'record-key' }));
      await stage(() => runs.at(began + 4 * HOUR));
      // Both keys signed at the same time for a while, twice, and three keys signed in all.
      expect(new Set(published.map(({ by }) => by)).size).toBe(3);
      expect(published).toHaveLength(26);
    },
  );
});
