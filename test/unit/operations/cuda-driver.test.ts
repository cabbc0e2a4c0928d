import { expect, it } from 'vitest';
import type { CudaDriver } from '../../../agent/cuda/workers.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import { watchCuda } from '../../../agent/operations/cuda-driver.ts';
import type { Capability } from '../../../agent/operations/service.ts';

it.each([
  [{ version: '580.159.04', api: 13_000 }, 'driver 580.159.04, CUDA 13.0'],
  [{ version: '', api: 12_080 }, 'driver of unknown version, CUDA 12.8'],
])('a driver is a capability: %j', async (found, detail) => {
  const seen: Capability[] = [];
  const driver = async () => ({ ...found, libcuda: '/lib/libcuda.so.1', hasNvml: true });
  const stop = new AbortController();
  const watch = await watchCuda({ driver }, { onSeen: (one) => seen.push(one), signal: stop.signal });
  expect(watch.current()).toEqual({ name: 'cuda', available: true, detail });
  expect(seen).toEqual([watch.current()]);
  stop.abort();
});

it('a driver that takes long to start does not hold up the agent', async () => {
  let come: () => void = () => undefined;
  const driver = () =>
    new Promise<CudaDriver>((resolve) => {
      come = () => resolve({ version: '580.1', api: 13_000, libcuda: '/lib/libcuda.so.1', hasNvml: true });
    });
  const stop = new AbortController();
  const seen: Capability[] = [];
  const request = { onSeen: (one: Capability) => void seen.push(one), signal: stop.signal, patienceMs: 10 };
  const watch = await watchCuda({ driver }, request);
  expect([watch.current().available, seen]).toEqual([false, []]);
  come();
  await new Promise((done) => setTimeout(done, 20));
  expect(watch.current()).toMatchObject({ available: true });
  expect(seen).toHaveLength(1);
  stop.abort();
});

it('a node without one says why', async () => {
  const driver = () => Promise.reject(new SnapshotError('CAPABILITY_MISSING', 'NO_LIBCUDA: no libcuda'));
  const stop = new AbortController();
  const watch = await watchCuda({ driver }, { onSeen: () => undefined, signal: stop.signal });
  expect(watch.current()).toEqual({ name: 'cuda', available: false, detail: 'NO_LIBCUDA: no libcuda' });
  stop.abort();
});
