import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  type Answer,
  buildVariant,
  cudaCommand,
  GENEROUS,
  openSession,
  openStandin,
  startWorker,
} from './cuda-session.ts';
import { adopt, childrenOf, commOf, cudaPath, environment, run, standinPath, tidyUp } from './programs.ts';
import { type Standin, standinGpu } from './standin/standin.ts';

afterAll(tidyUp);

/** Runs snapshot-cuda over a stand-in to the end of this input; its lines, parsed. */
async function converse(standin: Standin, input: string | Buffer, options: Parameters<typeof cudaCommand>[0] = {}) {
  const setting = `SNAPSHOT_STANDIN_DIR=${standin.directory}`;
  const result = await run(['env', setting, ...cudaCommand(options)], input);
  const lines = result.stdout.split('\n');
  expect(lines.pop()).toBe('');
  return { ...result, answers: lines.map((line) => JSON.parse(line) as Answer) };
}

const BAD = { ok: false, error: -1, name: 'BAD_REQUEST', call: '' };

describe('arguments', () => {
  const wrong = [
    ['--libcuda'],
    ['--libnvml', ''],
    ['--unknown', 'x'],
    ['state'],
    ['--version', 'x'],
    ['--help', '--help'],
  ];
  test.each(wrong.map((args) => ({ args })))('that are wrong end with 2: $args', async ({ args }) => {
    const result = await run([cudaPath, ...args]);
    expect(result).toMatchObject({ code: 2, stdout: '' });
    expect(result.stderr).toContain('usage: snapshot-cuda');
  });

  test('ask for its version and its usage', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    expect(await run([cudaPath, '--version'])).toMatchObject({ code: 0, stdout: `snapshot-cuda ${version}\n` });
    const help = await run([cudaPath, '--help']);
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain('--libcuda PATH');
  });
});

