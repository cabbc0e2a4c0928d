import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { SnapshotError } from '../../agent/errors.ts';
import { eventually } from './grpc/client.ts';
import { artifactOf } from './grpc/endpoint.ts';
import { makeProgram, type Program, seen } from './snapshotctl-agents/program.ts';
import { WORKER_CONTENTS, workerArtifact } from './snapshotctl-agents/sample.ts';
import { AGENT_POD, putAgent, type Stage, startStage } from './snapshotctl-agents/stage.ts';

let program: Program;
let stage: Stage;
beforeAll(async () => {
  program = await makeProgram();
});
afterAll(() => program.remove());
beforeEach(async () => {
  stage = await startStage(program);
  stage.started.fake.artifacts.set('llama/1', workerArtifact('llama', { readers: ['op-9'] }));
  stage.started.fake.contents = WORKER_CONTENTS;
});
afterEach(() => stage.stop());

const run = (...args: string[]) => program.run([...args, ...stage.socket]);
const inTerminal = (...args: string[]) => program.run([...args, ...stage.socket], { terminal: 100 });
const methods = () => stage.started.fake.calls.map(({ method }) => method);
/** Every control character but the line's end. */
const STEERING = /[^\P{Cc}\n]/u;

describe('list', () => {
  it('shows what there is, page after page, and what is wrong with some', async () => {
    const { fake } = stage.started;
    for (let index = 100; index < 205; index += 1)
      fake.artifacts.set(`n-${index}/1`, artifactOf('team-b', `n-${index}`));
    const problem = new SnapshotError('ARTIFACT_UNSIGNED', 'the record is not signed');
    fake.artifacts.set('odd/1', artifactOf('team-a', 'odd', { record: undefined, problem }));
    const { code, out, err } = await run('list');
    expect([code, err]).toEqual([0, '']);
    const lines = out.trimEnd().split('\n');
    expect(lines).toHaveLength(1 + 107 + 2);
    expect(lines[0]).toMatch(/^ID +VERSION +NAMESPACE +STATE +SIZE +CREATED \(UTC\) +FROM +GPU +READERS$/);
    expect(lines[1]).toMatch(
      /^llama +1 +team-a +complete +16\.5 GiB +2026-01-02 03:04:05 +llama-worker-7d9f-x2k4q\/main +NVIDIA H200 +1$/,
    );
    expect(lines.at(-3)).toMatch(/^odd +1 +- +ARTIFACT_UNSIGNED +- /);
    expect(lines.at(-1)).toMatch(/^odd@1: ARTIFACT_UNSIGNED: the record is not signed\. /);
    expect(methods()).toEqual(['listArtifacts', 'listArtifacts']);
  });

  it('says the same to programs, in JSON and YAML', async () => {
    const json = await run('ls', '-ojson');
    const { checkpoints } = JSON.parse(json.out);
    expect(checkpoints).toEqual([
      expect.objectContaining({
        ...{ checkpointId: 'llama', version: '1', complete: true, readers: ['op-9'] },
        location: '/checkpoints/llama/versions/1',
        record: expect.objectContaining({
          createTime: '2026-01-02T03:04:05.678Z',
          pauseSeconds: 41.2,
          sizes: expect.objectContaining({ bulkBytes: Math.round(15.5 * 1024 ** 3), files: 8 }),
          source: expect.objectContaining({ namespace: 'team-a', podUid: 'uid' }),
        }),
      }),
    ]);
    expect(parse((await run('list', '-o', 'yaml')).out)).toEqual({ checkpoints });
  });

  it('says that there is nothing', async () => {
    stage.started.fake.artifacts.clear();
    expect(await run('list')).toEqual({ code: 0, out: 'there are no artifacts\n', err: '' });
  });

  it.each(['text', 'json', 'yaml'])('lets nothing of an artifact steer the terminal, in %s', async (format) => {
    const hostile = workerArtifact('hostile');
    if (hostile.record === undefined) throw new Error('no record');
    const pod = 'a\u001b]0;owned\u0007\u009b31m\u202egnp\nroot@host:~#';
    stage.started.fake.artifacts.set('hostile/1', {
      ...hostile,
      record: { ...hostile.record, source: { ...hostile.record.source, pod, image: pod } },
    });
    const outputs = [await run('list', '-o', format), await run('inspect', 'hostile', '-o', format)];
    for (const { code, out, err } of outputs) {
      expect([code, err]).toEqual([0, '']);
      expect(out).not.toMatch(STEERING);
      expect(out).not.toContain('\u202e');
      expect(out.split('\n')).not.toContainEqual(expect.stringMatching(/^root@host/));
    }
    if (format === 'text') expect(outputs[0]?.out).toContain('a\\x1b]0;owned\\x07\\x9b31m\\u{202e}gnp\\nroot@host');
    else expect(parse(outputs[1]?.out ?? '').record.source.pod).toBe(pod);
  });
});

