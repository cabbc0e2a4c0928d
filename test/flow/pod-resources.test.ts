import * as grpc from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openPodResources, type PodResources } from '../../agent/cuda/pod-resources.ts';
import { type FakeContainerResources, type FakeKubelet, makeKubelet } from '../fakes/pod-resources-server.ts';

let kubelet: FakeKubelet;
let service: PodResources;
beforeEach(async () => {
  kubelet = await makeKubelet();
  service = openPodResources(kubelet.socketPath);
});
afterEach(async () => {
  service.close();
  await kubelet.remove();
});

const UUID = 'GPU-12345678-9abc-def0-1234-56789abcdef0';
const WORKER = { namespace: 'team', pod: 'worker', container: 'main' };
const gpu = (...ids: readonly string[]) => ({ resource_name: 'nvidia.com/gpu', device_ids: ids });
const pod = (name: string, namespace: string, ...containers: readonly FakeContainerResources[]) =>
  kubelet.pods.push({ name, namespace, containers });

describe('what kubelet gave to a container', () => {
  it('is told by resource, of this container alone', async () => {
    pod('worker', 'team', { name: 'side', devices: [gpu('GPU-other')] }, { name: 'main', devices: [gpu(UUID)] });
    pod('worker', 'other', { name: 'main', devices: [gpu('GPU-foreign')] });
    expect(await service.devicesOf(WORKER)).toEqual({
      plugin: [{ resource: 'nvidia.com/gpu', ids: [UUID] }],
      claimed: [],
    });
    expect(kubelet.calls).toEqual({ Get: 1 });
  });

  it('may be nothing', async () => {
    pod('worker', 'team', { name: 'main' });
    expect(await service.devicesOf(WORKER)).toEqual({ plugin: [], claimed: [] });
  });

  it('may come from DRA drivers', async () => {
    const device = {
      cdi_devices: [{ name: 'k8s.gpu.nvidia.com/device=gpu-3' }, { name: 'k8s.gpu.nvidia.com/claim=c1-gpu-3' }],
      driver_name: 'gpu.nvidia.com',
      pool_name: 'node-1',
      device_name: 'gpu-3',
    };
    const claim = { claim_name: 'worker-gpu-x7b2q', claim_namespace: 'team' };
    pod('worker', 'team', {
      name: 'main',
      dynamic_resources: [
        { ...claim, claim_resources: [device, { driver_name: 'net.example.com' }] },
        { ...claim, claim_name: 'empty', claim_resources: [] },
      ],
    });
    expect(await service.devicesOf(WORKER)).toEqual({
      plugin: [],
      claimed: [
        {
          claim: 'worker-gpu-x7b2q',
          driver: 'gpu.nvidia.com',
          pool: 'node-1',
          device: 'gpu-3',
          cdi: ['k8s.gpu.nvidia.com/device=gpu-3', 'k8s.gpu.nvidia.com/claim=c1-gpu-3'],
        },
        { claim: 'worker-gpu-x7b2q', driver: 'net.example.com', pool: '', device: '', cdi: [] },
      ],
    });
  });

  it.each(['absent', 'disabled'] as const)('is found in the list where Get is %s', async (get) => {
    await kubelet.stop();
    kubelet.get = get;
    await kubelet.start();
    pod('other', 'team', { name: 'main', devices: [gpu('GPU-other')] });
    pod('worker', 'other', { name: 'main', devices: [gpu('GPU-foreign')] });
    pod('worker', 'team', { name: 'main', devices: [gpu(UUID), { resource_name: 'x.com/nic', device_ids: ['0'] }] });
    expect((await service.devicesOf(WORKER))?.plugin).toEqual([
      { resource: 'nvidia.com/gpu', ids: [UUID] },
      { resource: 'x.com/nic', ids: ['0'] },
    ]);
    expect(kubelet.calls['List']).toBe(1);
  });

  it('is not known of a pod or container that kubelet does not have', async () => {
    pod('worker', 'team', { name: 'side' });
    expect(await service.devicesOf(WORKER)).toBeUndefined();
    expect(await service.devicesOf({ ...WORKER, pod: 'gone' })).toBeUndefined();
    expect(kubelet.calls).toEqual({ Get: 2, List: 1 });
  });

  it('may be in a list of many pods', async () => {
    kubelet.get = 'disabled';
    const many = Array.from({ length: 64 }, (_, n) => gpu(`${UUID}::${n}`, 'x'.repeat(1000)));
    for (let n = 0; n < 100; n++) pod(`p${n}`, 'team', { name: 'main', devices: many });
    pod('worker', 'team', { name: 'main', devices: [gpu(UUID)] });
    expect(await service.devicesOf(WORKER)).toMatchObject({ plugin: [{ ids: [UUID] }] });
  });
});

describe('a kubelet that does not answer as it should', () => {
  const failure = { code: 'KUBELET_UNAVAILABLE', retryable: true };

  it.each([
    ['Get', grpc.status.RESOURCE_EXHAUSTED],
    ['Get', grpc.status.INTERNAL],
    ['List', grpc.status.UNKNOWN],
  ] as const)('%s: %i', async (call, status) => {
    if (call === 'List') kubelet.faults.set('Get', [grpc.status.UNKNOWN]);
    kubelet.faults.set(call, [status]);
    pod('worker', 'team', { name: 'main' });
    await expect(service.devicesOf(WORKER)).rejects.toMatchObject({
      ...failure,
      message: `PodResources of kubelet on ${kubelet.socketPath}: fake ${grpc.status[status]}`,
    });
    expect(await service.devicesOf(WORKER)).toBeDefined();
  });

  it('is not waited for without end', async () => {
    kubelet.faults.set('Get', ['silent']);
    const impatient = openPodResources(kubelet.socketPath, { deadlineMs: 300 });
    await expect(impatient.devicesOf(WORKER)).rejects.toMatchObject({
      ...failure,
      message: expect.stringMatching(/Deadline exceeded/),
    });
    impatient.close();
  });

  it('cannot make the agent take in more than sixteen megabytes', async () => {
    pod('worker', 'team', { name: 'main', devices: [gpu('x'.repeat(16 << 20))] });
    await expect(service.devicesOf(WORKER)).rejects.toMatchObject({
      ...failure,
      message: expect.stringMatching(/larger than max/),
    });
  });

  it('is asked again when it is back', async () => {
    pod('worker', 'team', { name: 'main' });
    await service.devicesOf(WORKER);
    await kubelet.stop();
    await expect(service.devicesOf(WORKER)).rejects.toMatchObject(failure);
    await kubelet.start();
    await expect.poll(() => service.devicesOf(WORKER).catch(() => undefined), { timeout: 15_000 }).toBeDefined();
  });

  it('may not be there at all', async () => {
    expect(await service.isThere()).toBe(true);
    const nobody = openPodResources('/nowhere/kubelet.sock');
    expect(await nobody.isThere()).toBe(false);
    await expect(nobody.devicesOf(WORKER)).rejects.toMatchObject(failure);
    nobody.close();
  });
});
