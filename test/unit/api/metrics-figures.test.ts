import { describe, expect, it } from 'vitest';
import { SnapshotError } from '../../../agent/errors.ts';
import type { Outcome } from '../../../agent/operations/context.ts';
import { watchedOperations } from './metrics-operations.ts';

const MIB = 2 ** 20;
const TIMINGS = [
  { step: 'criu-dump', seconds: 2 },
  { step: 'finalize', seconds: 1 },
];
const ended = (changes: Partial<Outcome>): Outcome => ({
  result: 'succeeded',
  timings: TIMINGS,
  figures: {},
  ...changes,
});

describe('the figures of an operation', () => {
  it('of a checkpoint show its pause, its parts, and how fast they were moved', async () => {
    const { open, samples } = watchedOperations();
    const figures = { pauseSeconds: 1.5, criuBytes: 2 * MIB, bulkBytes: 600 * MIB, zeroBytes: 400 * MIB };
    open().ended(ended({ figures: { ...figures, rootfsBytes: 5 * MIB, shmBytes: 0 } }));
    const seen = await samples();
    expect([seen.get('pause_seconds_count'), seen.get('pause_seconds_sum')]).toEqual([1, 1.5]);
    const parts = ['criu', 'bulk', 'zero', 'rootfs', 'shm'].map((kind) => seen.get(`image_bytes_sum{kind="${kind}"}`));
    expect(parts).toEqual([2 * MIB, 600 * MIB, 400 * MIB, 5 * MIB, 0]);
    expect(seen.get('bytes_total{direction="read",medium="memory"}')).toBe(1002 * MIB);
    expect(seen.get('bytes_total{direction="write",medium="volume"}')).toBe(602 * MIB);
    expect(seen.get('throughput_bytes_per_second_sum{step="criu-dump"}')).toBe(501 * MIB);
    expect(seen.get('throughput_bytes_per_second_sum{step="finalize"}')).toBe(1000 * MIB);
  });

  it('of a restore show what came from the volume into memory', async () => {
    const { open, samples } = watchedOperations();
    const timings = [{ step: 'fill', seconds: 2 }];
    open({ kind: 'restore' }).ended(ended({ timings, figures: { filledBytes: 800 * MIB, criuBytes: 8 * MIB } }));
    const seen = await samples();
    expect(seen.get('bytes_total{direction="read",medium="volume"}')).toBe(808 * MIB);
    expect(seen.get('bytes_total{direction="write",medium="memory"}')).toBe(808 * MIB);
    expect(seen.get('throughput_bytes_per_second_sum{step="fill"}')).toBe(400 * MIB);
    expect([...seen.keys()].filter((name) => name.startsWith('image_bytes'))).toEqual([]);
  });

  it('show what the driver moved between GPU and host, and how fast', async () => {
    const { open, samples } = watchedOperations();
    const timings = [{ step: 'cuda-checkpoint', seconds: 2 }];
    open().ended(ended({ timings, figures: { criuBytes: MIB, deviceBytes: 900 * MIB } }));
    open({ kind: 'restore' }).ended(
      ended({ timings: [{ step: 'cuda-restore', seconds: 3 }], figures: { deviceBytes: 900 * MIB } }),
    );
    const seen = await samples();
    expect(seen.get('bytes_total{direction="read",medium="device"}')).toBe(900 * MIB);
    expect(seen.get('bytes_total{direction="write",medium="device"}')).toBe(900 * MIB);
    expect(seen.get('image_bytes_sum{kind="device"}')).toBe(900 * MIB);
    expect(seen.get('throughput_bytes_per_second_sum{step="cuda-checkpoint"}')).toBe(450 * MIB);
    expect(seen.get('throughput_bytes_per_second_sum{step="cuda-restore"}')).toBe(300 * MIB);
  });

  it('are left out where the operation failed before they were known', async () => {
    const { open, samples } = watchedOperations();
    open().ended(ended({ result: 'failed', failure: new SnapshotError('DUMP_FAILED', 'no') }));
    const seen = await samples();
    expect(seen.get('pause_seconds_count')).toBe(0);
    expect([...seen.keys()].filter((name) => /^(bytes_total|image_bytes|throughput)/.test(name))).toEqual([]);
  });

  it.each([
    ['was not prefetched', { filledBytes: 500 * MIB, unprefetchedBytes: 500 * MIB }, 'prefetch-failed', 500 * MIB],
    ['went mostly through CRIU', { filledBytes: 70 * MIB, criuBytes: 80 * MIB }, 'read-by-criu', 80 * MIB],
  ])('show a restore whose memory %s as degraded', async (_, figures, why, bytes) => {
    const { open, samples } = watchedOperations();
    expect((await samples()).get(`restore_degraded_total{reason="${why}"}`)).toBe(0);
    open({ kind: 'restore' }).ended(ended({ figures }));
    const seen = await samples();
    expect(seen.get(`restore_degraded_total{reason="${why}"}`)).toBe(1);
    expect(seen.get(`restore_degraded_bytes_total{reason="${why}"}`)).toBe(bytes);
  });

  it.each([
    ['little memory', { filledBytes: 0, criuBytes: 63 * MIB }],
    ['most of it filled', { filledBytes: 90 * MIB, criuBytes: 80 * MIB }],
  ])('do not show a restore with %s as degraded', async (_, figures) => {
    const { open, samples } = watchedOperations();
    open({ kind: 'restore' }).ended(ended({ figures }));
    expect((await samples()).get('restore_degraded_total{reason="read-by-criu"}')).toBe(0);
  });

  it('that are none, or negative, count as 0', async () => {
    const { open, samples } = watchedOperations();
    open({ kind: 'restore' }).ended(
      ended({ timings: [{ step: 'fill', seconds: -1 }], figures: { filledBytes: Number.NaN, criuBytes: -5 } }),
    );
    const seen = await samples();
    expect(seen.get('operation_duration_seconds_sum{operation="restore",result="succeeded"}')).toBe(0);
    expect(seen.has('bytes_total{direction="read",medium="volume"}')).toBe(false);
  });
});
