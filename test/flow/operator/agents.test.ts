import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { SnapshotError } from '../../../agent/errors.ts';
import { openAgentClient } from '../../../contract/agent-api/client.ts';
import { newAgentPodCache } from '../../../operator/agents/agent-pod.ts';
import { type Agents, newAgents } from '../../../operator/agents/agents.ts';
import { type Connections, newConnections } from '../../../operator/agents/connections.ts';
import { WORKER } from '../../fakes/agent-service.ts';
import { type Authority, makeAuthority } from '../grpc/certificates.ts';
import { artifactOf, type Started, startEndpoint } from '../grpc/endpoint.ts';
import { eventually } from '../kube/server.ts';
import { useControl } from './stage.ts';

const { stage, run } = useControl();
const signal = new AbortController().signal;
const NAMESPACE = WORKER.namespace;
const ARTIFACT = { namespace: NAMESPACE, checkpointId: 'ckpt', version: '1' };

let work: string;
let authority: Authority;
let other: Authority;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'agents-'));
  [authority, other] = await Promise.all([makeAuthority(work, 'ours'), makeAuthority(work, 'others')]);
});
afterAll(() => rm(work, { recursive: true }));

let agent: Started;
let agents: Agents;
let connections: Connections;
let files: { caFile: string; certificateFile: string; keyFile: string };
/** How many clients were made, and how many are open. */
let made: { count: number; open: number };

beforeEach(async () => {
  const server = await authority.issue('snapshot-agent');
  const home = await mkdtemp(join(work, 'agent-'));
  agent = await startEndpoint(
    {
      tcp: {
        ...{ address: '127.0.0.1:0', certificateFile: server.certFile, keyFile: server.keyFile },
        ...{ clientCaFile: authority.file, certificatesEveryMs: 20 },
      },
      clients: () => [{ name: 'snapshot-operator', namespaces: ['*'] }],
    },
    home,
  );
  files = {
    caFile: join(home, 'ca.crt'),
    certificateFile: join(home, 'tls.crt'),
    keyFile: join(home, 'tls.key'),
  };
  await provide(authority);
  const pods = podCache();
  made = { count: 0, open: 0 };
  const port = Number(agent.endpoint.addresses.tcp?.split(':').at(-1));
  connections = newConnections({
    config: { ...files, port, serverName: 'snapshot-agent' },
    pods,
    connect: (address) => {
      const opened = openAgentClient(address);
      made.count += 1;
      made.open += 1;
      const close = () => {
        made.open -= 1;
        opened.close();
      };
      return { ...opened, close };
    },
  });
  agents = newAgents({ pods, connections, log: stage.log.log });
  putAgent();
  await eventually(() => expect([...pods.all()]).toHaveLength(1));
});
afterEach(async () => {
  connections.close();
  expect(made.open).toBe(0);
  await agent.stop();
});

async function provide(from: Authority): Promise<void> {
  const issued = await from.issue('snapshot-operator');
  await copyFile(authority.file, files.caFile);
  await copyFile(issued.certFile, files.certificateFile);
  await copyFile(issued.keyFile, files.keyFile);
}

function putAgent({ name = 'agent-1', namespace = 'system', ip = '127.0.0.1' } = {}): void {
  stage.api.put({
    ...{ kind: 'Pod', metadata: { name, namespace, labels: { 'app.kubernetes.io/component': 'snapshot-agent' } } },
    spec: { nodeName: 'node-1', containers: [{ name: 'agent', image: 'agent' }] },
  });
  stage.api.patch('pods', `${namespace}/${name}`, {
    status: { phase: 'Running', podIP: ip, conditions: [{ type: 'Ready', status: 'True' }] },
  });
}

function podCache() {
  const { client, log, metrics } = stage;
  const pods = newAgentPodCache({ client, log: log.log, metrics, path: '/api/v1/pods' });
  run((until) => pods.run(until));
  return pods;
}

/** A checkpoint that the agent is at work on. */
async function atWork() {
  const operation = await agent.local.ask('Checkpoint', {
    ...{ request_id: 'r1', target: { container_id: WORKER.containerId }, checkpoint_id: 'ckpt', version: '1' },
  });
  return agent.fake.handle(operation.name);
}

