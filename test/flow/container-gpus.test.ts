import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type GpuContainer, readContainerGpus } from '../../agent/cuda/container-gpus.ts';
import { openPodResources, type PodResources } from '../../agent/cuda/pod-resources.ts';
import { type KubeClient, openKube } from '../../kube/client.ts';
import { type FakeDra, makeDra } from '../fakes/dra-api.ts';
import { type FakeContainerResources, type FakeKubelet, makeKubelet } from '../fakes/pod-resources-server.ts';
import { nodeGpu, uuidOf } from '../unit/cuda/gpus.ts';
import { serve } from './kube/server.ts';

/** Their minors are not their indices: a GPU is told by the minor of its node alone. */
const NODE = [0, 1, 2].map((n) => nodeGpu(n, { minor: 7 - n }));
const PLACE = { namespace: 'team', pod: 'worker', uid: 'uid-1', container: 'main', nodeName: 'node-1' };
const ID = { pid: 4242, start: 17 };

let procRoot: string;
let dra: FakeDra;
let server: Awaited<ReturnType<typeof serve>>;
let kube: KubeClient;
let kubelet: FakeKubelet;
let podResources: PodResources;
beforeEach(async () => {
  procRoot = await mkdtemp(join(tmpdir(), 'proc-'));
  await writeFile(join(procRoot, 'devices'), 'Character devices:\n196 nvidia\n237 nvidia-caps\n510 nvidia-uvm\n');
  dra = makeDra();
  server = await serve(dra.answer);
  kube = await openKube({ kubeconfigPath: server.kubeconfigPath });
  kubelet = await makeKubelet();
  podResources = openPodResources(kubelet.socketPath);
});
afterEach(async () => {
  kube.close();
  podResources.close();
  await Promise.all([server.close(), kubelet.remove(), rm(procRoot, { recursive: true })]);
});

type Found = Awaited<ReturnType<Parameters<typeof readContainerGpus>[0]['native']['devices']>>['devices'][number];
const char = (path: string, major: number, minor: number): Found => ({ path, type: 'char', major, minor });
const CONTROL = [char('nvidiactl', 196, 255), char('nvidia-uvm', 510, 0)];

interface Seen {
  /** Minors of the GPUs whose nodes the container sees. */
  readonly minors?: readonly number[];
  readonly nodes?: readonly Found[];
  readonly env?: readonly string[];
  readonly mounts?: GpuContainer['mounts'];
}

/** Asks with these device nodes inside; `without` says who is not there to be asked. */
async function ask(
  { minors = [], nodes = CONTROL, env = [], mounts = [] }: Seen,
  without: readonly ('kube' | 'kubelet')[] = [],
) {
  const asked: unknown[] = [];
  const devices = [...nodes, ...minors.map((minor) => char(`nvidia${minor}`, 196, minor))];
  const native = {
    devices: (...call: unknown[]) => {
      asked.push(call);
      return Promise.resolve({ dir: true, devices });
    },
  };
  const sources = {
    native,
    log: pino({ enabled: false }),
    procRoot,
    cgroupRoot: '/host/cgroup',
    kube: without.includes('kube') ? undefined : kube,
    podResources: without.includes('kubelet') ? undefined : podResources,
  };
  const found = await readContainerGpus(sources, { place: PLACE, id: ID, mounts, env }, NODE);
  // Of the devices that the container may have nodes of, only GPUs that the driver knows are opened.
  const opened = [7, 6, 5].map((minor) => ({ major: 196, minor }));
  const request = { prefix: 'nvidia', majors: [196, 510, 237], opened, cgroupRoot: '/host/cgroup' };
  expect(asked).toEqual([[ID, '/dev', request]]);
  return { ...found, gpus: found.gpus.map(({ index }) => index) };
}

function givenPod({
  claims = [],
  privileged = false,
}: {
  claims?: readonly string[];
  privileged?: boolean;
} = {}): void {
  dra.pods.set('team/worker', {
    metadata: { uid: 'uid-1' },
    spec: {
      containers: [
        { name: 'main', securityContext: { privileged }, resources: { claims: claims.map((name) => ({ name })) } },
      ],
      resourceClaims: claims.map((name) => ({ name, resourceClaimName: name })),
    },
  });
}
function givenClaim(name: string, ...gpus: readonly number[]): void {
  const results = gpus.map((n) => ({ request: 'r', driver: 'gpu.nvidia.com', pool: 'node-1', device: `gpu-${n}` }));
  const reservedFor = [{ resource: 'pods', uid: 'uid-1' }];
  dra.claims.set(`team/${name}`, { status: { allocation: { devices: { results } }, reservedFor } });
  const devices = Object.fromEntries([0, 1, 2, 9].map((n) => [`gpu-${n}`, { type: 'gpu', uuid: uuidOf(n) }]));
  dra.slices.splice(0, 1, { driver: 'gpu.nvidia.com', nodeName: 'node-1', pool: 'node-1', devices });
}
const givenDevices = (...devices: NonNullable<FakeContainerResources['devices']>) =>
  kubelet.pods.push({ namespace: 'team', name: 'worker', containers: [{ name: 'main', devices }] });
