import { describe, expect, it } from 'vitest';
import { parseMajors, sortNodes } from '../../../agent/cuda/device-nodes.ts';

const MAJORS = { gpu: 195, uvm: 510, caps: 237 };
type Found = Parameters<typeof sortNodes>[0];
type Node = Found['devices'][number];
const char = (path: string, major: number, minor: number, usable?: boolean | null): Node => ({
  ...{ path, type: 'char', major, minor },
  ...(usable === undefined ? {} : { usable }),
});
const sort = (
  devices: readonly Node[],
  majors: Parameters<typeof sortNodes>[1] = MAJORS,
  mounts: Parameters<typeof sortNodes>[2] = [],
) => sortNodes({ devices }, majors, mounts);
const PLAIN = [
  char('nvidia0', 195, 0),
  char('nvidiactl', 195, 255),
  char('nvidia-modeset', 195, 254),
  char('nvidia-uvm', 510, 0),
  char('nvidia-uvm-tools', 510, 1),
];

describe('/proc/devices', () => {
  const text = (lines: string) => `Character devices:\n  1 mem\n${lines}\nBlock devices:\n  7 loop\n510 nvidia\n`;

  it.each<[string, string, ReturnType<typeof parseMajors>]>([
    ['from driver 550 on', '195 nvidia\n195 nvidiactl\n237 nvidia-caps\n510 nvidia-uvm\n', MAJORS],
    [
      'of 580, with all modules',
      '195 nvidia\n195 nvidiactl\n238 nvidia-uvm\n239 nvidia-nvswitch\n240 nvidia-nvlink\n241 nvidia-caps\n242 nvidia-caps-imex-channels\n',
      { gpu: 195, uvm: 238, caps: 241 },
    ],
    ['before', '195 nvidia-frontend\n510 nvidia-uvm\n', { gpu: 195, uvm: 510, caps: undefined }],
    ['with another number', '196 nvidia\n', { gpu: 196, uvm: undefined, caps: undefined }],
    ['without the driver', '5 tty\n', { gpu: 195, uvm: undefined, caps: undefined }],
  ])('%s', (_, lines, expected) => {
    expect(parseMajors(text(lines))).toEqual(expected);
  });

  it('that cannot be read leaves the number that is fixed', () => {
    expect(parseMajors('')).toEqual({ gpu: 195, uvm: undefined, caps: undefined });
  });
});

describe('the device nodes of a container', () => {
  it('are told by number', () => {
    expect(sort(PLAIN)).toEqual({
      gpuMinors: [0],
      closed: [],
      unknown: [],
      untried: undefined,
      hasControl: true,
      hasUvm: true,
      migCapabilities: [],
      impostors: [],
    });
  });

  it('name their GPU by minor, whatever they are called, and once', () => {
    const nodes = [char('nvidia0', 195, 7), char('renamed', 195, 3), char('again', 195, 3), char('nvidia-x', 12, 5)];
    expect(sort(nodes)).toMatchObject({ gpuMinors: [3, 7], hasControl: false, hasUvm: false });
  });

  it('may be of MIG instances', () => {
    const caps = [1, 2, 12, 21].map((minor) => char(`nvidia-caps/nvidia-cap${minor}`, 237, minor));
    expect(sort([...PLAIN, ...caps])).toMatchObject({ migCapabilities: [12, 21], gpuMinors: [0] });
    expect(sort(caps, { ...MAJORS, caps: undefined }).migCapabilities).toEqual([]);
  });

  it('of unified memory cannot be told where its module is not loaded', () => {
    expect(sort(PLAIN, { ...MAJORS, uvm: undefined })).toMatchObject({ hasUvm: false, impostors: [] });
  });
});

describe('a node that the container', () => {
  it('may not open is not its own', () => {
    const nodes = [char('nvidia0', 195, 0, true), char('nvidia1', 195, 1, false), char('nvidiactl', 195, 255)];
    expect(sort(nodes)).toMatchObject({ gpuMinors: [0], closed: ['/dev/nvidia1'], unknown: [], hasControl: true });
  });

  it('may not open does not hide another one of the same GPU', () => {
    const nodes = [char('nvidia0', 195, 0, false), char('again', 195, 0, true)];
    expect(sort(nodes)).toMatchObject({ gpuMinors: [0], closed: ['/dev/nvidia0'] });
  });

  it('may not open is still an impostor where it has the name of another', () => {
    expect(sort([char('nvidiactl', 195, 0, false)])).toMatchObject({
      gpuMinors: [],
      impostors: ['/dev/nvidiactl is the character device 195:0'],
    });
  });

  it('may or may not open counts, with why that is not known', () => {
    const nodes = [{ ...char('nvidia0', 195, 0, null), errno: 'EIO' }, char('nvidia1', 195, 1, null)];
    expect(sortNodes({ devices: nodes, untried: { message: 'no cgroup' } }, MAJORS, [])).toMatchObject({
      gpuMinors: [0, 1],
      closed: [],
      unknown: ['/dev/nvidia0: EIO', '/dev/nvidia1'],
      untried: 'no cgroup',
    });
  });
});

describe('what only has the name of a device node', () => {
  it.each<[string, Node, string]>([
    ['a file', { path: 'nvidia1', type: 'file' }, '/dev/nvidia1 is a regular file'],
    ['a directory entry that leads elsewhere', { path: 'nvidia12', type: 'symlink' }, '/dev/nvidia12 is a symlink'],
    ['another device', char('nvidia1', 1, 3), '/dev/nvidia1 is the character device 1:3'],
    ['the control node', char('nvidia1', 195, 255), '/dev/nvidia1 is the character device 195:255'],
    ['a GPU as the control node', char('nvidiactl', 195, 0), '/dev/nvidiactl is the character device 195:0'],
    ['a file as the control node', { path: 'nvidiactl', type: 'file' }, '/dev/nvidiactl is a regular file'],
    ['another major', char('nvidia-uvm', 511, 0), '/dev/nvidia-uvm is the character device 511:0'],
    [
      'a block device',
      { path: 'nvidia0', type: 'block', major: 195, minor: 0 },
      '/dev/nvidia0 is the block device 195:0',
    ],
  ])('is named: %s', (_, node, said) => {
    const { impostors, gpuMinors } = sort([node]);
    expect(impostors).toEqual([said]);
    expect(gpuMinors.length).toBe(node.path === 'nvidiactl' && node.type === 'char' ? 1 : 0);
  });

  it('is named with where it was mounted from', () => {
    const mounts = [
      { mountPoint: '/dev/nvidia1', root: '/older', fstype: 'ext4' },
      { mountPoint: '/dev/nvidia1', root: '/nvidia1//deleted', fstype: 'devtmpfs' },
      { mountPoint: '/dev/nvidia10', root: '/nvidia10', fstype: 'devtmpfs' },
    ];
    expect(sort([{ path: 'nvidia1', type: 'file' }], MAJORS, mounts).impostors).toEqual([
      '/dev/nvidia1 is a regular file, mounted from /nvidia1//deleted of a devtmpfs',
    ]);
  });

  it('is no other file of the driver, nor one of the workload', () => {
    const others = ['nvidia-notes', 'nvidia-caps/nvidia-cap1', 'nvidiactl.log', 'nvidia'].map((path) => ({
      path,
      type: 'file',
    }));
    expect(sort(others).impostors).toEqual([]);
  });
});