describe('agents that can be asked', () => {
  it('say how far a checkpoint is, over mutual TLS at the address of their pod', async () => {
    const handle = await atWork();
    handle.started();
    handle.step('criu-dump', 'undone');
    handle.progress(3 * 2 ** 30, 12 * 2 ** 30);
    const said = await agents.progressOf(NAMESPACE, 'ckpt', { node: 'node-1', signal });
    expect(said).toMatch(/^criu-dump 25% of 12\.0 GiB(, [\d.]+ GB\/s)?$/);
    expect(agent.audit().at(-1)).toMatchObject({ caller: 'snapshot-operator' });
  });

  it('are asked by one connection each, which goes with their pod', async () => {
    await agents.artifact(ARTIFACT, { signal });
    await agents.artifact(ARTIFACT, { signal });
    expect(made).toEqual({ count: 1, open: 1 });
    stage.api.remove('pods', 'system/agent-1');
    await eventually(() => expect(made.open).toBe(0));
  });

  it('are asked with new certificates as soon as there are any', async () => {
    await provide(other);
    expect(await agents.artifact(ARTIFACT, { signal })).toMatchObject({ result: 'unknown' });
    await provide(authority);
    expect(await agents.artifact(ARTIFACT, { signal })).toEqual({ result: 'absent' });
    expect(made).toEqual({ count: 2, open: 1 });
  });

  it('say whether an artifact is complete', async () => {
    expect(await agents.artifact(ARTIFACT, { signal })).toEqual({ result: 'absent' });
    agent.fake.artifacts.set('ckpt/1', artifactOf(NAMESPACE, 'ckpt'));
    expect(await agents.artifact(ARTIFACT, { node: 'node-1', signal })).toEqual({ result: 'complete' });
    const problem = new SnapshotError('ARTIFACT_CORRUPT', 'bulk.pages is too short');
    agent.fake.artifacts.set('ckpt/1', artifactOf(NAMESPACE, 'ckpt', { problem }));
    expect(await agents.artifact(ARTIFACT, { signal })).toMatchObject({
      ...{ result: 'broken', problem: expect.stringContaining('bulk.pages is too short') },
    });
  });

  it('list the versions of a checkpoint', async () => {
    expect(await agents.versions(NAMESPACE, 'ckpt', { signal })).toEqual({ result: 'listed', versions: [] });
    for (const [id, version] of [
      ['ckpt', '1'],
      ['ckpt', '2'],
      ['other', '1'],
    ] as const)
      agent.fake.artifacts.set(`${id}/${version}`, { ...artifactOf(NAMESPACE, id), version });
    expect(await agents.versions(NAMESPACE, 'ckpt', { signal })).toEqual({ result: 'listed', versions: ['1', '2'] });
    expect(await agents.versions(NAMESPACE, 'ckpt', { node: 'node-9', signal })).toMatchObject({ result: 'unknown' });
  });

  it('delete an artifact, unless it is read or not there', async () => {
    const asking = { signal, waitSeconds: 0 };
    expect(await agents.deleteArtifact(ARTIFACT, asking)).toEqual({ result: 'absent' });
    agent.fake.artifacts.set('ckpt/1', artifactOf(NAMESPACE, 'ckpt'));
    agent.fake.failures.set('deleteArtifact', new SnapshotError('ARTIFACT_BUSY', 'op-1 reads it'));
    expect(await agents.deleteArtifact(ARTIFACT, asking)).toMatchObject({ result: 'in-use' });
    expect(await agents.deleteArtifact(ARTIFACT, asking)).toEqual({ result: 'deleted' });
    expect(agent.fake.artifacts.size).toBe(0);
  });

  it('delete nothing that another namespace made under the same id', async () => {
    agent.fake.artifacts.set('ckpt/1', artifactOf('team-b', 'ckpt'));
    expect(await agents.deleteArtifact(ARTIFACT, { signal, waitSeconds: 0 })).toEqual({ result: 'absent' });
    expect(agent.fake.artifacts.size).toBe(1);
  });

  it('of the namespace itself are asked, and no others, where there are any', async () => {
    putAgent({ name: 'own', namespace: NAMESPACE, ip: '127.0.0.9' });
    await vi.waitFor(async () =>
      expect(await agents.artifact(ARTIFACT, { node: 'node-1', signal })).toMatchObject({
        ...{ result: 'unknown', why: expect.stringContaining(`agent ${NAMESPACE}/own: `) },
      }),
    );
  });
});

