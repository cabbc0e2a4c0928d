import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AdmissionTarget, admissionProblems, readImages } from '../../../agent/criu/images/admission.ts';
import { capabilityNames } from '../../../agent/criu/images/capabilities.ts';
import { readProcesses, readSeccompFilters } from '../../../agent/criu/images/processes.ts';
import { readDumpStats, readRestoreStats } from '../../../agent/criu/stats.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import {
  makeDir,
  message,
  PAGE,
  type ProcessSketch,
  put,
  putLeast,
  putMemory,
  putMounts,
  putPagemap,
  putProcesses,
  REGULAR_FILE,
  socketEntry,
} from './synthetic.ts';

const corrupt = expect.objectContaining({ code: 'ARTIFACT_CORRUPT' });

const TARGET: AdmissionTarget = {
  recordedMountPoints: ['/'],
  mountPoints: ['/', '/data', '/proc'],
  boundingCaps: 0b1110n,
  permittedCaps: 0b1110n,
  noNewPrivs: false,
  seccompMode: 0,
  seccompFilters: [],
  lsmLabel: undefined,
  externalKeys: ['mnt[/data]', 'extNetNs'],
};

const FILTER_A = '0600000000000000';
const FILTER_B = '0600000001000000';

/** seccomp.img: A alone is 0, A and then B is 1, B alone is 2; A for all threads is 3, and with B for one thread after it 4. */
function putFilters(dir: string): void {
  const filter = (hex: string, ...more: [number, number][]) => message([1, Buffer.from(hex, 'hex')], ...more);
  put(dir, 'seccomp.img', 'seccomp', [
    message(
      [1, filter(FILTER_A)],
      [1, filter(FILTER_A, [2, 2])],
      [1, filter(FILTER_B)],
      [1, filter(FILTER_A, [3, 1])],
      [1, filter(FILTER_A, [2, 2], [3, 1])],
    ),
  ]);
}

async function codes(prepare: (dir: string) => void, target: Partial<AdmissionTarget> = {}): Promise<string[]> {
  const dir = makeDir();
  putLeast(dir);
  prepare(dir);
  return admissionProblems(await readImages(dir), { ...TARGET, ...target }).map(({ code }) => code);
}

const one =
  (...threads: NonNullable<ProcessSketch['threads']>) =>
  (dir: string) => {
    putFilters(dir);
    putProcesses(dir, [{ pid: 1, ppid: 0, threads }]);
  };