const givenGpus = (...gpus: readonly number[]) =>
  givenDevices({ resource_name: 'nvidia.com/gpu', device_ids: gpus.map(uuidOf) });

describe('the GPUs of a container', () => {
  it('are those that DRA gave it, and kubelet is not asked', async () => {
    givenPod({ claims: ['gpus'] });
    givenClaim('gpus', 2, 0);
    expect(await ask({ minors: [7, 5] })).toEqual({
      source: 'dra',
      gpus: [0, 2],
      closed: [],
      environment: { visibleDevices: undefined, deviceOrder: undefined },
    });
    expect(kubelet.calls).toEqual({});
  });

  it('are those that a device plugin gave it', async () => {
    givenPod();
    givenGpus(1, 0);
    expect(await ask({ minors: [7, 6] })).toMatchObject({ source: 'podResources', gpus: [0, 1] });
  });

  it('are those of a device plugin, where its claims are of no GPU', async () => {
    givenPod({ claims: ['nic'] });
    givenClaim('nic');
    givenGpus(1);
    expect(await ask({ minors: [6] })).toMatchObject({ source: 'podResources', gpus: [1] });
  });

  it('are those it sees, where nobody gave it any', async () => {
    givenPod();
    givenDevices({ resource_name: 'example.com/nic', device_ids: ['0'] });
    expect(await ask({ minors: [5, 7] })).toMatchObject({ source: 'visible', gpus: [0, 2] });
  });

  it('may be none', async () => {
    givenPod();
    givenDevices();
    expect(await ask({ nodes: [] })).toMatchObject({ source: 'visible', gpus: [] });
  });

  it('come in the order of their ordinals, with what decided it', async () => {
    givenPod();
    givenGpus(0, 1, 2);
    const env = ['CUDA_DEVICE_ORDER=PCI_BUS_ID', 'CUDA_VISIBLE_DEVICES=2'];
    expect(await ask({ minors: [5, 6, 7], env })).toEqual({
      source: 'podResources',
      gpus: [2, 0, 1],
      closed: [],
      environment: { visibleDevices: '2', deviceOrder: 'PCI_BUS_ID' },
    });
  });

  it('are all of the node for a privileged container, whatever it was given', async () => {
    givenPod({ privileged: true });
    givenGpus(1);
    expect(await ask({ minors: [5, 6, 7] })).toMatchObject({ source: 'podResources', gpus: [0, 1, 2] });
  });

  it('are not those whose nodes are there, and whom the driver does not know', async () => {
    givenPod();
    givenGpus(0);
    expect(await ask({ minors: [7, 99] })).toMatchObject({ gpus: [0] });
  });
});

describe('without the Kubernetes API', () => {
  it('kubelet is asked, where there is one', async () => {
    givenGpus(2);
    expect(await ask({ minors: [5] }, ['kube'])).toMatchObject({ source: 'podResources', gpus: [2] });
    expect(dra.calls).toEqual([]);
  });

  it('what the container sees is all that is known, where there is no kubelet, or it does not know the container', async () => {
    expect(await ask({ minors: [5] }, ['kube'])).toMatchObject({ source: 'visible', gpus: [2] });
    await kubelet.remove();
    expect(await ask({ minors: [5] }, ['kube'])).toMatchObject({ source: 'visible', gpus: [2] });
    expect(await ask({ minors: [5] }, ['kube', 'kubelet'])).toMatchObject({ source: 'visible', gpus: [2] });
  });

  it('a kubelet that does not answer is an error all the same', async () => {
    await kubelet.stop();
    await writeFile(kubelet.socketPath, '');
    await expect(ask({ minors: [5] }, ['kube'])).rejects.toMatchObject({ code: 'KUBELET_UNAVAILABLE' });
  });

  it('GPUs of DRA cannot be told', async () => {
    const claim_resources = [{ driver_name: 'gpu.nvidia.com', device_name: 'gpu-0' }];
    const dynamic_resources = [{ claim_name: 'gpus', claim_namespace: 'team', claim_resources }];
    kubelet.pods.push({ namespace: 'team', name: 'worker', containers: [{ name: 'main', dynamic_resources }] });
    const message = expect.stringMatching(
      /gpu\.nvidia\.com gave GPUs to container main .* does not use the Kubernetes API/,
    );
    await expect(ask({ minors: [7] }, ['kube'])).rejects.toMatchObject({ code: 'GPU_IDENTITY', message });
    givenPod();
    const otherwise = expect.stringMatching(/its claims say otherwise/);
    await expect(ask({ minors: [7] })).rejects.toMatchObject({ code: 'GPU_IDENTITY', message: otherwise });
  });
});

