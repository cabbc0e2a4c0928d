import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call, openSession, readTail, runToFiles } from '../../../agent/host/exec.ts';

let top: string;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'exec-'));
});
afterEach(async () => {
  await rm(top, { recursive: true, force: true });
});

const sh = (script: string) => ['/bin/sh', '-c', script];
const shell = (script: string, more: Partial<Parameters<typeof call>[0]> = {}) =>
  call({ argv: sh(script), env: { PATH: '/usr/bin:/bin' }, deadlineMs: 5_000, ...more });
const files = () => ({ stdoutFile: join(top, 'out'), stderrFile: join(top, 'err') });
const toFiles = (script: string, more: Partial<Parameters<typeof runToFiles>[0]> = {}) =>
  runToFiles({ argv: sh(script), env: { PATH: '/usr/bin:/bin' }, deadlineMs: 5_000, ...files(), ...more });

/** Whether the process whose PID a script wrote to a file is there. */
async function isAlive(pidFile: string): Promise<boolean> {
  const pid = Number(await readFile(join(top, pidFile), 'utf8'));
  expect(pid).toBeGreaterThan(1);
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return text !== '' && !/\) [ZX] /.test(text);
}
async function eventually(holds: () => Promise<boolean> | boolean): Promise<boolean> {
  for (let i = 0; i < 200; i++) {
    if (await holds()) return true;
    await sleep(10);
  }
  return false;
}
const exists = (name: string) => eventually(() => existsSync(join(top, name)));

describe('a called program', () => {
  it('gives back what it printed, how it ended, and nothing of it was timed out', async () => {
    expect(await shell('echo out; echo err >&2; exit 3')).toEqual({
      exitCode: 3,
      signal: null,
      timedOut: false,
      undead: false,
      stdout: 'out\n',
      stderr: 'err\n',
    });
  });

  it('that is killed has a signal and no exit code', async () => {
    expect(await shell('kill -TERM $$')).toMatchObject({ exitCode: null, signal: 'SIGTERM', timedOut: false });
  });

  it('reads what it is given', async () => {
    expect(await shell('cat', { input: 'grüße\n' })).toMatchObject({ stdout: 'grüße\n', exitCode: 0 });
    expect(await shell('cat')).toMatchObject({ stdout: '', exitCode: 0 });
  });

  it('may end without reading what it is given', async () => {
    const input = 'x'.repeat(4 << 20);
    expect(await shell('exit 0', { input, secret: Buffer.alloc(1 << 20) })).toMatchObject({ exitCode: 0 });
  });

  it('sees no environment but the one it is given', async () => {
    process.env['EXEC_TEST_LEAK'] = 'leaked';
    try {
      const { stdout } = await shell('/usr/bin/env', { env: { GIVEN: 'yes' } });
      const names = stdout
        .trim()
        .split('\n')
        .filter((line) => !/^(PWD|SHLVL|_|OLDPWD)=/.test(line));
      expect(names).toEqual(['GIVEN=yes']);
    } finally {
      delete process.env['EXEC_TEST_LEAK'];
    }
  });

  it('is given its arguments as they are: no shell reads them', async () => {
    const { stdout } = await call({ argv: ['/bin/echo', '$HOME', '; exit 1', '*'], deadlineMs: 5_000 });
    expect(stdout).toBe('$HOME ; exit 1 *\n');
  });

  it('gets a secret on descriptor 3, and nobody sees it in arguments or environment', async () => {
    const secret = randomBytes(32);
    const { stdout } = await shell(
      'cat /proc/$$/cmdline /proc/$$/environ | od -An -tx1 | tr -d " \\n"; echo; cat <&3 | od -An -tx1 | tr -d " \\n"',
      { secret },
    );
    const [seen = '', read] = stdout.split('\n');
    expect(read).toBe(secret.toString('hex'));
    expect(seen).not.toContain(secret.toString('hex'));
    expect(seen).not.toContain(Buffer.from(secret.toString('hex')).toString('hex'));
  });

  it('has no descriptor 3 without a secret', async () => {
    expect((await shell('test -e /proc/$$/fd/3')).exitCode).toBe(1);
  });

  it('has each of its lines told as they come, whole, however it writes them', async () => {
    const lines: string[] = [];
    const script =
      'printf \'{"done":12\'; sleep 0.05; printf \'34}\\n{"done":5}\\n{"la\'; sleep 0.05; printf \'st":1}\'';
    const { stdout } = await shell(script, { onLine: (line) => lines.push(line) });
    expect(lines).toEqual(['{"done":1234}', '{"done":5}', '{"last":1}']);
    expect(stdout).toBe(`${lines.join('\n')}`);
  });

  it('that does not exist, or that nobody may run, is told by name', async () => {
    const plain = join(top, 'plain');
    await writeFile(plain, '');
    for (const program of [join(top, 'missing'), plain])
      await expect(call({ argv: [program], deadlineMs: 5_000 })).rejects.toMatchObject({
        code: 'INTERNAL',
        message: expect.stringContaining(`cannot start ${program}`),
      });
    await expect(call({ argv: [], deadlineMs: 5_000 })).rejects.toMatchObject({ code: 'INTERNAL' });
  });
});

