import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../agent/config.ts';
import { type Comparison, isOlder, mismatches } from '../../../agent/operations/compatibility.ts';
import type { ArtifactRecord } from '../../../agent/store/record.ts';
import { draft } from '../store/volume.ts';

const { restore } = parseConfig('nodeName: a\nstorage: { basePath: /c }\n');

/** An artifact beside a node and a container that match it in everything. */
function matching(): Comparison {
  const record = {
    ...draft(),
    sizes: { ...draft().sizes, criuBytes: 100, bulkBytes: 900 },
  } as unknown as ArtifactRecord;
  return {
    record,
    node: {
      name: 'b',
      bootId: 'boot',
      arch: record.platform.arch,
      kernel: record.platform.kernel,
      criu: record.platform.criu,
      cpu: record.platform.cpu,
      cgroupVersion: 2,
      userNs: 1,
      threads: 4,
    },
    running: {
      id: 'c',
      hostPid: 10,
      startedAtMs: 0,
      image: 'registry/worker:2',
      imageId: record.source.imageId,
      tty: false,
      env: [],
      mounts: [],
      memoryLimitBytes: undefined,
    },
    placeholder: {
      gpuDevices: [],
      mountPoints: ['/', '/models', '/extra'],
      boundingCaps: 0n,
      permittedCaps: 0n,
      canTrace: false,
      noNewPrivs: false,
      seccomp: { mode: 0, filters: [] },
      lsmLabel: undefined,
      stdio: ['', '', ''],
    },
    podIps: ['10.0.0.99'],
    rules: restore,
  };
}
type Parts = { [K in keyof Comparison]?: Partial<Comparison[K]> };
const compared = (changes: Parts = {}) => {
  const base = matching();
  const podIps = (changes.podIps as string[] | undefined) ?? base.podIps;
  return mismatches({
    record: { ...base.record, ...changes.record } as ArtifactRecord,
    node: { ...base.node, ...changes.node },
    running: { ...base.running, ...changes.running },
    placeholder: { ...base.placeholder, ...changes.placeholder },
    rules: { ...base.rules, ...changes.rules },
    podIps,
  });
};
const codes = (changes: Parts = {}) => compared(changes).map(({ code }) => code);
const cpu = matching().node.cpu;

describe('an artifact', () => {
  it('matches a node and a container like its own, and what is newer or more', () => {
    expect(codes()).toEqual([]);
    expect(
      codes({ node: { kernel: '6.18.1', criu: '4.3', cpu: { ...cpu, features: [...cpu.features, 'avx10'] } } }),
    ).toEqual([]);
    expect(codes({ running: { memoryLimitBytes: 1_000 } })).toEqual([]);
  });

  it.each<[string, Parts, string, Parts | undefined]>([
    ['the architecture', { node: { arch: 'arm64' } }, 'ARCHITECTURE', undefined],
    ['CPU features', { node: { cpu: { ...cpu, features: ['avx2'] } } }, 'CPU_FEATURES', undefined],
    ['an older kernel', { node: { kernel: '6.11.9' } }, 'KERNEL_OLDER', { rules: { allowOlderKernel: true } }],
    ['an older CRIU', { node: { criu: '4.1' } }, 'CRIU_OLDER', undefined],
    ['another image', { running: { imageId: 'sha256:2' } }, 'IMAGE', { rules: { allowImageMismatch: true } }],
    ['a mount that is not there', { placeholder: { mountPoints: ['/'] } }, 'MOUNTS_MISSING', undefined],
    ['a memory limit too small', { running: { memoryLimitBytes: 999 } }, 'MEMORY_LIMIT', undefined],
    ['a terminal', { running: { tty: true } }, 'TERMINAL', undefined],
    [
      'a placeholder that may trace',
      { placeholder: { canTrace: true } },
      'TARGET_CAN_TRACE',
      { rules: { allowPtraceCapability: true } },
    ],
    ['the network of the host', { podIps: [] as unknown as Partial<readonly string[]> }, 'NETWORK', undefined],
  ])('is refused for %s, with both values and what to do', (_, changes, code, allowed) => {
    const [reason, ...others] = compared(changes);
    expect(others).toEqual([]);
    expect(reason).toMatchObject({ code });
    for (const part of [reason?.message, reason?.found, reason?.wanted, reason?.advice]) expect(part).not.toBe('');
    expect(reason?.found).not.toBe(reason?.wanted);
    if (allowed !== undefined) expect(codes({ ...changes, ...allowed })).toEqual([]);
  });

  it('is refused with all reasons at once', () => {
    const all = {
      node: { kernel: '5.15', criu: '4.1' },
      running: { imageId: 'other', tty: true },
      placeholder: { mountPoints: [] },
    };
    expect(codes(all)).toEqual(['KERNEL_OLDER', 'CRIU_OLDER', 'IMAGE', 'MOUNTS_MISSING', 'TERMINAL']);
  });

  it('of another architecture is not refused for each feature of its CPU as well', () => {
    expect(codes({ node: { arch: 'arm64', cpu: { ...cpu, features: [] } } })).toEqual(['ARCHITECTURE']);
  });

  it('that had a terminal needs one', () => {
    const process = { ...matching().record.process, tty: '8800:36' };
    expect(codes({ record: { process } })).toEqual(['TERMINAL']);
    expect(codes({ record: { process }, running: { tty: true } })).toEqual([]);
  });
});

describe('an older version', () => {
  it.each([
    ['6.11', '6.12', true],
    ['5.19.99', '6.0', true],
    ['6.9.1', '6.10.0', true],
    ['6.12', '6.12', false],
    ['6.18.44-fc', '6.18', false],
    ['6.12.1', '6.12.9', false],
    ['10.0', '9.9', false],
    ['4.2', '4.2.1-rc', false],
    ['garbage', '1.0', true],
  ])('%s than %s: %s', (version, than, expected) => {
    expect(isOlder(version, than)).toBe(expected);
  });
});
