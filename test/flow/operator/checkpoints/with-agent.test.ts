import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { SnapshotError } from '../../../../agent/errors.ts';
import { LABELS } from '../../../../contract/keys.ts';
import { newAgentPodCache } from '../../../../operator/agents/agent-pod.ts';
import { newAgents } from '../../../../operator/agents/agents.ts';
import { type Connections, newConnections } from '../../../../operator/agents/connections.ts';
import { WORKER } from '../../../fakes/agent-service.ts';
import { type Authority, makeAuthority } from '../../grpc/certificates.ts';
import { artifactOf, type Started, startEndpoint } from '../../grpc/endpoint.ts';
import { eventually } from '../../kube/server.ts';
import { useCheckpoints } from './stage.ts';

/* The operator with agents that are called: their gRPC server over mutual TLS, with a fake of what is behind it. */

const { stage, run, start, apply, statusOf, condition, declare, startPod, complete } = useCheckpoints();
/** As the fake of the agent calls all checkpoints. */
const ID = 'ckpt';
const KEY = `demo/checkpoint-job-${ID}-1`;
const POD = `checkpoint-job-${ID}-1-abcde`;

let work: string;
let authority: Authority;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'with-agent-'));
  authority = await makeAuthority(work, 'ours');
});
afterAll(() => rm(work, { recursive: true }));

let agent: Started;
let connections: Connections;
beforeEach(async () => {
  const [server, client] = [await authority.issue('snapshot-agent'), await authority.issue('snapshot-operator')];
  const tcp = {
    ...{ address: '127.0.0.1:0', certificateFile: server.certFile, keyFile: server.keyFile },
    clientCaFile: authority.file,
  };
  const clients = () => [{ name: 'snapshot-operator', namespaces: ['*'] }];
  agent = await startEndpoint({ tcp, clients }, await mkdtemp(join(work, 'agent-')));
  agent.fake.containers.set('cccc', { ...WORKER, namespace: 'demo', pod: POD, containerId: 'cccc' });
  stage.api.put({
    ...{
      kind: 'Pod',
      metadata: { name: 'agent-1', namespace: 'demo', labels: { 'app.kubernetes.io/component': 'snapshot-agent' } },
    },
    spec: { nodeName: 'node-1', containers: [{ name: 'agent', image: 'agent' }] },
  });
  stage.api.patch('pods', 'demo/agent-1', { status: { phase: 'Running', podIP: '127.0.0.1' } });
  const parts = { client: stage.client, log: stage.log.log, metrics: stage.metrics };
  const pods = newAgentPodCache({ ...parts, path: '/api/v1/pods' });
  run((signal) => pods.run(signal));
  const files = { caFile: authority.file, certificateFile: client.certFile, keyFile: client.keyFile };
  const port = Number(agent.endpoint.addresses.tcp?.split(':').at(-1));
  connections = newConnections({ config: { ...files, port, serverName: 'snapshot-agent' }, pods });
  start({ agents: newAgents({ pods, connections, log: parts.log }) });
  apply('qwen', { metadata: { labels: { [LABELS.checkpointId]: ID } } });
  await eventually(() => expect(statusOf().phase).toBe('Creating'));
  startPod(KEY);
  stage.api.patch('pods', `demo/${POD}`, { spec: { nodeName: 'node-1' } });
});
afterEach(async () => {
  stage.stop.abort();
  await Promise.all(stage.running);
  connections.close();
  await agent.stop();
});

/** The agent begins, and is half through the dump. */
async function dump() {
  const start = { request_id: 'r', target: { container_id: 'cccc' }, checkpoint_id: ID, version: '1' };
  const { name } = await agent.local.ask('Checkpoint', start);
  return agent.fake.handle(name);
}

it('says what the agent says, and is verified by it', async () => {
  const handle = await dump();
  handle.started();
  handle.step('criu-dump', 'undone');
  handle.progress(2 ** 30, 2 ** 31);
  await eventually(() => expect(statusOf().message).toMatch(/^criu-dump 50% of 2\.0 GiB/));
  agent.fake.end(handle.view.id);
  agent.fake.artifacts.set(`${ID}/1`, artifactOf('demo', ID));
  declare('completed', KEY);
  complete(KEY);
  await eventually(() => expect(statusOf()).toMatchObject({ phase: 'Ready', message: '' }));
  expect(condition('ArtifactVerified')).toMatchObject({ status: 'True' });
});

it('is Failed where the artifact is corrupt', async () => {
  const problem = new SnapshotError('ARTIFACT_CORRUPT', 'bulk.pages is too short');
  agent.fake.artifacts.set(`${ID}/1`, artifactOf('demo', ID, { problem }));
  declare('completed', KEY);
  complete(KEY);
  await eventually(() => expect(statusOf().phase).toBe('Failed'));
  expect(statusOf().message).toContain('bulk.pages is too short');
});

it('goes by the annotation where the agent is gone in the middle', async () => {
  const handle = await dump();
  handle.started();
  handle.step('criu-dump', 'undone');
  await eventually(() => expect(statusOf().message).toBe('criu-dump'));
  await agent.endpoint.close();
  await eventually(() => expect(statusOf().message).toContain('its worker loads'));
  declare('completed', KEY);
  complete(KEY);
  await eventually(() => expect(statusOf().phase).toBe('Ready'));
  expect(condition('ArtifactVerified')).toMatchObject({ status: 'Unknown', reason: 'NotAsked' });
});