describe('the deadline of a program', () => {
  it('kills it with all of its group, grandchildren included', async () => {
    const began = performance.now();
    const result = await shell(`sleep 60 & echo $! > ${top}/grandchild; wait`, { deadlineMs: 150 });
    expect(result).toMatchObject({ exitCode: null, signal: 'SIGKILL', timedOut: true, undead: false });
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(await eventually(async () => !(await isAlive('grandchild')))).toBe(true);
  });

  it('kills one that ignores what can be ignored', async () => {
    const result = await toFiles("trap '' TERM INT HUP; while :; do sleep 0.05; done", { deadlineMs: 150 });
    expect(result).toMatchObject({ signal: 'SIGKILL', timedOut: true });
  });

  it('does not touch us, nor a program of another call', async () => {
    const other = shell('sleep 0.3; echo lived');
    await shell('sleep 60', { deadlineMs: 50 });
    expect(await other).toMatchObject({ stdout: 'lived\n', exitCode: 0 });
  });

  it('is not said to have passed where the program was quick', async () => {
    const result = await shell('exit 0', { deadlineMs: 60_000 });
    expect(result.timedOut).toBe(false);
  });
});

describe('an aborted program', () => {
  it('is killed at once with its group', async () => {
    const abort = new AbortController();
    const running = shell(
      `sleep 60 & echo $! > ${top}/grandchild.new; mv ${top}/grandchild.new ${top}/grandchild; wait`,
      {
        signal: abort.signal,
      },
    );
    expect(await exists('grandchild')).toBe(true);
    const began = performance.now();
    abort.abort();
    expect(await running).toMatchObject({ exitCode: null, signal: 'SIGKILL', timedOut: false });
    expect(performance.now() - began).toBeLessThan(1_000);
    expect(await eventually(async () => !(await isAlive('grandchild')))).toBe(true);
  });

  it('does not get far where it was aborted before it began', async () => {
    const result = await shell(`sleep 0.2; touch ${top}/done`, { signal: AbortSignal.abort() });
    expect(result).toMatchObject({ signal: 'SIGKILL' });
    await sleep(250);
    expect(existsSync(join(top, 'done'))).toBe(false);
  });

  it('leaves no listener behind on the signal of a long operation', async () => {
    const warnings: Error[] = [];
    const warn = (warning: Error) => warnings.push(warning);
    process.on('warning', warn);
    const { signal } = new AbortController();
    for (let i = 0; i < 15; i++) await call({ argv: ['/bin/true'], deadlineMs: 5_000, signal });
    await sleep(10);
    process.off('warning', warn);
    expect(warnings).toEqual([]);
  });
});