describe('admissionProblems', () => {
  it('admits what is within the target', async () => {
    expect(await codes(() => undefined)).toEqual([]);
    const caps = { bounding: 0b1110, effective: 0b0010, ambient: 0b0100 };
    expect(await codes(one({ caps }, { caps }))).toEqual([]);
    const mounts = [
      { point: '/', fstype: 17 },
      { point: '/data', key: '/data' },
      { point: '/proc', fstype: 1 },
    ];
    const recordedMountPoints = mounts.map(({ point }) => point);
    expect(await codes((dir) => putMounts(dir, mounts), { recordedMountPoints })).toEqual([]);
  });

  it.each([
    ['a bounding set that is larger', { bounding: 0b10000 }],
    ['an effective capability', { effective: 1 }],
    ['an ambient one', { ambient: 0b10000 }],
  ])('refuses %s, in any thread', async (_, caps) => {
    expect(await codes(one({}, { caps }))).toEqual(['CAPABILITY_EXCEEDED']);
  });

  it('wants no_new_privs where the target has it, in every thread', async () => {
    expect(await codes(one({ noNewPrivs: true }, { noNewPrivs: true }), { noNewPrivs: true })).toEqual([]);
    expect(await codes(one({ noNewPrivs: true }, {}), { noNewPrivs: true })).toEqual(['NO_NEW_PRIVS_WEAKER']);
  });

  it('wants the filters of the target to come first', async () => {
    const filtered = { seccompMode: 2, seccompFilters: [FILTER_A] };
    expect(await codes(one({ seccomp: 0 }, { seccomp: 1 }), filtered)).toEqual([]);
    expect(await codes(one({ seccomp: 2 }), filtered)).toEqual(['SECCOMP_WEAKER']);
    expect(await codes(one({}), filtered)).toEqual(['SECCOMP_WEAKER']);
    expect(await codes(one({ seccomp: 0 }), { seccompMode: 2, seccompFilters: [FILTER_A, FILTER_B] })).toEqual([
      'SECCOMP_WEAKER',
    ]);
    expect(await codes(one({ seccomp: 0 }), { seccompMode: 1 })).toEqual(['SECCOMP_WEAKER']);
  });

  it('counts filters that the main thread installs for all threads, where no other thread has its own', async () => {
    const filtered = { seccompMode: 2, seccompFilters: [FILTER_A] };
    expect(await codes(one({ seccomp: 3 }, {}, {}), filtered)).toEqual([]);
    expect(await codes(one({ seccomp: 0 }, {}), filtered)).toEqual(['SECCOMP_WEAKER']);
    expect(await codes(one({ seccomp: 3 }, { seccomp: 0 }), filtered)).toEqual(['SECCOMP_WEAKER']);
    expect(await codes(one({ seccomp: 0 }, { seccomp: 3 }), filtered)).toEqual(['SECCOMP_WEAKER']);
    expect(await codes(one({}, { seccomp: 3 }), filtered)).toEqual(['SECCOMP_WEAKER']);
    expect(await codes(one({ seccomp: 4 }, {}), filtered)).toEqual(['SECCOMP_WEAKER']);
  });

  it('wants the label of the target where it has one', async () => {
    expect(await codes(one({ lsm: 'docker-default' }), { lsmLabel: 'docker-default' })).toEqual([]);
    expect(await codes(one({ lsm: 'docker-default' }), { lsmLabel: 'docker-default (enforce)' })).toEqual([]);
    expect(await codes(one({}), { lsmLabel: 'unconfined' })).toEqual([]);
    expect(await codes(one({ lsm: 'unconfined' }), { lsmLabel: 'docker-default' })).toEqual(['LSM_LABEL_DIFFERS']);
  });

  it.each([
    [
      'a mount that the target lacks',
      [{ point: '/' }, { point: '/gone', key: '/data' }],
      ['/', '/gone'],
      ['MOUNT_MISSING'],
    ],
    ['a mount that is not recorded', [{ point: '/' }, { point: '/data', key: '/data' }], ['/'], ['MOUNT_UNEXPECTED']],
    ['a record of mounts that are not there', [{ point: '/' }], ['/', '/data'], ['MOUNT_UNEXPECTED']],
    ['a disk', [{ point: '/' }, { point: '/data', fstype: 16 }], ['/', '/data'], ['MOUNT_NOT_EXTERNAL']],
    ['a disk in /proc', [{ point: '/' }, { point: '/proc', fstype: 16 }], ['/', '/proc'], ['MOUNT_NOT_EXTERNAL']],
    ['another external mount', [{ point: '/' }, { point: '/data', key: '/etc' }], ['/', '/data'], ['EXTERNAL_UNKNOWN']],
    ['a second mount namespace', [{ point: '/' }, { point: '/', namespace: 11 }], ['/'], ['MOUNT_NAMESPACES']],
  ])('refuses %s', async (_, mounts, recordedMountPoints, expected) => {
    expect(await codes((dir) => putMounts(dir, mounts), { recordedMountPoints })).toEqual(expected);
  });

  it.each([
    [
      'an unknown network namespace',
      (dir: string) => put(dir, 'netns-9.img', 'netns', [message([8, 'other'])]),
      'EXTERNAL_UNKNOWN',
    ],
    ['a network of its own', (dir: string) => put(dir, 'netns-9.img', 'netns', [message()]), 'NETWORK_PRIVATE'],
    [
      'an external PID namespace',
      (dir: string) => put(dir, 'pidns-9.img', 'pidns', [message([1, 'x'])]),
      'EXTERNAL_UNKNOWN',
    ],
    [
      'an external file',
      (dir: string) => put(dir, 'files.img', 'files', [message([1, 16], [2, 3], [15, message([1, 3])])]),
      'EXTERNAL_UNKNOWN',
    ],
    [
      'an external regular file',
      (dir: string) =>
        put(dir, 'files.img', 'files', [message([1, 1], [2, 3], [3, message([1, 3], [6, '/x'], [9, 1])])]),
      'EXTERNAL_UNKNOWN',
    ],
    [
      'a raw socket',
      (dir: string) =>
        put(dir, 'files.img', 'files', [
          socketEntry({ id: 1, type: 3, source: [[0, 0, 0, 0], 0], peer: [[0, 0, 0, 0], 0] }),
        ]),
      'PRIVILEGED_DESCRIPTOR',
    ],
    [
      'one end of a unix socket',
      (dir: string) =>
        put(dir, 'files.img', 'files', [message([1, 5], [2, 3], [16, message([1, 3], [2, 77], [6, 1])])]),
      'EXTERNAL_UNKNOWN',
    ],
    [
      'a packet socket',
      (dir: string) => put(dir, 'files.img', 'files', [message([1, 10], [2, 3], [6, message([1, 3])])]),
      'PRIVILEGED_DESCRIPTOR',
    ],
    [
      'a device node',
      (dir: string) => put(dir, 'ghost-file-1.img', 'ghostFile', [message([1, 0], [2, 0], [3, 0o060660], [6, 0xfe00])]),
      'DEVICE_NODE',
    ],
    [
      'a credentials file of old',
      (dir: string) => writeFileSync(path.join(dir, 'creds-1.img'), ''),
      'IMAGE_UNEXPECTED',
    ],
    ['a parent', (dir: string) => symlinkSync('/etc', path.join(dir, 'parent')), 'IMAGE_UNEXPECTED'],
    [
      'AppArmor policy',
      (dir: string) => put(dir, 'apparmor.img', 'apparmor', [message([1, message([1, 'ns'])])]),
      'APPARMOR_POLICY',
    ],
    [
      'a plugin',
      (dir: string) => put(dir, 'inventory.img', 'inventory', [message([1, 2], [12, message([12, 'evil'])])]),
      'PLUGIN_USED',
    ],
    [
      'two roots',
      (dir: string) =>
        putProcesses(dir, [
          { pid: 1, ppid: 0 },
          { pid: 9, ppid: 0 },
        ]),
      'PROCESS_ROOT',
    ],
  ])('refuses %s', async (_, prepare, code) => {
    expect(await codes(prepare)).toEqual([code]);
  });

  it('knows an external terminal by its key', async () => {
    const withTty = (dir: string) => {
      put(dir, 'tty-info.img', 'ttyInfo', [message([1, 4], [2, 5], [8, 0x8800], [13, 0x36])]);
      put(dir, 'files.img', 'files', [REGULAR_FILE, message([1, 11], [2, 8], [19, message([1, 8], [2, 4])])]);
    };
    expect(await codes(withTty, { externalKeys: ['tty[8800:36]'] })).toEqual([]);
    expect(await codes(withTty)).toEqual(['EXTERNAL_UNKNOWN']);
  });
});

