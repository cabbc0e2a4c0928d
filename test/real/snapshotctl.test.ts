import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';
import { eventually } from '../flow/grpc/client.ts';
import { programAt, seen } from '../flow/snapshotctl-agents/program.ts';
import { putAgent, serveRelay } from '../flow/snapshotctl-agents/stage.ts';
import { workload } from './environment/pod.ts';
import { ApiNode, type Plain } from './grpc/node.ts';
import { artifactPath } from './scenario.ts';

/** snapshotctl as built, with artifacts that CRIU made: through the tunnel of an exec, and by the socket. */

const program = programAt('dist/snapshotctl/snapshotctl.mjs');
let node: ApiNode;
let source: Plain;
let api: KubeApi;
let directory: string;
/** How the agent is reached. */
let ways: Record<'tunnel' | 'socket', readonly string[]>;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ctl-'));
  node = await ApiNode.start();
  api = await startKubeApi();
  putAgent(api, { namespace: 'snapshot', name: 'snapshot-agent-1', node: 'test-node' });
  serveRelay(api, program, node.agent.apiSocket);
  const kubeconfig = await api.writeKubeconfig(directory);
  ways = { tunnel: ['--kubeconfig', kubeconfig], socket: ['--socket', node.agent.apiSocket] };
  source = await node.runPlain({ command: workload('memory', '8') });
  await node.perform('Checkpoint', source, { checkpoint_id: 'good' });
});
afterAll(async () => {
  await api?.close();
  const left = await node?.stop();
  await rm(directory, { recursive: true, force: true });
  expect(left).toEqual([]);
});

const run = (way: keyof typeof ways, ...args: string[]) => program.run([...args, ...ways[way]]);
const json = async (way: keyof typeof ways, ...args: string[]) => {
  const { code, out, err } = await run(way, ...args, '-o', 'json');
  expect([code, err]).toEqual([0, '']);
  return JSON.parse(out);
};
const pathOf = (id: string) => artifactPath(node.cluster.volume, { id, version: '1' });

/** So that the API knows the real pod. */
function putPod({ pod, container }: Plain): void {
  api.put({
    kind: 'Pod',
    metadata: { name: pod.name, namespace: pod.namespace },
    spec: { nodeName: 'test-node', containers: [{ name: container.name }] },
    status: { phase: 'Running' },
  });
}

describe.each(['tunnel', 'socket'] as const)('over the %s', (way) => {
  test('an artifact is listed and inspected as it was captured', async () => {
    const { checkpoints } = await json(way, 'list');
    expect(checkpoints).toMatchObject([
      { checkpointId: 'good', complete: true, record: { source: { pod: source.pod.name, node: 'test-node' } } },
    ]);
    const inspected = await json(way, 'inspect', 'good');
    expect(inspected.record.timings.map(({ step }: { step: string }) => step)).toContain('criu-dump');
    const [worker] = inspected.contents.processes;
    expect(worker).toMatchObject({ name: expect.stringContaining('python'), state: 'alive' });
    // The workload holds 8 MiB of its own.
    expect(worker.storedBytes).toBeGreaterThan(8 << 20);
    const { out } = await run(way, 'inspect', 'good');
    expect(out).toMatch(/^ {2}criu-dump +[0-9.]+ m?s +\d+ % +[█▏▎▍▌▋▊▉]+$/m);
  });

  test('it is verified, and found to fit its own node', async () => {
    const { files, bytes, intact } = await json(way, 'verify', 'good');
    const { record } = await json(way, 'inspect', 'good');
    expect([intact, files, bytes]).toEqual([true, record.sizes.files, record.sizes.totalBytes]);
    const { code, out } = await run(way, 'diff', 'good');
    expect([code, out]).toEqual([0, expect.stringContaining('good@1 would restore: nothing on node test-node')]);
    expect(out).toContain('Not compared');
  });

  test('a restore is watched to its end', async () => {
    const target = await node.runPlaceholder();
    const { name } = await node.begin('Restore', target, { checkpoint_id: 'good' });
    const { code, out, err } = await run(way, 'watch', name);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(new RegExp(`^restore good@1 into default/${target.pod.name}/main`));
    for (const step of ['verify', 'criu-restore', 'fill', 'confirm'])
      expect(out).toMatch(new RegExp(`^${step} +[0-9.]+ m?s$`, 'm'));
    expect(out).toMatch(/^succeeded, after [0-9.]+ m?s/m);
    expect(await target.container.check()).toMatchObject({ check: 'ok' });
    await target.pod.remove();
  });
});

test('the node says what it can do', async () => {
  const { code, out } = await run('tunnel', 'nodes');
  expect([code, out]).toEqual([
    0,
    expect.stringMatching(/^test-node +snapshot\/snapshot-agent-1 +yes .* containerd /m),
  ]);
  expect(out).toMatch(/^test-node has no cuda: /m);
});

test('a pod that does not fit is refused, with every reason', async () => {
  const placeholder = await node.runPlaceholder();
  putPod(placeholder);
  const pod = ['--pod', placeholder.pod.name, '-n', placeholder.pod.namespace];
  expect(await run('tunnel', 'diff', 'good', ...pod)).toMatchObject({ code: 0 });
  await placeholder.pod.remove();
  const unfit = await node.runPlaceholder({ tty: true, stdin: true });
  putPod(unfit);
  const refused = await run('tunnel', 'diff', 'good', '--pod', unfit.pod.name, '-n', unfit.pod.namespace);
  expect(refused).toMatchObject({ code: 3, err: expect.stringContaining('good@1 would not restore: ') });
  expect(refused.out).toMatch(/^REASON +FOUND +WANTED[\s\S]*^TERMINAL /m);
  await unfit.pod.remove();
});

test('a report is written of it', async () => {
  const file = join(directory, 'report.html');
  expect(await run('tunnel', 'report', 'good', '-f', file, '--verify')).toMatchObject({ code: 0 });
  const page = readFileSync(file, 'utf8');
  expect(page).toContain('aria-label="criu-dump: ');
  expect(page).toContain('read and verified now');
  expect(page.match(/<title>0x/g)?.length).toBeGreaterThan(10);
});

test('damage is found', async () => {
  await node.perform('Checkpoint', source, { checkpoint_id: 'damaged' });
  const path = join(pathOf('damaged'), 'memory/bulk.pages');
  const content = readFileSync(path);
  content[content.length >> 1] = (content[content.length >> 1] ?? 0) ^ 1;
  writeFileSync(path, content);
  const { code, out, err } = await run('tunnel', 'verify', 'damaged');
  expect([code, out, err]).toEqual([1, '', expect.stringMatching(/damaged@1 is not intact: ARTIFACT_CORRUPT: /)]);
});

test('it is deleted when a person says yes, in a terminal', async () => {
  const running = program.start(['delete', 'damaged@1', ...ways.tunnel], { terminal: 100 });
  await running.until(/\[y\/N\]/);
  running.write('y\r');
  const { code, out } = await running.ended;
  expect([code, seen(out)]).toEqual([0, expect.stringContaining('damaged@1 is deleted')]);
  await eventually(() => !existsSync(pathOf('damaged')));
  expect((await json('socket', 'list')).checkpoints).toHaveLength(1);
  await eventually(() => api.execs.length === 0);
});
