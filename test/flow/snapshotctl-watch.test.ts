import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { SnapshotError } from '../../agent/errors.ts';
import { FOREIGN, WORKER } from '../fakes/agent-service.ts';
import { makeProgram, type Program, seen } from './snapshotctl-agents/program.ts';
import { AGENT_POD, putAgent, type Stage, startStage } from './snapshotctl-agents/stage.ts';

let program: Program;
let stage: Stage;
beforeAll(async () => {
  program = await makeProgram();
});
afterAll(() => program.remove());
beforeEach(async () => {
  stage = await startStage(program);
});
afterEach(() => stage.stop());

const GIB = 1024 ** 3;
const begin = (target = WORKER, request = 'request-1') => stage.started.fake.begin(target, request);
/** Goes through two steps, with bytes in the second. */
function perform(handle: ReturnType<typeof begin>): void {
  handle.started();
  handle.step('verify', 'undone');
  handle.stepEnded({ step: 'verify', seconds: 1.5 });
  handle.step('fill', 'undone');
  handle.progress(GIB, 4 * GIB);
}

describe('an operation', () => {
  it('is followed in plain lines to its end, where nobody watches', async () => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, ...stage.socket]);
    await running.until(/restore ckpt@1 into team-a\/worker-0\/main, asked for at .* UTC/);
    perform(handle);
    await running.until(/^verify +1\.50 s$/m);
    stage.started.fake.end(handle.view.id);
    const { code, out, err } = await running.ended;
    expect([code, err]).toEqual([0, '']);
    expect(out.split('\n').slice(1)).toEqual([
      expect.stringMatching(/^verify/),
      expect.stringMatching(/^succeeded/),
      '',
    ]);
  });

  it('is shown with a gauge, its bytes and its rate in a terminal', async () => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, ...stage.socket], { terminal: 100 });
    await running.until(/restore ckpt@1/);
    perform(handle);
    await running.until(/fill .*▕█{6} {18}▏ {2}1\.00 GiB of 4\.00 GiB {2}[0-9.]+ \w+\/s/);
    stage.started.fake.end(handle.view.id);
    const { code, out } = await running.ended;
    expect(code).toBe(0);
    expect(seen(out)).toMatch(/^verify +1\.50 s\n(?:.*\n)*succeeded/m);
    // What was written over is gone in the end.
    expect(seen(out)).not.toContain('GiB/s');
  });

  it('gives programs one line for each change', async () => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, '-o', 'json', ...stage.socket]);
    await running.until(/"queued"/);
    perform(handle);
    await running.until(/"totalBytes":4294967296/);
    stage.started.fake.end(handle.view.id);
    const { code, out } = await running.ended;
    const changes = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(code).toBe(0);
    expect(changes.at(-1)).toMatchObject({
      ...{ name: handle.view.id, done: true, response: { checkpointId: 'ckpt' } },
      metadata: { state: 'succeeded', kind: 'restore', figures: { bytes: 42 } },
    });
  });

  it('gives them one document of YAML for each, too', async () => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, '-o', 'yaml', ...stage.socket]);
    await running.until(/state: "queued"/);
    stage.started.fake.end(handle.view.id);
    const documents = parseAllDocuments((await running.ended).out).map((document) => document.toJS());
    expect(documents.map(({ metadata: { state } }) => state)).toEqual(['queued', 'succeeded']);
  });

  it.each([
    ['failed', new SnapshotError('FILL_FAILED', 'the storage answered EIO'), 1],
    ['was cancelled', new SnapshotError('CANCELLED', 'it was cancelled'), 1],
  ])('that %s ends the command so', async (_, failure, status) => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, ...stage.socket]);
    await running.until(/restore ckpt@1/);
    stage.started.fake.end(handle.view.id, failure);
    const { code, out, err } = await running.ended;
    expect([code, out.trimEnd().split('\n').at(-1)]).toEqual([status, expect.stringMatching(/^failed/)]);
    expect(err).toMatch(new RegExp(`^snapshotctl: ${failure.code}: ${failure.message}`));
  });

  it('that was refused ends the command with its own status, and every reason', async () => {
    const handle = begin();
    const reasons = [
      { code: 'GPU_MODEL', message: 'another GPU', found: 'A10', wanted: 'H200', advice: 'Use another node.' },
    ];
    const failure = new SnapshotError('RESTORE_REFUSED', 'it does not fit', { reasons });
    handle.ended({ result: 'refused', failure, failedStep: 'verify', timings: [], figures: {} });
    const { code, err } = await program.run(['watch', handle.view.id, ...stage.socket]);
    expect([code, err]).toEqual([
      3,
      expect.stringContaining('\n  GPU_MODEL: another GPU; found A10; wanted H200. Use another node.'),
    ]);
  });

  it('is followed on after the connection was lost, from where it was', async () => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, '--node', 'node-a', ...stage.cluster]);
    await running.until(/restore ckpt@1/);
    stage.api.resetConnections();
    await running.until(/the connection was lost .* trying again/);
    perform(handle);
    await running.until(/^verify +1\.50 s$/m);
    stage.started.fake.end(handle.view.id);
    const { code, out } = await running.ended;
    expect([code, out.match(/restore ckpt@1/g)?.length, out.match(/^verify/gm)?.length]).toEqual([0, 1, 1]);
    expect(stage.api.calls({ subresource: 'exec' }).length).toBeGreaterThan(1);
  });

  it('is followed on through the pod that took the place of the old one', async () => {
    const handle = begin();
    const running = program.start(['watch', handle.view.id, '--node', 'node-a', ...stage.cluster]);
    await running.until(/restore ckpt@1/);
    stage.api.remove('pods', `${AGENT_POD.namespace}/${AGENT_POD.name}`);
    putAgent(stage.api, { ...AGENT_POD, name: 'snapshot-agent-new' });
    stage.api.resetConnections();
    await running.until(/the connection was lost/);
    stage.started.fake.end(handle.view.id);
    expect((await running.ended).code).toBe(0);
    expect(stage.api.calls({ subresource: 'exec' }).at(-1)?.name).toBe('snapshot-agent-new');
  });

  it('is looked for on every node, where none is named', async () => {
    putAgent(stage.api, { ...AGENT_POD, name: 'agent-of-0', node: 'node-0' });
    const other = await startStage(program);
    try {
      stage.api.serveExec(({ pod, command: [, ...args] }) => ({
        file: process.execPath,
        args: [
          program.file,
          ...args,
          '--socket',
          pod === 'agent-of-0' ? other.started.socketPath : stage.started.socketPath,
        ],
      }));
      const handle = begin();
      stage.started.fake.end(handle.view.id);
      expect(await program.run(['watch', handle.view.id, ...stage.cluster])).toMatchObject({ code: 0 });
      const { code, err } = await program.run(['watch', 'op-77', ...stage.cluster]);
      expect([code, err]).toEqual([1, expect.stringContaining('knows an operation op-77')]);
    } finally {
      await other.stop();
    }
  });
});

