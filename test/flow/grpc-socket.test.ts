import { execFile } from 'node:child_process';
import { chmod, lstat, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import type { GrpcOptions } from '../../agent/api/grpc.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanUp.splice(0).reverse()) await clean();
});

async function start(config: Partial<GrpcOptions> = {}, directory?: string): Promise<Started> {
  const started = await startEndpoint(config, directory);
  cleanUp.push(() => started.stop());
  return started;
}

async function makeHome(): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'grpc-'));
  cleanUp.push(() => rm(home, { recursive: true, force: true }));
  return home;
}

describe('the unix socket', () => {
  const modeOf = async (path: string) => ((await lstat(path)).mode & 0o777).toString(8);

  it('is of mode 0600 in a directory of mode 0700, whatever the umask', async () => {
    const umask = process.umask(0);
    cleanUp.push(() => process.umask(umask));
    const { socketPath, directory } = await start();
    expect([await modeOf(socketPath), await modeOf(join(directory, 'api'))]).toEqual(['600', '700']);
  });

  it('takes the place of one that a dead agent left behind', async () => {
    const home = await makeHome();
    await mkdir(join(home, 'api'), { mode: 0o755 });
    const path = join(home, 'api', 'agent.sock');
    await leaveSocket(path);
    const { local } = await start({}, home);
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
    expect(await modeOf(join(home, 'api'))).toBe('700');
  });

  it('of a living agent is left alone', async () => {
    const { directory, local } = await start();
    await expect(startEndpoint({}, directory)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('another process answers'),
    });
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it('does not replace what is no socket', async () => {
    const home = await makeHome();
    await mkdir(join(home, 'api'), { mode: 0o700 });
    await writeFile(join(home, 'api', 'agent.sock'), 'precious');
    await expect(startEndpoint({}, home)).rejects.toThrow('is no socket');
  });

  it('does not close a directory that others use', async () => {
    const home = await makeHome();
    await mkdir(join(home, 'api'));
    await chmod(join(home, 'api'), 0o755);
    await writeFile(join(home, 'api', 'other'), '');
    await expect(startEndpoint({}, home)).rejects.toThrow('use a directory of its own');
    expect(await modeOf(join(home, 'api'))).toBe('755');
  });

  it('does not follow a link in place of its directory', async () => {
    const home = await makeHome();
    await mkdir(join(home, 'elsewhere'));
    await symlink('elsewhere', join(home, 'api'));
    await expect(startEndpoint({}, home)).rejects.toThrow('it is no directory');
  });

  it('has a path that the kernel takes, or none', async () => {
    const home = await makeHome();
    await expect(startEndpoint({ socketPath: join(home, 'x'.repeat(108)) }, home)).rejects.toThrow('107 bytes');
  });
});

/** A socket that nobody listens on any more, as a killed process leaves it. */
async function leaveSocket(path: string): Promise<void> {
  const listen = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await promisify(execFile)(process.execPath, ['-e', listen]).catch(() => undefined);
  expect((await lstat(path)).isSocket()).toBe(true);
}