describe('inspect', () => {
  it('shows what it was captured with, its sizes, its processes, and its times as bars', async () => {
    const { code, out, err } = await run('inspect', 'llama');
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^artifact {2}llama@1$/m);
    expect(out).toMatch(/gpu driver +580\.1$/m);
    expect(out).toMatch(/^ {2}large memory +15\.5 GiB {2}94 % {2}█+/m);
    expect(out).toMatch(/^ +86 {4,}python3 +11 +4\.10 GiB +123 MiB +- {2}90\.0 MiB heap$/m);
    const bar = (step: string) => new RegExp(`^  ${step} .* (█+)`, 'm').exec(out)?.[1]?.length ?? 0;
    expect(bar('criu-dump')).toBeGreaterThan(bar('cuda-checkpoint'));
    expect(bar('cuda-checkpoint')).toBeGreaterThan(bar('finalize'));
    expect(out).toContain('the source stood still for 41.2 s');
  });

  it('keeps within the width of a terminal', async () => {
    const { out } = await program.run(['inspect', 'llama', ...stage.socket], { terminal: 70 });
    const bars = seen(out)
      .split('\n')
      .filter((line) => line.includes('█'));
    expect(bars.length).toBeGreaterThan(5);
    expect(Math.max(...bars.map((line) => line.length))).toBeLessThanOrEqual(70);
  });

  it('gives programs all of it, contents included', async () => {
    const { out } = await run('inspect', 'llama@1', '-o', 'json');
    const { contents, record, ...rest } = JSON.parse(out);
    expect(rest).toMatchObject({ checkpointId: 'llama', complete: true });
    expect(record.platform).toMatchObject({ gpuDriver: '580.1', gpuModels: ['NVIDIA H200'] });
    expect(contents.processes[0]).toMatchObject({ pid: 1, name: 'python3', state: 'alive', cuda: true });
    expect(contents.processes[0].areas[1]).toMatchObject({
      kind: 'heap',
      protection: 'rw-',
      start: expect.any(Number),
    });
    expect(contents).toMatchObject({ removedPaths: 14, filesLeftOut: 0 });
  });

  it('shows the record where what is inside cannot be read, and what is wrong where there is none', async () => {
    const { fake } = stage.started;
    fake.failures.set('inspectArtifact', new SnapshotError('ARTIFACT_CORRUPT', 'criu/mm-1.img has another digest'));
    const half = await run('inspect', 'llama');
    expect(half).toMatchObject({
      code: 0,
      err: expect.stringContaining('what is inside cannot be shown: criu/mm-1.img'),
    });
    expect(half.out).toContain('captured with');
    const problem = new SnapshotError('ARTIFACT_UNSIGNED', 'the record is not signed');
    fake.artifacts.set('odd/1', artifactOf('team-a', 'odd', { record: undefined, problem }));
    const odd = await run('inspect', 'odd');
    expect(odd).toMatchObject({ code: 0, out: expect.stringContaining('ARTIFACT_UNSIGNED: the record is not signed') });
  });
});

