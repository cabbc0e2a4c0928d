import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { makeAuthority } from './grpc/certificates.ts';
import { eventually } from './grpc/client.ts';
import { artifactOf } from './grpc/endpoint.ts';
import { makeProgram, type Program } from './snapshotctl-agents/program.ts';
import { AGENT_POD, putAgent, type Stage, serveRelay, startStage } from './snapshotctl-agents/stage.ts';

let program: Program;
let stage: Stage;
beforeAll(async () => {
  program = await makeProgram();
});
afterAll(() => program.remove());
beforeEach(async () => {
  stage = await startStage(program);
  stage.started.fake.artifacts.set('one/1', artifactOf('team-a', 'one'));
});
afterEach(() => stage.stop());

const list = (...flags: string[]) => program.run(['list', ...flags, '-o', 'json']);
const ids = (out: string) =>
  JSON.parse(out).checkpoints.map(({ checkpointId }: { checkpointId: string }) => checkpointId);

describe('an agent', () => {
  it('is reached by its socket', async () => {
    const { code, out, err } = await list(...stage.socket);
    expect([code, ids(out), err]).toEqual([0, ['one'], '']);
  });

  it.each([[undefined], [['v4.channel.k8s.io']]])(
    'is reached through its pod, with the protocols %j, and nothing of the way is left',
    async (protocols) => {
      const { api, started } = stage;
      serveRelay(api, program, started.socketPath, protocols);
      const { code, out, err } = await list(...stage.cluster);
      expect([err, code, ids(out)]).toEqual(['', 0, ['one']]);
      const [exec] = api.calls({ subresource: 'exec' });
      expect(exec).toMatchObject({ verb: 'get', namespace: AGENT_POD.namespace, name: AGENT_POD.name, status: 101 });
      expect(exec?.query.getAll('command')).toEqual(['snapshotctl', 'relay']);
      await eventually(() => api.execs.length === 0);
    },
  );

  it('is reached through more bytes than fit into a buffer on the way, unharmed', async () => {
    const { fake } = stage.started;
    for (let index = 0; index < 1_500; index += 1) {
      const id = `many-${String(index).padStart(4, '0')}`;
      fake.artifacts.set(
        `${id}/1`,
        artifactOf('team-a', id, { readers: Array.from({ length: 20 }, (_, at) => `${id}-${at}`) }),
      );
    }
    const { code, out } = await list(...stage.cluster);
    expect([code, ids(out).length]).toEqual([0, 1_501]);
    expect(out).toContain('many-1499-19');
  });

  it('is reached by its address, with certificates and the name that all agents have', async () => {
    const authority = await makeAuthority(stage.directory, 'ca');
    const server = await authority.issue('snapshot-agent');
    const client = await authority.issue('someone');
    const files = { certificateFile: server.certFile, keyFile: server.keyFile, clientCaFile: authority.file };
    const tls = await startStage(program, {
      grpc: {
        tcp: { ...files, address: '127.0.0.1:0' },
        clients: () => [{ name: 'someone', namespaces: ['team-a'] }],
      },
    });
    try {
      tls.started.fake.artifacts.set('one/1', artifactOf('team-a', 'one'));
      const address = tls.started.endpoint.addresses.tcp ?? '';
      const flags = ['--address', address, '--ca', authority.file, '--cert', client.certFile, '--key', client.keyFile];
      expect(await list(...flags)).toMatchObject({ code: 0, out: expect.stringContaining('"one"') });
      const other = await list(...flags, '--server-name', 'somebody-else');
      expect(other).toMatchObject({ code: 5, err: expect.stringContaining('somebody-else') });
      const missing = await list('--address', address, '--ca', authority.file);
      expect(missing).toMatchObject({ code: 2, err: expect.stringContaining('--cert, --key') });
      const noPem = await list(...flags.slice(0, 3), join(stage.directory, 'nothing'), ...flags.slice(4));
      expect(noPem).toMatchObject({ code: 2, err: expect.stringContaining('cannot be read') });
    } finally {
      await tls.stop();
    }
  });

  it('is that of the node that is named, or any that is ready', async () => {
    putAgent(stage.api, { ...AGENT_POD, name: 'agent-of-b', node: 'node-b' }, { isReady: false });
    putAgent(stage.api, { ...AGENT_POD, name: 'agent-of-0', node: 'node-0' }, { isReady: false });
    expect(await list(...stage.cluster)).toMatchObject({ code: 0 });
    expect(stage.api.calls({ subresource: 'exec' }).map(({ name }) => name)).toEqual([AGENT_POD.name]);
    const unready = await list(...stage.cluster, '--node', 'node-b');
    expect(unready).toMatchObject({ code: 5, err: expect.stringContaining('snapshot/agent-of-b') });
    const none = await list(...stage.cluster, '--node', 'node-c');
    expect(none).toMatchObject({ code: 5, err: expect.stringContaining('node-0, node-a, node-b') });
  });
});