describe('a program whose output goes to files', () => {
  it('leaves there what it printed, for the agent alone', async () => {
    expect(await toFiles('echo out; echo err >&2; exit 4')).toEqual({
      exitCode: 4,
      signal: null,
      timedOut: false,
      undead: false,
    });
    expect(await readFile(join(top, 'out'), 'utf8')).toBe('out\n');
    expect(await readFile(join(top, 'err'), 'utf8')).toBe('err\n');
    expect((await stat(join(top, 'out'))).mode & 0o777).toBe(0o600);
  });

  it('is not waited for beyond its end, though a descendant keeps the output open', async () => {
    const began = performance.now();
    const result = await toFiles(`sleep 30 & echo $! > ${top}/left; exit 0`);
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(result).toMatchObject({ exitCode: 0, timedOut: false });
    expect(await isAlive('left')).toBe(true);
    process.kill(Number(await readFile(join(top, 'left'), 'utf8')), 'SIGKILL');
  });

  it('begins with empty files', async () => {
    await writeFile(join(top, 'out'), 'of an earlier run');
    await toFiles('true');
    expect(await readFile(join(top, 'out'), 'utf8')).toBe('');
  });

  it('reads nothing', async () => {
    await toFiles('cat; echo end');
    expect(await readFile(join(top, 'out'), 'utf8')).toBe('end\n');
  });

  it('leaves no descriptor open in the agent, however it ends', async () => {
    const open = async () => (await import('node:fs/promises')).readdir('/proc/self/fd');
    await toFiles('exit 0');
    const before = (await open()).length;
    for (let i = 0; i < 5; i++) await toFiles('exit 1');
    await toFiles('sleep 9', { deadlineMs: 20 });
    await toFiles('', { argv: [join(top, 'missing')] }).catch(() => undefined);
    await toFiles('exit 0', { stderrFile: join(top, 'no/such/dir') }).catch(() => undefined);
    expect((await open()).length).toBe(before);
  });
});

describe('a session with a child', () => {
  const isNotice = (line: string) => line.startsWith('notice');
  const script = (body: string) => sh(`echo hello; ${body}`);
  const echo = 'while read line; do case "$line" in end) exit 0;; *) echo "re $line";; esac; done';

  it('begins with the first line, and answers line by line in order', async () => {
    const { first, session } = await openSession(script(echo), isNotice);
    expect(first).toBe('hello');
    expect(await Promise.all([session.ask('a'), session.ask('b'), session.ask('c')])).toEqual(['re a', 're b', 're c']);
    session.stop();
    expect(await session.ended).toEqual([]);
  });

  it('tells notices from answers', async () => {
    const body = 'while read line; do echo "notice 1"; echo "re $line"; done; echo "notice 2"';
    const { session } = await openSession(script(body), isNotice);
    expect(await session.ask('a')).toBe('re a');
    session.stop();
    expect(await session.ended).toEqual(['notice 1', 'notice 2']);
  });

  it('puts together lines that come in pieces, and takes apart those that come at once', async () => {
    const body = "read x; printf 'on'; sleep 0.05; printf 'e\\ntwo\\n'; cat > /dev/null";
    const { session } = await openSession(script(body), isNotice);
    expect(await Promise.all([session.ask('go'), session.ask('more')])).toEqual(['one', 'two']);
    session.stop();
    await session.ended;
  });

  it('rejects what is asked when the child ends, and afterwards, with what the child said last', async () => {
    const { session } = await openSession(script("read x; echo 'out of luck' >&2; exit 1"), isNotice);
    await expect(session.ask('a')).rejects.toThrow('out of luck');
    await expect(session.ask('b')).rejects.toThrow('out of luck');
    expect(await session.ended).toEqual([]);
    session.stop();
  });

  it('is refused where the child ends without a first line, or cannot be started', async () => {
    await expect(openSession(sh('echo nope >&2; exit 1'), isNotice)).rejects.toThrow('nope');
    await expect(openSession([join(top, 'missing')], isNotice)).rejects.toThrow();
  });

  it('ends when stopped: the child sees the end of its input', async () => {
    const { session } = await openSession(script(`cat > /dev/null; echo bye > ${top}/bye`), isNotice);
    session.stop();
    await session.ended;
    expect(existsSync(join(top, 'bye'))).toBe(true);
  });
});

describe('the tail of a file', () => {
  it('is its last bytes, all of a small one, and nothing of none', async () => {
    const path = join(top, 'log');
    await writeFile(path, '0123456789');
    expect(await readTail(path, 4)).toBe('6789');
    expect(await readTail(path, 100)).toBe('0123456789');
    expect(await readTail(join(top, 'missing'), 4)).toBe('');
  });
});