describe('verify', () => {
  it('says what was read, and how fast', async () => {
    const quiet = await run('verify', 'llama');
    const said = 'llama@1 is intact: 7 files, 12.1 KiB, read and compared in 0.50 s (24.1 KiB/s)\n';
    expect(quiet).toEqual({ code: 0, out: said, err: '' });
    const json = await run('verify', 'llama', '-o', 'json');
    expect(JSON.parse(json.out)).toMatchObject({ checkpointId: 'llama', intact: true, bytesPerSecond: 24_690 });
  });

  it('shows a person how long it takes', async () => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    stage.started.fake.holds.set('verifyArtifact', held);
    const running = program.start(['verify', 'llama', ...stage.socket], { terminal: 100 });
    await running.until(/verifying llama@1, 16\.5 GiB: .* so far/);
    release();
    const { code, out } = await running.ended;
    expect([code, seen(out).trim()]).toEqual([0, expect.stringMatching(/^llama@1 is intact: 7 files/)]);
  });

  it('fails for damage, and says what is damaged', async () => {
    const damage = () =>
      stage.started.fake.failures.set(
        'verifyArtifact',
        new SnapshotError('ARTIFACT_CORRUPT', 'criu/core-1.img has another digest'),
      );
    damage();
    const { code, out, err } = await run('verify', 'llama');
    expect([code, out]).toEqual([1, '']);
    expect(err).toMatch(/^snapshotctl: llama@1 is not intact: ARTIFACT_CORRUPT: criu\/core-1\.img has another digest/);
    damage();
    const json = await run('verify', 'llama', '-o', 'json');
    expect([json.code, JSON.parse(json.out)]).toEqual([
      1,
      expect.objectContaining({ intact: false, reason: 'ARTIFACT_CORRUPT' }),
    ]);
    const none = await run('verify', 'nothing');
    expect(none).toMatchObject({ code: 1, err: expect.not.stringContaining('not intact') });
  });

  it('ends with Ctrl-C, and so does the work of the agent', async () => {
    stage.started.fake.holds.set('verifyArtifact', new Promise(() => undefined));
    const running = program.start(['verify', 'llama', ...stage.socket], { terminal: 80 });
    await running.until(/so far/);
    running.write('\u0003');
    const { code, out } = await running.ended;
    expect([code, seen(out)]).toEqual([130, expect.stringContaining('snapshotctl: interrupted')]);
    await eventually(() =>
      stage.started.audit().some((line) => line['method'] === 'VerifyCheckpoint' && line['code'] === 'CANCELLED'),
    );
  });
});

describe('diff', () => {
  const reasons = [
    {
      code: 'CPU_FEATURES',
      message: 'the CPU lacks features',
      found: 'avx2',
      wanted: 'avx2, amx_tile',
      advice: 'Use a newer node.',
    },
    {
      code: 'GPU_MODEL',
      message: 'the GPU is of another model',
      found: 'NVIDIA A10',
      wanted: 'NVIDIA H200',
      advice: 'Use a node with an H200.',
    },
  ];
  const placeholder = {
    kind: 'Pod',
    metadata: { name: 'worker-0', namespace: 'team-a' },
    spec: { nodeName: 'node-a', containers: [{ name: 'main' }] },
  };

  it('finds nothing in the way on a node, and says what was not compared', async () => {
    const { code, out, err } = await run('diff', 'llama');
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(
      /^llama@1 would restore: nothing on node node-a is in the way\n\nNot compared, as that takes a pod/,
    );
    expect(methods()).toEqual(['checkArtifact']);
  });

  it('lists every reason with both values and what to do', async () => {
    stage.started.fake.reasons = reasons;
    const { code, out, err } = await run('diff', 'llama');
    expect([code, err]).toEqual([3, 'snapshotctl: llama@1 would not restore: 2 reasons\n']);
    expect(out).toMatch(/^llama@1 would not restore on node node-a\n\nREASON +FOUND +WANTED +WHAT/);
    expect(out).toMatch(/^CPU_FEATURES +avx2 +avx2, amx_tile +the CPU lacks features\. Use a newer node\.$/m);
    const narrow = await program.run(['diff', 'llama', ...stage.socket], { terminal: 60 });
    const lines = seen(narrow.out)
      .split('\n')
      .filter((line) => !line.startsWith('snapshotctl:'));
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60);
    const json = JSON.parse((await run('diff', 'llama', '-o', 'json')).out);
    expect(json).toMatchObject({ comparedWith: 'node node-a', compatible: false, mismatches: reasons });
  });

  it('compares with a pod, by the agent of its node', async () => {
    stage.api.put(placeholder);
    putAgent(stage.api, { ...AGENT_POD, name: 'agent-of-0', node: 'node-0' });
    const { code, out, err } = await program.run([
      'diff',
      'llama',
      '--pod',
      'worker-0',
      '-n',
      'team-a',
      ...stage.cluster,
    ]);
    expect([err, code, out]).toEqual(['', 0, 'llama@1 would restore: nothing on pod team-a/worker-0 is in the way\n']);
    const [call] = stage.started.fake.calls;
    expect(call).toMatchObject({
      method: 'checkRestore',
      request: { target: { namespace: 'team-a', pod: 'worker-0', container: 'main' } },
    });
    expect(stage.api.calls({ subresource: 'exec' }).map(({ name }) => name)).toEqual([AGENT_POD.name]);
    const pending = {
      ...placeholder,
      metadata: { name: 'pending', namespace: 'team-a' },
      spec: { containers: [{ name: 'main' }] },
    };
    stage.api.put(pending);
    const early = await program.run(['diff', 'llama', '--pod', 'pending', '-n', 'team-a', ...stage.cluster]);
    expect(early).toMatchObject({ code: 1, err: expect.stringContaining('is not on a node yet') });
  });
});