describe('where an agent cannot be reached, it is said why', () => {
  it('there are agents in several namespaces, or pods that say so', async () => {
    putAgent(stage.api, { ...AGENT_POD, namespace: 'a-tenant', name: 'no-agent', node: 'node-0' });
    const { code, err } = await list(...stage.cluster);
    const message =
      'there are agents in several namespaces: a-tenant, snapshot. Say whose is meant with --agent-namespace';
    expect([code, err]).toEqual([2, expect.stringContaining(message)]);
    expect(stage.api.calls({ subresource: 'exec' })).toEqual([]);
    expect(await list(...stage.cluster, '--agent-namespace', AGENT_POD.namespace)).toMatchObject({ code: 0 });
  });

  it('no pod of one', async () => {
    stage.api.remove('pods', `${AGENT_POD.namespace}/${AGENT_POD.name}`);
    const { code, err } = await list(...stage.cluster);
    expect([code, err]).toEqual([5, expect.stringContaining('there is no agent in any namespace')]);
    const there = await list(...stage.cluster, '--agent-namespace', 'elsewhere');
    expect(there.err).toContain('in namespace elsewhere');
  });

  it('pods may not be listed', async () => {
    const rules = [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }];
    stage.api.setRoles([{ kind: 'Role', metadata: { namespace: 'default' }, rules }]);
    const { code, err } = await list(...stage.cluster);
    expect([code, err]).toEqual([5, expect.stringMatching(/may not list pods in all namespaces.*--agent-namespace/s)]);
  });

  it('exec is not allowed', async () => {
    stage.api.setRoles([{ rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'list'] }] }]);
    const { code, err } = await list(...stage.cluster);
    expect(code).toBe(5);
    expect(err).toMatch(/RBAC rule for pods\/exec with the verbs "get" and "create" in namespace snapshot is missing/);
  });

  it.each([
    ['the runtime says so', { file: '/nonexistent/snapshotctl', args: [] }],
    ['a shell would', { file: 'sh', args: ['-c', 'exit 127'] }],
  ])('the image has no snapshotctl: %s', async (_, program_) => {
    stage.api.serveExec(() => program_);
    const { code, err } = await list(...stage.cluster);
    expect([code, err]).toEqual([
      5,
      expect.stringContaining('the image of agent pod snapshot/snapshot-agent-x7k2p has no snapshotctl'),
    ]);
  });

  it('the agent does not listen: the relay says so, from the other side', async () => {
    serveRelay(stage.api, program, '/nonexistent/agent.sock');
    const { code, err } = await list(...stage.cluster);
    expect(code).toBe(5);
    expect(err).toMatch(
      /the relay in agent pod .* failed: snapshotctl: cannot connect to the agent's socket \/nonexistent/,
    );
  });

  it('the connection breaks in the middle', async () => {
    const { api, started } = stage;
    started.fake.holds.set('listArtifacts', new Promise(() => undefined));
    const running = program.start(['list', ...stage.cluster]);
    await eventually(() => started.fake.calls.length > 0);
    api.resetConnections();
    const { code, err } = await running.ended;
    expect([code, err]).toEqual([
      5,
      expect.stringContaining('the connection to agent pod snapshot/snapshot-agent-x7k2p was lost'),
    ]);
    // The relay notices that nobody is there any more.
    await eventually(() => api.execs.length === 0);
  });

  it('nobody listens at the socket', async () => {
    const { code, err } = await list('--socket', '/nonexistent/agent.sock');
    expect([code, err]).toEqual([
      5,
      'snapshotctl: the agent does not answer: connect ENOENT /nonexistent/agent.sock\n',
    ]);
  });
});

