import { afterAll, describe, expect, test } from 'vitest';
import { failure, helperPath, run, start, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

const targetVerbs: Record<string, string[]> = {
  pin: [],
  attach: ['--path', '/', '--at', '/'],
  put: ['--dir', '/tmp', '--name', 'x'],
  look: ['--dir', '/tmp', '--name', 'x'],
  remove: ['--dir', '/tmp', '--name', 'x'],
  devices: ['--dir', '/dev', '--prefix', 'x', '--major', '1'],
  graft: ['--into', '1:1', '/dev/null'],
  'ipc-usage': [],
  seccomp: [],
  'block-signal': ['--sig', '15'],
  'inject-exit': ['--code', '1'],
  arm: ['--inner', '2'],
};

describe('arguments', () => {
  const wrong = [
    [],
    ['no-such-verb'],
    ['probe', 'extra'],
    ['probe', '--unknown', '1'],
    ['lock'],
    ['lock', '--file', ''],
    ['pin'],
    ['pin', '--pid'],
    ['pin', '--pid', 'x'],
    ['pin', '--pid', '-1'],
    ['pin', '--pid', '99999999999999999999999'],
    ['pin', '--pid', '1', '--pid', '1'],
    ['signal', '1:1'],
    ['signal', '--sig', '0', '1:1'],
    ['signal', '--sig', '65', '1:1'],
    ['signal', '--sig', '15', '1'],
    ['signal', '--sig', '15', '0:1'],
    ['private-tmpfs', '--at', '/tmp'],
    ['private-tmpfs', '--at', '/tmp', '--size', '0'],
    ['attach', '--path', '/'],
    ['attach', '--path', '', '--at', '/tmp'],
    ['attach', '--path', '/', '--at', '/tmp', '--create', '2'],
    ['attach', '--path', '/', '--at', '/tmp', '--pid', '1'],
    ['attach', '--path', '/', '--at', '/tmp', '--start', '1'],
    ['detach'],
    ['put', '--pid', '1', '--start', '1', '--dir', '/tmp', '--name', 'a/b'],
    ['put', '--pid', '1', '--start', '1', '--dir', '/tmp', '--name', '..'],
    ['put', '--pid', '1', '--start', '1', '--dir', '/tmp', '--name', 'a', '--mode', '4755'],
    ['put', '--pid', '1', '--start', '1', '--dir', '/tmp', '--name', 'a', '--mode', '09'],
    ['look', '--pid', '1', '--start', '1', '--dir', '/tmp', '--name', '/etc/passwd'],
    ['remove', '--pid', '1', '--start', '1', '--dir', '/tmp', '--name', 'x'.repeat(201)],
    ['graft', '--pid', '1', '--start', '1', '/dev/null'],
    ['graft', '--pid', '1', '--start', '1', '--into', '1', '/dev/null'],
    ['devices', '--pid', '1', '--start', '1', '--dir', '/dev', '--prefix', 'x'],
    ['devices', '--pid', '1', '--start', '1', '--dir', '/dev', '--prefix', '', '--major', '1'],
    ['devices', '--pid', '1', '--start', '1', '--dir', '/dev', '--prefix', 'x', '--major', '4096'],
    ['devices', '--pid', '1', '--start', '1', '--dir', '/dev', '--prefix', 'x', '--major', '1', '--major', '-1'],
    ...['1', '1:', ':3', '1:-3', '4096:0', '1:1048576', '1:3:5'].map((device) => [
      ...['devices', '--pid', '1', '--start', '1', '--dir', '/dev', '--prefix', 'x', '--major', '1'],
      ...['--open', device, '--cgroup-root', '/sys/fs/cgroup'],
    ]),
    ['devices', '--pid', '1', '--start', '1', '--dir', '/dev', '--prefix', 'x', '--major', '1', '--open', '1:3'],
    ['block-signal', '--pid', '1', '--start', '1', '--sig', '9'],
    ['inject-exit', '--pid', '1', '--start', '1', '--code', '256'],
    ['arm', '--pid', '1', '--start', '1', '--inner', '0'],
  ];
  test.each(wrong.map((args) => ({ line: args.join(' ').slice(0, 80), args })))(
    'that are wrong end with 2: $line',
    async ({ args }) => {
      const result = await run([helperPath, ...args]);
      expect(result).toMatchObject({ code: 2, stdout: '' });
      expect(result.stderr).toMatch(
        args[0] === undefined || args[0] === 'no-such-verb' ? 'verbs:' : `snapshot-helper ${args[0]}`,
      );
    },
  );
});

describe('a target', () => {
  test.each(Object.entries(targetVerbs))('of another start time is gone: %s', async (name, args) => {
    const subject = await start(['sleep', 'infinity']);
    const other = ['--pid', `${subject.pid}`, '--start', `${subject.start + 1}`];
    const line = await failure([name, ...other, ...args]);
    expect(line).toMatchObject({ code: 'TARGET_GONE', step: 'start time' });
    expect(subject.child.exitCode).toBeNull();
  });

  test.each(Object.entries(targetVerbs))('that has ended is gone: %s', async (name, args) => {
    const subject = await start(['sleep', 'infinity']);
    subject.child.kill('SIGKILL');
    await subject.ended;
    expect(await failure([name, ...subject.target, ...args])).toMatchObject({ code: 'TARGET_GONE', errno: 'ESRCH' });
  });

  test('is looked for in the procfs that was named', async () => {
    const subject = await start(['sleep', 'infinity']);
    const args = ['look', ...subject.target, '--dir', '/usr', '--name', 'no-such-file'];
    expect(await verb([...args, '--proc', '/proc'])).toEqual({ dir: true, exists: false });
    expect(await failure([...args, '--proc', '/usr'])).toMatchObject({ code: 'TARGET_GONE' });
    expect(await failure([...args, '--proc', '/no-such-procfs'])).toMatchObject({
      errno: 'ENOENT',
      target: '/no-such-procfs',
    });
  });

  test('cannot be process 0', async () => {
    expect(await failure(['pin', '--pid', '0'])).toMatchObject({ code: 'TARGET_GONE' });
  });
});
