import { symlinkSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { helperPath, run, scratch, startSubject, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

let hook: string;
beforeAll(() => {
  hook = join(scratch(), 'snapshot-hook');
  symlinkSync(helperPath, hook);
});

/** Runs the hook against an agent that answers with `answer`; tells what the agent was asked. */
async function ask(action: string, answer: (socket: Socket) => void) {
  const path = join(scratch(), 'socket');
  let asked = '';
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (text) => {
      asked += String(text);
      answer(socket);
    });
  });
  await new Promise<void>((done) => server.listen(path, done));
  const result = await run(['env', `CRTOOLS_SCRIPT_ACTION=${action}`, `SNAPSHOT_HOOK_SOCKET=${path}`, hook]);
  server.close();
  return { asked, code: result.code };
}

describe("CRIU's hook", () => {
  test('asks after the dump, and passes on "ok"', async () => {
    expect(await ask('post-dump', (socket) => socket.write('ok\n'))).toEqual({ asked: 'post-dump\n', code: 0 });
  });

  test.each([
    ['another answer', (socket: Socket) => void socket.write('no\n')],
    ['an answer without an end', (socket: Socket) => void socket.end('ok')],
    ['an endless answer', (socket: Socket) => void socket.write('o'.repeat(100000))],
    ['no answer', (socket: Socket) => void socket.destroy()],
  ])('fails for %s', async (_, answer) => {
    expect(await ask('post-dump', answer)).toEqual({ asked: 'post-dump\n', code: 1 });
  });

  test('fails when there is no agent', async () => {
    const path = join(scratch(), 'nobody');
    const env = ['env', '-u', 'SNAPSHOT_HOOK_SOCKET', 'CRTOOLS_SCRIPT_ACTION=post-dump'];
    expect(await run([...env, `SNAPSHOT_HOOK_SOCKET=${path}`, hook])).toMatchObject({ code: 1 });
    expect(await run([...env, `SNAPSHOT_HOOK_SOCKET=/${'x'.repeat(200)}`, hook])).toMatchObject({ code: 1 });
    expect(await run([...env, hook])).toMatchObject({ code: 1 });
  });

  test('passes every other action without asking', async () => {
    for (const action of ['pre-dump', 'network-lock', 'post-restore', ''])
      expect(await ask(action, () => undefined)).toEqual({ asked: '', code: 0 });
    expect(await run(['env', '-u', 'CRTOOLS_SCRIPT_ACTION', hook])).toMatchObject({ code: 0, stdout: '', stderr: '' });
  });
});

test('probe tells what this kernel can do', async () => {
  const { release } = await import('node:os');
  const probed = await verb(['probe']);
  expect(probed).toMatchObject({ openat2: true, pidfd: true, openTree: true, nosymfollow: true, kernel: release() });
  const [major = 0, minor = 0] = release().split('.').map(Number);
  expect(probed['pidfdExitCode']).toBe(major > 6 || (major === 6 && minor >= 15));
  const without = await verb(['probe'], { prefix: ['setpriv', '--bounding-set', '-sys_admin,-sys_resource', '--'] });
  expect(without).toMatchObject({ openat2: true, openTree: false, nosymfollow: false, capSysResource: false });
});

test("ipc-usage counts the objects of the target's namespace", async () => {
  const subject = await startSubject('ipc');
  expect(await verb(['ipc-usage', ...subject.target])).toEqual({ shm: 2, sem: 1, msg: 1 });
});