describe('delete', () => {
  it('asks a person, and takes only yes for yes', async () => {
    const ask = async (answer: string) => {
      const running = program.start(['delete', 'llama@1', ...stage.socket], { terminal: 120 });
      await running.until(/Delete llama@1.*\[y\/N\]/);
      running.write(answer);
      return await running.ended;
    };
    const no = await ask('\r');
    expect([no.code, seen(no.out)]).toEqual([1, expect.stringContaining('nothing was deleted')]);
    expect(seen(no.out)).toContain(
      'llama@1: 16.5 GiB, of team-a/llama-worker-7d9f-x2k4q/main, made 2026-01-02 03:04:05 UTC; read by op-9',
    );
    expect(methods()).not.toContain('deleteArtifact');
    const yes = await ask('yes\r');
    expect([yes.code, seen(yes.out)]).toEqual([0, expect.stringContaining('llama@1 is deleted')]);
    expect(stage.started.fake.artifacts.size).toBe(0);
  });

  it('needs --yes where nobody can be asked, and the version in any case', async () => {
    expect(await run('delete', 'llama@1')).toMatchObject({ code: 2, err: expect.stringContaining('--yes') });
    expect(await run('delete', 'llama', '--yes')).toMatchObject({ code: 2, err: expect.stringContaining('llama@1') });
    expect(methods()).toEqual([]);
    const done = await run('delete', 'llama@1', '--yes', '--wait', '5');
    expect(done).toEqual({ code: 0, out: 'llama@1 is deleted\n', err: '' });
    expect(stage.started.fake.calls[0]?.request).toMatchObject({ id: 'llama', version: '1', waitSeconds: 5 });
    expect(await run('delete', 'llama@1', '--yes')).toMatchObject({
      code: 1,
      err: expect.stringContaining('ARTIFACT_NOT_FOUND'),
    });
    expect(await run('delete', 'llama@1', '--yes', '--wait', '1h')).toMatchObject({ code: 2 });
  });
});

describe('nodes', () => {
  it('shows the agents, and what their nodes lack', async () => {
    const { code, out, err } = await program.run(['nodes', ...stage.cluster]);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(
      /^node-a +snapshot\/snapshot-agent-x7k2p +yes +0\.1\.0 +4\.2 +6\.12\.0 +containerd 2\.1 +agent-mount \/checkpoints +criu$/m,
    );
    expect(out).toMatch(/^node-a has no cuda: no driver is loaded$/m);
  });

  it('shows those that do not answer, too', async () => {
    putAgent(stage.api, { ...AGENT_POD, name: 'agent-of-b', node: 'node-b' });
    const { api, started } = stage;
    api.serveExec(({ pod, command: [, ...args] }) =>
      pod === 'agent-of-b'
        ? { file: 'sh', args: ['-c', 'echo it is broken >&2; exit 9'] }
        : { file: process.execPath, args: [program.file, ...args, '--socket', started.socketPath] },
    );
    const { code, out, err } = await program.run(['nodes', ...stage.cluster, '-o', 'json']);
    expect([code, err]).toEqual([5, 'snapshotctl: 1 agent did not answer\n']);
    const { nodes } = JSON.parse(out);
    expect(nodes).toMatchObject([
      {
        node: 'node-a',
        agentPod: { ready: true },
        accessMode: 'agent-mount',
        capabilities: [{ name: 'criu' }, { name: 'cuda' }],
      },
      { node: 'node-b', problem: expect.stringContaining('it is broken') },
    ]);
  });
});

it.each([
  ['inspect', '../etc'],
  ['verify', 'tmp'],
  ['diff', 'a@b@c'],
  ['report', 'a b'],
  ['delete', 'x@.y'],
  ['watch', 'a/b'],
])('sends nothing for %s %s', async (command, id) => {
  const { code, err } = await run(command, id);
  expect([code, err]).toEqual([2, expect.stringMatching(/^snapshotctl: the (checkpoint id|version|operation) /)]);
  expect(stage.started.audit()).toEqual([]);
});

it('is quiet about who has read enough', async () => {
  const running = program.start(['list', ...stage.socket]);
  running.child.stdout?.destroy();
  expect((await running.ended).err).toBe('');
});

it('writes no colours and no progress into a pipe', async () => {
  for (const args of [['list'], ['inspect', 'llama'], ['verify', 'llama'], ['nodes']]) {
    const { out, err } = await run(...args);
    expect(out + err).not.toMatch(STEERING);
  }
  expect((await inTerminal('list')).code).toBe(0);
});