describe('hostile trees', () => {
  const read = async (prepare: (dir: string) => void) => {
    const dir = makeDir();
    putLeast(dir);
    prepare(dir);
    return readProcesses(dir);
  };
  it.each([
    [
      'a loop',
      [
        { pid: 1, ppid: 0 },
        { pid: 4, ppid: 7 },
        { pid: 7, ppid: 4 },
      ],
    ],
    [
      'a missing parent',
      [
        { pid: 1, ppid: 0 },
        { pid: 4, ppid: 3 },
      ],
    ],
    [
      'a process twice',
      [
        { pid: 1, ppid: 0 },
        { pid: 1, ppid: 0 },
      ],
    ],
    ['a PID that cannot be', [{ pid: 1 << 23, ppid: 0 }]],
  ])('with %s are refused', async (_, sketch) => {
    await expect(read((dir) => putProcesses(dir, sketch))).rejects.toEqual(corrupt);
  });

  it('without credentials or with two sets of them are refused', async () => {
    const task: [number, Uint8Array] = [3, message([1, 1], [6, 'x'])];
    await expect(read((dir) => put(dir, 'core-1.img', 'core', [message([1, 1], task)]))).rejects.toEqual(corrupt);
    const dir = makeDir();
    putLeast(dir);
    const whole = readFileSync(path.join(dir, 'core-1.img')).subarray(12);
    await expect(
      read((other) =>
        put(other, 'core-1.img', 'core', [Buffer.concat([whole, message([5, message([10, message()])])])]),
      ),
    ).rejects.toEqual(corrupt);
  });

  it('with seccomp chains that loop or lead nowhere are refused', async () => {
    const dir = makeDir();
    const code = Buffer.from(FILTER_A, 'hex');
    put(dir, 'seccomp.img', 'seccomp', [
      message([1, message([1, code], [2, 1])], [1, message([1, code], [2, 0])], [1, message([1, code], [2, 77])]),
    ]);
    const chain = await readSeccompFilters(dir);
    for (const index of [0, 1, 2, 3]) expect(() => chain(index)).toThrow(corrupt);
  });
});