describe('it is an error', () => {
  it.each<[string, readonly number[], readonly number[], boolean]>([
    ['to see fewer than were given', [0, 1], [7], false],
    ['to see more than were given', [0], [7, 6], false],
    ['to see others than were given', [0], [6], false],
    ['to see none', [0], [], false],
    ['of a privileged container, too, to miss one', [0, 1], [6, 5], true],
  ])('%s', async (_, gave, minors, privileged) => {
    givenPod({ privileged });
    givenGpus(...gave);
    const error = await ask({ minors }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'GPU_IDENTITY' });
    const [, was = '', sees = ''] = /was given (.*) by a device plugin, and sees (.*) in its/.exec(`${error}`) ?? [];
    const uuids = (text: string) => text.match(/GPU-[0-9a-f-]+/g) ?? [];
    expect(uuids(was)).toEqual(gave.map(uuidOf));
    expect(uuids(sees).toSorted()).toEqual(minors.map((minor) => uuidOf(7 - minor)).toSorted());
  });

  it('to see the nodes of GPUs without that of the driver', async () => {
    givenPod();
    givenGpus(0);
    await expect(ask({ minors: [7], nodes: [] })).rejects.toMatchObject({
      message: expect.stringMatching(/sees none in its \/dev/),
    });
  });

  it('to have been given by DRA what is not seen', async () => {
    givenPod({ claims: ['gpus'] });
    givenClaim('gpus', 1);
    await expect(ask({ minors: [7] })).rejects.toMatchObject({
      code: 'GPU_IDENTITY',
      message: expect.stringMatching(/by DRA, and sees/),
    });
    givenClaim('gpus', 9);
    await expect(ask({ minors: [7] })).rejects.toMatchObject({
      message: expect.stringMatching(/was given GPU-.*9, and the driver/),
    });
  });

  it('to have a file where a device node should be', async () => {
    givenPod();
    givenGpus(0);
    const nodes: Found[] = [...CONTROL, { path: 'nvidia1', type: 'file' }];
    const mounts = [{ mountPoint: '/dev/nvidia1', root: '/nvidia1//deleted', fstype: 'devtmpfs' }];
    await expect(ask({ minors: [7], nodes, mounts })).rejects.toMatchObject({
      code: 'GPU_IDENTITY',
      message: expect.stringMatching(
        /\/dev\/nvidia1 is a regular file, mounted from \/nvidia1\/\/deleted of a devtmpfs$/,
      ),
    });
  });

  it('to have been given MIG instances, unless the container is privileged and sees them all', async () => {
    givenPod();
    givenDevices();
    const nodes = [...CONTROL, char('nvidia-caps/nvidia-cap12', 237, 12)];
    await expect(ask({ minors: [7], nodes })).rejects.toMatchObject({
      code: 'GPU_IDENTITY',
      reasons: [{ code: 'GPU_MIG', found: 'nvidia-cap12' }],
    });
    givenPod({ privileged: true });
    expect(await ask({ minors: [7], nodes })).toMatchObject({ gpus: [0] });
  });

  it('that may pass where kubelet does not know the container', async () => {
    givenPod();
    await expect(ask({ minors: [7] })).rejects.toMatchObject({ code: 'KUBELET_UNAVAILABLE', retryable: true });
    await kubelet.remove();
    await expect(ask({ minors: [7] })).rejects.toMatchObject({ code: 'KUBELET_UNAVAILABLE', retryable: true });
  });

  it('that may pass where the API does not answer, and then kubelet is not believed instead', async () => {
    givenGpus(0);
    dra.refusals.push({ end: '/pods/worker', code: 403, reason: 'Forbidden' });
    await expect(ask({ minors: [7] })).rejects.toMatchObject({ code: 'KUBERNETES_UNAVAILABLE' });
    expect(kubelet.calls).toEqual({});
  });

  it('of the pod, where it was replaced', async () => {
    await expect(ask({ minors: [7] })).rejects.toMatchObject({ code: 'POD_GONE' });
  });
});