it('are those beside the operator, whoever else gives pods the label of agents', async () => {
  for (const index of [1, 2, 3]) putAgent({ name: `a-${index}`, namespace: 'another', ip: '127.0.0.9' });
  const pods = podCache();
  await eventually(() => expect([...pods.all()]).toHaveLength(4));
  const asking = newAgents({ pods, connections, log: stage.log.log, home: 'system' });
  expect(await asking.artifact(ARTIFACT, { node: 'node-1', signal })).toEqual({ result: 'absent' });
});

describe('agents that cannot', () => {
  it.each<[string, () => Promise<{ node?: string }>, string]>([
    ['there is none on the node', () => Promise.resolve({ node: 'node-9' }), 'there is no agent on node node-9'],
    [
      'the certificates are not there',
      async () => {
        await rm(files.caFile);
        return {};
      },
      'ENOENT',
    ],
    [
      'it does not reach the volume',
      () => {
        const failure = new SnapshotError('STORAGE_NOT_ATTACHED', 'no pod has it');
        agent.fake.failures.set('getArtifact', failure);
        return Promise.resolve({});
      },
      'no pod has it',
    ],
    [
      'it is gone',
      async () => {
        await agent.endpoint.close();
        return {};
      },
      'agent system/agent-1',
    ],
  ])('are no error: %s', async (_, spoil, why) => {
    const asking = await spoil();
    expect(await agents.artifact(ARTIFACT, { ...asking, signal })).toEqual({
      ...{ result: 'unknown', why: expect.stringContaining(why) },
    });
    expect(await agents.progressOf(NAMESPACE, 'ckpt', { node: 'node-1', ...asking, signal })).toBeUndefined();
  });

  it('end with the signal of who asks', async () => {
    const stop = new AbortController();
    agent.fake.holds.set('getArtifact', new Promise(() => undefined));
    const asked = agents.artifact(ARTIFACT, { signal: stop.signal });
    await eventually(() => expect(agent.fake.calls.map(({ method }) => method)).toContain('getArtifact'));
    stop.abort(new Error('enough'));
    await expect(asked).rejects.toThrow('enough');
  });

  it('are given up after a while, each time in the same words, as Events are made of them', async () => {
    agent.fake.holds.set('getArtifact', new Promise(() => undefined));
    const impatient = newAgents({ pods: podsNow(), connections, log: stage.log.log, deadlineMs: 50 });
    const why = 'agent system/agent-1: it gave no answer in time';
    expect(await impatient.artifact(ARTIFACT, { signal })).toEqual({ result: 'unknown', why });
  });

  it('are called unreachable in words that have no time', async () => {
    await agent.endpoint.close();
    const first = await agents.artifact(ARTIFACT, { signal });
    connections.close();
    expect(await agents.artifact(ARTIFACT, { signal })).toEqual(first);
    expect(JSON.stringify(first)).toContain('ECONNREFUSED');
    expect(JSON.stringify(first)).not.toMatch(/\d{2}:\d{2}:\d{2}/);
  });
});

/** The agent's pod, without a cache. */
function podsNow() {
  const { uid = '', resourceVersion = '' } = stage.api.get('pods', 'system/agent-1')?.metadata ?? {};
  const meta = { name: 'agent-1', namespace: 'system', uid, resourceVersion };
  const one = { key: 'system/agent-1', meta, value: { node: 'node-1', ip: '127.0.0.1', isReady: true } };
  return { all: () => [one], indexed: () => [one], subscribe: () => () => undefined, synced: () => Promise.resolve() };
}