it('lets nobody else use its tunnel, and removes it, also when it is interrupted', async () => {
  const { started, api, directory } = stage;
  started.fake.holds.set('listArtifacts', new Promise(() => undefined));
  const running = program.start(['list', ...stage.cluster], { env: { TMPDIR: directory } });
  await eventually(() => started.fake.calls.length > 0);
  const [name = ''] = (await readdir(directory)).filter((entry) => entry.startsWith('snapshotctl-'));
  expect((await stat(join(directory, name))).mode & 0o777).toBe(0o700);
  running.child.kill('SIGINT');
  expect(await running.ended).toMatchObject({ code: 130, err: 'snapshotctl: interrupted\n' });
  expect((await readdir(directory)).filter((entry) => entry.startsWith('snapshotctl-'))).toEqual([]);
  await eventually(() => api.execs.length === 0);
});

it('removes its tunnel where its reader has seen enough', async () => {
  const { started, directory } = stage;
  let release = (): void => undefined;
  started.fake.holds.set(
    'listArtifacts',
    new Promise((resolve) => {
      release = resolve;
    }),
  );
  const running = program.start(['list', ...stage.cluster], { env: { TMPDIR: directory } });
  await eventually(() => started.fake.calls.length > 0);
  running.child.stdout?.destroy();
  release();
  expect(await running.ended).toMatchObject({ code: 0, err: '' });
  expect((await readdir(directory)).filter((entry) => entry.startsWith('snapshotctl-'))).toEqual([]);
});

describe('in podMount mode', () => {
  const worker = (name: string, more: object = {}) => ({
    kind: 'Pod',
    metadata: { name, namespace: 'team-a', annotations: { 'nvidia.com/snapshot-storage-base-path': '/data/ckpt' } },
    spec: {
      nodeName: 'node-a',
      volumes: [{ name: 'checkpoint-storage' }],
      containers: [
        { name: 'proxy' },
        { name: 'main', volumeMounts: [{ name: 'checkpoint-storage', mountPath: '/data' }] },
      ],
      ...more,
    },
    status: { phase: 'Running' },
  });
  const through = () => stage.started.fake.calls.map(({ request }) => (request as { storage: unknown }).storage);
  beforeEach(() => {
    stage.started.fake.accessMode = 'podMount';
  });

  it('a running pod of the namespace with the volume is found, and said', async () => {
    stage.api.put({ ...worker('pending'), status: { phase: 'Pending' } });
    stage.api.put(worker('worker-0'));
    const { code, err } = await list(...stage.cluster, '-n', 'team-a');
    expect([code, err]).toEqual([0, 'through pod team-a/worker-0\n']);
    const container = { namespace: 'team-a', pod: 'worker-0', container: 'main', containerId: '' };
    expect(through()).toEqual([{ through: container, basePath: '/data/ckpt' }]);
  });

  it('the one that is named is taken, with its container and path', async () => {
    stage.api.put(worker('worker-0'));
    const flags = [...stage.cluster, '-n', 'team-a', '--through', 'worker-0/proxy', '--base-path', '/other'];
    expect(await list(...flags)).toMatchObject({ code: 0, err: '' });
    expect(through()).toMatchObject([{ through: { container: 'proxy' }, basePath: '/other' }]);
    const wrong = await list(...stage.cluster, '-n', 'team-a', '--through', 'worker-0/main/x');
    expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining('POD/CONTAINER') });
    const unknown = await list(...stage.cluster, '-n', 'team-a', '--through', 'worker-0/sidecar');
    expect(unknown).toMatchObject({ code: 2, err: expect.stringContaining('it has proxy, main') });
    expect(await list(...stage.cluster, '-n', 'team-a', '--through', 'nobody')).toMatchObject({ code: 1 });
  });

  it('it is said what to pass where there is none', async () => {
    const none = await list(...stage.cluster, '-n', 'team-a');
    expect(none).toMatchObject({
      code: 3,
      err: expect.stringMatching(/no running pod of namespace team-a .*Pass --through/s),
    });
    const bySocket = await list(...stage.socket);
    expect(bySocket).toMatchObject({ code: 2, err: expect.stringContaining('Pass --through') });
    const half = await list(...stage.socket, '--through', 'worker-0');
    expect(half).toMatchObject({ code: 2, err: expect.stringContaining('--namespace') });
    expect(stage.started.fake.calls).toEqual([]);
    expect(await list(...stage.socket, '--through', 'worker-0/main', '-n', 'team-a')).toMatchObject({ code: 0 });
  });
});

it('sends nothing for flags that do not go together', async () => {
  const { code, err } = await list(...stage.socket, '--node', 'node-a');
  expect([code, err]).toEqual([2, expect.stringContaining('--node')]);
  expect(stage.started.fake.calls).toEqual([]);
});