describe('the first line', () => {
  test('says what was found, and where', async () => {
    const standin = openStandin();
    standin.setVersion('driver', '590.44.01');
    standin.setVersion('api', '13010');
    const { answers, code, stderr } = await converse(standin, '');
    const libcuda = standinPath('libcuda.so.1');
    expect(answers).toEqual([{ ready: true, driverApi: 13010, driver: '590.44.01', libcuda, nvml: true }]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test('comes from the first candidate that can be opened', async () => {
    const standin = openStandin();
    const first = buildVariant('libcuda', {});
    const candidates = ['/no/such/libcuda.so.1', resolve('package.json'), first, standinPath('libcuda.so.1')];
    const { answers } = await converse(standin, '', { libcuda: candidates });
    expect(answers).toMatchObject([{ ready: true, libcuda: first }]);
  });

  test('says where a missing driver was looked for', async () => {
    const candidates = ['/no/such/libcuda.so.1', resolve('package.json')];
    const { answers, code } = await converse(openStandin(), 'state 1\n', { libcuda: candidates });
    expect(answers).toEqual([{ ready: false, reason: 'NO_LIBCUDA', message: expect.any(String), name: '' }]);
    for (const tried of [...candidates, 'libcuda.so.1: cannot open shared object file'])
      expect(answers[0]?.['message']).toContain(tried);
    expect(code).toBe(3);
  });

  const needed = [
    'cuCheckpointProcessGetRestoreThreadId',
    'cuCheckpointProcessGetState',
    'cuCheckpointProcessLock',
    'cuCheckpointProcessCheckpoint',
    'cuCheckpointProcessRestore',
    'cuCheckpointProcessUnlock',
    'cuGetErrorName',
  ];
  test.each(needed)('names the function that an old driver lacks: %s', async (symbol) => {
    const libcuda = [buildVariant('libcuda', { without: [symbol] })];
    const { answers, code } = await converse(openStandin(), '', { libcuda });
    expect(answers).toMatchObject([{ ready: false, reason: 'TOO_OLD', message: expect.stringContaining(symbol) }]);
    expect(code).toBe(3);
  });

  test('tells a node without a GPU from a driver that does not start', async () => {
    const without = await converse(openStandin([]), '');
    expect(without).toMatchObject({ code: 3, answers: [{ reason: 'NO_DEVICE', name: 'CUDA_ERROR_NO_DEVICE' }] });
    for (const call of ['cuInit', 'cuDriverGetVersion']) {
      const standin = openStandin();
      standin.fault(`${call} * error 803`);
      const { answers, code } = await converse(standin, '');
      expect(answers).toMatchObject([{ reason: 'INIT_FAILED', name: 'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH' }]);
      expect(answers[0]?.['message']).toMatch(
        `${call} of ${standinPath('libcuda.so.1')} failed: system has unsupported`,
      );
      expect(code).toBe(3);
    }
  });

  test('does without NVML, and so do the calls', async () => {
    const standin = openStandin();
    const worker = await startWorker(standin);
    const { answers } = await converse(standin, `gpus\nprocesses\nstate ${worker.pid}\n`, { libnvml: [] });
    const missing = { ok: false, error: 12, name: 'NVML_ERROR_LIBRARY_NOT_FOUND', call: 'nvmlInit_v2' };
    expect(answers[0]).toMatchObject({ ready: true, driver: null, nvml: false });
    expect(answers.slice(1)).toEqual([
      { ...missing, text: expect.stringMatching('NVML') },
      { ...missing, text: expect.stringMatching('NVML') },
      { ok: true, state: 'running' },
    ]);
    standin.fault('nvmlInit_v2 * error 18');
    const failed = await converse(standin, 'gpus\n');
    expect(failed.answers).toMatchObject([
      { ready: true, driver: null, nvml: false },
      { ok: false, error: 18 },
    ]);
  });
});

describe('as a process', () => {
  test('it keeps its standard streams, and none of what else it inherits', async () => {
    const standin = openStandin();
    const [program, ...args] = cudaCommand();
    const child = spawn(program, args, {
      env: { ...environment, SNAPSHOT_STANDIN_DIR: standin.directory },
      stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    });
    adopt(child);
    await once(child.stdout, 'data');
    const descriptors = `/proc/${child.pid}/fd`;
    const links = readdirSync(descriptors).map((name) => readlinkSync(join(descriptors, name)));
    // Three, and the one that answers go to. What libraries print to standard output goes to standard error.
    expect(links).toHaveLength(4);
    expect(links[1]).toBe(links[2]);
    child.stdin.end();
    expect(await once(child, 'close')).toEqual([0, null]);
  });

  test('it does not take what a library prints for an answer', async () => {
    const source = `
      #include <stdio.h>
      int cuDriverGetVersion(int *version) { *version = 13000; puts("noise"); return fflush(stdout); }
      __attribute__((destructor)) static void end(void) { puts("more noise"); fflush(stdout); }`;
    const path = buildVariant('libcuda', { rename: 'cuDriverGetVersion', source });
    const { answers, stderr } = await converse(openStandin(), 'state 1\n', { libcuda: [path] });
    expect(answers).toMatchObject([
      { ready: true, driverApi: 13000 },
      { ok: false, call: 'cuCheckpointProcessGetState' },
    ]);
    expect(stderr).toBe('noise\n');
  });

  test('it is no CUDA process: settings for those do not reach the driver', async () => {
    const session = await openSession(openStandin(), {
      env: { CUDA_VISIBLE_DEVICES: '', CUDA_INJECTION64_PATH: '/x' },
    });
    expect(session.hello).toMatchObject({ ready: true });
    expect(await session.end()).toBe(0);
  });

  test('it ends with its parent, in the middle of a call and while its input is open', async () => {
    const standin = openStandin();
    const worker = await startWorker(standin);
    standin.fault('cuCheckpointProcessLock * hang');
    const script = 'exec 3<&0; "$@" <&3 & wait';
    const shell = spawn('sh', ['-c', script, 'sh', ...cudaCommand()], {
      env: { ...environment, SNAPSHOT_STANDIN_DIR: standin.directory },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    adopt(shell);
    await once(shell.stdout, 'data');
    shell.stdin.write(`lock ${worker.pid} 0\n`);
    const [pid = 0] = childrenOf(shell.pid ?? 0);
    expect(commOf(pid)).toBe('snapshot-cuda');
    shell.kill('SIGKILL');
    // It is reparented, so what remains of it is somebody else's zombie at most.
    const stateOf = () => {
      try {
        return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      } catch {
        return 'gone';
      }
    };
    await expect.poll(stateOf, GENEROUS).toMatch(/^(Z|X|gone)$/);
  });

  test('it ends with the end of its input; a request that was not sent whole is none', async () => {
    const standin = openStandin();
    const worker = await startWorker(standin);
    const { answers, code } = await converse(standin, `state ${worker.pid}\nlock ${worker.pid} 1000`);
    expect(answers).toMatchObject([{ ready: true }, { ok: true, state: 'running' }]);
    expect(code).toBe(0);
    const session = await openSession(standin);
    expect(await session.ask(`state ${worker.pid}`)).toEqual({ ok: true, state: 'running' });
  });
});

describe('requests', () => {
  const uuid = standinGpu(0).uuid;
  const bad: [string, string][] = [
    ['', 'unknown request: '],
    ['State 1', 'unknown request: State'],
    ['state', 'usage: state PID'],
    ['state  1', 'usage: state PID'],
    ['state 1 ', 'usage: state PID'],
    ['state 1 2 3 4 5', 'usage: state PID'],
    ['state 0', 'not a PID: 0'],
    ['state -1', 'not a PID: -1'],
    ['state 1x', 'not a PID: 1x'],
    ['state 0x1', 'not a PID: 0x1'],
    ['state 2147483648', 'not a PID: 2147483648'],
    ['state 99999999999999999999999999', 'not a PID: 99999999999999999999999999'],
    ['restore-thread', 'usage: restore-thread PID'],
    ['lock 1', 'usage: lock PID TIMEOUT_MS'],
    ['lock 1 -1', 'not a number of milliseconds: -1'],
    ['lock 1 4294967296', 'not a number of milliseconds: 4294967296'],
    ['checkpoint 1 2', 'usage: checkpoint PID'],
    ['unlock', 'usage: unlock PID'],
    ['restore', 'usage: restore PID [OLD=NEW,…]'],
    ['restore 1 ', 'not a pair of GPUs: '],
    [`restore 1 ${uuid}`, `not a pair of GPUs: ${uuid}`],
    [`restore 1 ${uuid}=`, `not a pair of GPU UUIDs: ${uuid}=`],
    [`restore 1 ${uuid}=${uuid},`, 'not a pair of GPUs: '],
    [`restore 1 ${uuid}=${uuid}=${uuid}`, `not a pair of GPU UUIDs: ${uuid}=${uuid}=${uuid}`],
    [`restore 1 ${uuid}=${uuid}0`, `not a pair of GPU UUIDs: ${uuid}=${uuid}0`],
    [`restore 1 ${uuid}=${uuid.replace('5', 'g')}`, `not a pair of GPU UUIDs: ${uuid}=${uuid.replace('5', 'g')}`],
    [`restore-unlock 1 ${uuid}=${uuid.replace('GPU', 'MIG')}`, 'not a pair of GPU UUIDs'],
    [`restore-unlock 1 ${Array(129).fill(`${uuid}=${uuid}`).join(',')}`, 'more than 128 pairs of GPUs'],
    ['gpus all', 'usage: gpus '],
    ['processes 1', 'usage: processes '],
  ];

  test('that are wrong are answered as such, and the next one is read', async () => {
    const input = bad.map(([request]) => `${request}\n`).join('');
    const { answers, code } = await converse(openStandin(), `${input}state 1\n`);
    expect(answers.slice(1, -1).map(({ text }) => text)).toEqual(
      bad.map(([, text]) => expect.stringMatching(new RegExp(`^${text.replace(/[[\]]/g, '\\$&')}`))),
    );
    expect(answers.slice(1, -1)).toEqual(bad.map(() => ({ ...BAD, text: expect.any(String) })));
    expect(answers.at(-1)).toMatchObject({ ok: false, name: 'CUDA_ERROR_NOT_INITIALIZED' });
    expect(code).toBe(0);
  });

  test('have at most 64 KiB and no zero byte', async () => {
    const session = await openSession(openStandin());
    const longest = `state ${'1'.repeat(64 * 1024 - 6)}`;
    expect(await session.ask(longest)).toMatchObject({ ...BAD, text: expect.stringMatching(/^not a PID: 111/) });
    expect(await session.ask(`${longest}1`)).toEqual({ ...BAD, text: 'a request has at most 65536 bytes' });
    expect(await session.ask('x'.repeat(5 << 20))).toEqual({ ...BAD, text: 'a request has at most 65536 bytes' });
    expect(await session.ask(Buffer.from('state 1\0'))).toEqual({ ...BAD, text: 'a request has no zero byte' });
    expect(await session.ask('state 1')).toMatchObject({ ok: false, error: 3 });
    expect(await session.end()).toBe(0);
  });

  test('of any bytes get one line of JSON each', async () => {
    const standin = openStandin();
    const bytes = Buffer.alloc(200_000);
    // The same bytes each time: a failure can be looked into.
    for (let i = 0, seed = 12345; i < bytes.length; i++) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      bytes[i] = seed >>> 24;
    }
    const input = Buffer.concat([bytes, Buffer.from('\n')]);
    const { answers, code } = await converse(standin, input);
    expect(answers).toHaveLength(1 + input.filter((byte) => byte === 10).length);
    for (const answer of answers.slice(1)) expect(answer).toMatchObject({ ok: false, name: 'BAD_REQUEST' });
    expect(code).toBe(0);
  });

  test('may come many at once, and are answered in their order', async () => {
    const standin = openStandin();
    const worker = await startWorker(standin);
    const requests = Array.from({ length: 3000 }, (_, i) => (i % 3 === 0 ? `nothing-${i}` : `state ${worker.pid}`));
    const { answers } = await converse(standin, `${requests.join('\n')}\n`);
    expect(answers.slice(1)).toEqual(
      requests.map((request, i) =>
        i % 3 === 0 ? { ...BAD, text: `unknown request: ${request}` } : { ok: true, state: 'running' },
      ),
    );
  });
});