describe('all operations of a node', () => {
  it('are followed until none is left, and those that begin meanwhile', async () => {
    const first = begin();
    const second = begin(FOREIGN, 'request-2');
    const running = program.start(['watch', '--node', 'node-a', ...stage.cluster]);
    await running.until(/op-2 {2}restore/);
    const third = begin(WORKER, 'request-3');
    stage.started.fake.end(first.view.id);
    stage.started.fake.end(second.view.id, new SnapshotError('FILL_FAILED', 'the storage answered EIO'));
    await running.until(/op-3 {2}restore/);
    stage.started.fake.end(third.view.id);
    const { code, out, err } = await running.ended;
    expect([code, err]).toEqual([1, 'snapshotctl: 1 operation of 3 did not succeed\n']);
    expect(out).toMatch(/^op-1 {2}succeeded/m);
    expect(out).toMatch(/^op-2 {2}failed/m);
    expect(out).toMatch(/^op-3 {2}succeeded/m);
  });

  it('are none: it is said', async () => {
    const { code, out, err } = await program.run(['watch', ...stage.socket]);
    expect([code, out, err]).toEqual([0, '', expect.stringMatching(/^nothing is under way on the agent at /)]);
    expect(await program.run(['watch', ...stage.cluster])).toMatchObject({
      code: 0,
      err: 'nothing is under way on the agent of node node-a\n',
    });
  });

  it('are those of one node, which is named where there are several', async () => {
    putAgent(stage.api, { ...AGENT_POD, name: 'agent-of-b', node: 'node-b' });
    const { code, err } = await program.run(['watch', ...stage.cluster]);
    expect([code, err]).toEqual([2, expect.stringContaining('Pass --node, one of node-a, node-b')]);
    expect(stage.api.calls({ subresource: 'exec' })).toEqual([]);
  });
});
