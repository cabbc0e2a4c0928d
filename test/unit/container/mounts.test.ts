import { describe, expect, it } from 'vitest';
import { isExternal, planMounts, projectedMountPoints, readMounts, upperDir } from '../../../agent/container/mounts.ts';
import { parseMountinfo } from '../../../agent/container/proc.ts';
import { makeProcfs } from '../../fakes/procfs.ts';

const table = (...lines: [mountPoint: string, fstype: string, options?: string][]) =>
  parseMountinfo(
    lines
      .map(([at, type, options = 'rw'], n) => `${n + 10} 1 0:${n} / ${at} rw - ${type} ${type} ${options}\n`)
      .join(''),
  );

describe('the plan of mounts', () => {
  it('takes all from the placeholder but the root and what lies in /proc', () => {
    const plan = planMounts(
      table(
        ['/', 'overlay'],
        ['/proc', 'proc'],
        ['/proc/kcore', 'tmpfs'],
        ['/dev', 'tmpfs'],
        ['/proc-data', 'ext4'],
        ['/sys', 'sysfs'],
      ),
    );
    expect(plan.external.map(({ mountPoint }) => mountPoint)).toEqual(['/dev', '/proc-data', '/sys']);
    expect(plan.all).toHaveLength(6);
    expect(plan.root.fstype).toBe('overlay');
    for (const { mountPoint } of plan.external) expect(isExternal(mountPoint)).toBe(true);
  });

  it('sets those of the GPU apart, which another container has under other names', () => {
    const gpu = [
      '/dev/nvidia0',
      '/dev/nvidiactl',
      '/dev/nvidia-uvm',
      '/dev/nvidia-caps/nvidia-cap2',
      '/proc/driver/nvidia',
    ];
    const others = ['/', '/dev', '/dev/nvidia-data', '/dev/nvidia0.d', '/proc/driver/nvidia2', '/data/dev/nvidia0'];
    const plan = planMounts(table(...[...others, ...gpu].map((point): [string, string] => [point, 'devtmpfs'])));
    expect(plan.gpu.map(({ mountPoint }) => mountPoint)).toEqual(gpu);
    expect(plan.all.map(({ mountPoint }) => mountPoint)).toEqual(others);
    expect(plan.external.map(({ mountPoint }) => mountPoint).filter((point) => gpu.includes(point))).toEqual([]);
  });

  it('lists a point once that is mounted several times, as it is seen', () => {
    const plan = planMounts(table(['/', 'rootfs'], ['/data', 'tmpfs'], ['/', 'overlay'], ['/data', 'nfs4']));
    expect(plan.all.map(({ mountPoint, fstype }) => [mountPoint, fstype])).toEqual([
      ['/', 'overlay'],
      ['/data', 'nfs4'],
    ]);
    expect(plan.root.fstype).toBe('overlay');
  });

  it.each<[string, [string, string][], boolean]>([
    ['a tmpfs', [['/dev/shm', 'tmpfs']], true],
    ['nothing', [], false],
    ['a directory of the host', [['/dev/shm', 'ext4']], false],
    [
      'a directory over a tmpfs',
      [
        ['/dev/shm', 'tmpfs'],
        ['/dev/shm', 'ext4'],
      ],
      false,
    ],
  ])('knows shared memory by what is at /dev/shm: %s', (_, mounts, hasShm) => {
    expect(planMounts(table(['/', 'overlay'], ...mounts)).hasShm).toBe(hasShm);
  });

  it('is refused without a root', () => {
    expect(() => planMounts(table(['/dev', 'tmpfs']))).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});

describe('the upper directory', () => {
  it('is that of the overlay, whatever is in its name', () => {
    const [root] = table(['/', 'overlay', 'rw,lowerdir=/a:/b,upperdir=/var/lib/c\\040d/fs,workdir=/w,upperdirx=/no']);
    expect(root && upperDir(root)).toBe('/var/lib/c d/fs');
  });

  it('is none without an overlay, or in one that is read-only', () => {
    for (const [root] of [table(['/', 'ext4', 'upperdir=/x']), table(['/', 'overlay', 'ro,lowerdir=/a'])])
      expect(root && upperDir(root)).toBeUndefined();
  });
});

describe('projected mounts', () => {
  const pods = '/var/lib/kubelet/pods/uid/volumes';

  it.each([
    ['kubernetes.io~secret', true],
    ['kubernetes.io~projected', true],
    ['kubernetes.io~configmap', true],
    ['kubernetes.io~downward-api', true],
    ['kubernetes.io~empty-dir', false],
    ['kubernetes.io~nfs', false],
  ])('are known by their source: %s', (kind, isProjected) => {
    const points = projectedMountPoints([{ destination: '/etc/thing', source: `${pods}/${kind}/name` }]);
    expect(points).toEqual(isProjected ? ['/etc/thing'] : []);
  });

  it('at /var/run are found at /run as well, where most images have the directory', () => {
    const destination = '/var/run/secrets/kubernetes.io/serviceaccount';
    expect(projectedMountPoints([{ destination, source: `${pods}/kubernetes.io~projected/kube-api-access` }])).toEqual([
      destination,
      '/run/secrets/kubernetes.io/serviceaccount',
    ]);
  });
});

describe('the mount table of a process', () => {
  it('is that of this very process where asked', async () => {
    const mounts = await readMounts('/proc', process.pid);
    expect(mounts.some(({ mountPoint }) => mountPoint === '/')).toBe(true);
  });

  it('of one that is gone cannot be read, and that is what is said', async () => {
    const procfs = await makeProcfs();
    await expect(readMounts(procfs.root, 99)).rejects.toMatchObject({ code: 'CONTAINER_GONE' });
    await procfs.remove();
  });
});