describe('damaged images', () => {
  it('are read or refused as corrupt, never otherwise, wherever a byte is changed or the end is cut', async () => {
    const dir = makeDir();
    putLeast(dir);
    putFilters(dir);
    putProcesses(dir, [{ pid: 1, ppid: 0, threads: [{ seccomp: 1, lsm: 'x' }, {}] }]);
    putMemory(dir, 1, [{ start: PAGE, end: 9 * PAGE }]);
    putPagemap(dir, 1, 1, [{ start: PAGE, pages: 2 }]);
    writeFileSync(path.join(dir, 'pages-1.img'), Buffer.alloc(2 * PAGE));
    const names = readdirSync(dir).filter((name) => name !== 'pages-1.img');
    const originals = new Map(names.map((name) => [name, readFileSync(path.join(dir, name))]));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), fc.nat(), fc.nat(255), fc.boolean(), async (name, at, value, cut) => {
        const bytes = Buffer.from(originals.get(name) ?? []);
        const place = at % bytes.length;
        bytes[place] = value;
        writeFileSync(path.join(dir, name), cut ? bytes.subarray(0, place) : bytes);
        try {
          admissionProblems(await readImages(dir), TARGET);
        } catch (error) {
          expect(error).toBeInstanceOf(SnapshotError);
          expect(error).toEqual(corrupt);
        } finally {
          writeFileSync(path.join(dir, name), originals.get(name) ?? '');
        }
      }),
      { numRuns: 250 },
    );
  });
});

describe('statistics', () => {
  it('are in seconds and pages', async () => {
    const dir = makeDir();
    const [dumped, restored] = [path.join(dir, 'stats-dump'), path.join(dir, 'stats-restore')];
    put(dir, 'stats-dump', 'stats', [
      message([1, message([1, 1500], [2, 2_000_000], [3, 3], [4, 4], [5, 50], [6, 0], [7, 40], [9, 0])]),
    ]);
    put(dir, 'stats-restore', 'stats', [message([2, message([1, 9], [2, 8], [3, 1000], [4, 500_000], [5, 77])])]);
    expect(await readDumpStats(dumped)).toEqual({
      freezingSeconds: 0.0015,
      frozenSeconds: 2,
      memdumpSeconds: 0.000003,
      memwriteSeconds: 0.000004,
      pagesScanned: 50,
      pagesWritten: 40,
    });
    expect(await readRestoreStats(restored)).toEqual({
      forkingSeconds: 0.001,
      restoreSeconds: 0.5,
      pagesCompared: 9,
      pagesShared: 8,
      pagesRestored: 77,
    });
    await expect(readRestoreStats(dumped)).rejects.toEqual(corrupt);
  });
});

describe('capabilityNames', () => {
  it('names them', () => {
    expect(capabilityNames(0n)).toBe('none');
    expect(capabilityNames((1n << 40n) | (1n << 21n) | (1n << 63n))).toBe(
      'CAP_SYS_ADMIN CAP_CHECKPOINT_RESTORE capability 63',
    );
  });
});
