import { execFileSync } from 'node:child_process';
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { readMounts } from '../../agent/container/mounts.ts';
import { readDeviceNodes } from '../../agent/cuda/device-nodes.ts';
import { openNative } from '../../agent/host/native.ts';
import { helperPath, scratch, startContainer, tidyUp } from './programs.ts';

afterAll(tidyUp);

const native = openNative({ helperPath, procRoot: '/proc', deadlineMs: 30_000 });

let container: Awaited<ReturnType<typeof startContainer>>;
let dev: string;
beforeEach(async () => {
  container = await startContainer();
  dev = join(container.root, 'dev');
  sh('mkdir', dev);
  sh('mknod', join(dev, 'nvidiactl'), 'c', '195', '255');
  sh('mknod', join(dev, 'nvidia0'), 'c', '195', '0');
});

const sh = (program: string, ...args: readonly string[]) => execFileSync(program, args, { stdio: 'pipe' });
const inside = (script: string) => sh('nsenter', '-t', `${container.pid}`, '-m', 'sh', '-ec', script);
const sources = { native, procRoot: '/proc', cgroupRoot: '/sys/fs/cgroup' };
const seen = async () => ({ id: container, mounts: await readMounts('/proc', container.pid) });
const read = async () => readDeviceNodes(sources, await seen(), [0, 5]);

describe('the device nodes of a container', () => {
  test('are read through its root', async () => {
    sh('mknod', join(dev, 'nvidia5'), 'c', '195', '5');
    sh('mknod', join(dev, 'nvidia9'), 'c', '195', '9');
    expect(await read()).toEqual({
      gpuMinors: [0, 5, 9],
      closed: [],
      // Here is no driver that opens them; the one that was not asked for is told of all the same.
      unknown: expect.toSatisfy(
        (unknown: string[]) => `${unknown.sort()}` === '/dev/nvidia0: ENXIO,/dev/nvidia5: ENXIO',
      ),
      untried: undefined,
      hasControl: true,
      hasUvm: false,
      migCapabilities: [],
      impostors: [],
    });
  });

  test('count only where its device cgroup lets them be opened', async () => {
    sh('mknod', join(dev, 'nvidia5'), 'c', '195', '5');
    const cgroup = join('/sys/fs/cgroup/devices', basename(scratch()));
    mkdirSync(cgroup);
    onTestFinished(async () => {
      container.child.kill('SIGKILL');
      await container.ended;
      rmdirSync(cgroup);
    });
    writeFileSync(join(cgroup, 'devices.deny'), 'c 195:5 rw');
    writeFileSync(join(cgroup, 'cgroup.procs'), `${container.pid}`);
    expect(await read()).toMatchObject({ gpuMinors: [0], closed: ['/dev/nvidia5'], unknown: ['/dev/nvidia0: ENXIO'] });
    const nowhere = await readDeviceNodes({ ...sources, cgroupRoot: '/nowhere' }, await seen(), [0, 5]);
    expect(nowhere).toMatchObject({ gpuMinors: [0, 5], closed: [], untried: expect.stringMatching(/\/nowhere/) });
    expect(nowhere.unknown.toSorted()).toEqual(['/dev/nvidia0', '/dev/nvidia5']);
  });

  test('are told from a file that was mounted for one, which is named with its source', async () => {
    sh('touch', join(container.volume, 'left-behind'), join(dev, 'nvidia1'));
    inside('mount --bind /volume/left-behind /dev/nvidia1');
    sh('rm', join(container.volume, 'left-behind'));
    const { gpuMinors, impostors } = await read();
    expect(gpuMinors).toEqual([0]);
    expect(impostors).toEqual([
      expect.stringMatching(/^\/dev\/nvidia1 is a regular file, mounted from .*left-behind\/\/deleted of a \S+$/),
    ]);
  });

  test('are not looked for through a symlink', async () => {
    sh('mv', dev, join(container.root, 'moved'));
    sh('ln', '-s', '/moved', dev);
    await expect(read()).rejects.toMatchObject({ code: 'GPU_IDENTITY', message: expect.stringMatching(/symlink/) });
  });

  test('are not looked for in a process that ended', async () => {
    const before = await seen();
    container.child.kill('SIGKILL');
    await container.ended;
    const gone = readDeviceNodes(sources, before, []);
    await expect(gone).rejects.toMatchObject({ code: 'CONTAINER_GONE' });
  });

  test('are too many to be those of a container', async () => {
    sh('sh', '-ec', `cd "${dev}"; seq -f 'nvidia-%g' 4097 | xargs touch`);
    await expect(read()).rejects.toMatchObject({
      code: 'GPU_IDENTITY',
      message: expect.stringMatching(/more than 4096/),
    });
  });
});
