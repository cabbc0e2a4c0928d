import { afterEach, expect, it } from 'vitest';
import { gpuUsers } from '../../../agent/container/gpu-users.ts';
import { readTree } from '../../../agent/container/tree.ts';
import { type FakeProcess, makeProcfs, type Procfs } from '../../fakes/procfs.ts';

let procfs: Procfs;
afterEach(() => procfs.remove());

async function users(...processes: FakeProcess[]) {
  procfs = await makeProcfs(processes);
  const found = await gpuUsers(procfs.root, await readTree(procfs.root, processes[0]?.pid ?? 0));
  return found.map(({ process, ...rest }) => ({ pid: process.stat.pid, ...rest }));
}

const line = (path: string) => `7f0000000000-7f0000001000 rw-s 00000000 00:06 512                 ${path}\n`;
const nothing = { mapped: [], open: [], libcuda: [], interposers: [] };

it('of a tree are those that map or hold a device of the GPU, or libcuda', async () => {
  const found = await users(
    {
      pid: 10,
      children: [11, 12, 13, 14],
      files: { maps: line('/dev/nvidia0') + line('/dev/nvidiactl') + line('/dev/nvidia0') },
    },
    { pid: 11, fds: { 3: '/dev/nvidia-uvm', 4: '/dev/null', 5: '/dev/nvidia-uvm' } },
    { pid: 12, files: { maps: line('/usr/lib/libcuda.so.580.159.04') + line('/usr/lib/libcudart.so.12') } },
    { pid: 13, fds: { 3: '/data/dev/nvidia0', 4: 'socket:[1]' }, files: { maps: line('/dev/zero') + line('') } },
    { pid: 14, state: 'Z', files: { maps: line('/dev/nvidia0') } },
  );
  expect(found).toEqual([
    { pid: 10, ...nothing, mapped: ['/dev/nvidia0', '/dev/nvidiactl'] },
    { pid: 11, ...nothing, open: ['/dev/nvidia-uvm'] },
    { pid: 12, ...nothing, libcuda: ['/usr/lib/libcuda.so.580.159.04'] },
  ]);
});

it.each([
  ['/usr/local/vgpu/libvgpu.so', true],
  ['/opt/lib64/libcuda-control.so', true],
  ['/kubeshare/library/libgemhook.so.1', true],
  ['/usr/lib/libToolsInjection64.so', true],
  ['/usr/lib/libcuinj64.so.12.4', true],
  ['/usr/lib/libcupti.so.12', false],
  ['/usr/lib/libjemalloc.so.2', false],
  ['/usr/lib/libnvidia-ml.so.1', false],
])('have %s between them and the driver: %j', async (path, isBetween) => {
  const [one] = await users({ pid: 10, files: { maps: line('/lib/libcuda.so.1') + line(path) } });
  expect(one?.interposers).toEqual(isBetween ? [path] : []);
});

it('are known by paths with blanks, and by files that are deleted', async () => {
  const [one] = await users({ pid: 10, files: { maps: line('/my libs/libcuda.so.1 (deleted)') } });
  expect(one?.libcuda).toEqual(['/my libs/libcuda.so.1']);
});
