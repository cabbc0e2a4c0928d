import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readPodGpus } from '../../agent/cuda/dra.ts';
import { type KubeClient, openKube } from '../../kube/client.ts';
import { type FakeDra, type FakeSlice, makeDra } from '../fakes/dra-api.ts';
import { grantsOf, readGpuRbac } from '../fakes/kube-api/shipped-roles.ts';
import { serve } from './kube/server.ts';

let dra: FakeDra;
let server: Awaited<ReturnType<typeof serve>>;
let client: KubeClient;
beforeEach(async () => {
  dra = makeDra();
  server = await serve(dra.answer);
  client = await openKube({ kubeconfigPath: server.kubeconfigPath });
});
/** Every call of every test. */
const calls: string[] = [];
afterEach(async () => {
  calls.push(...dra.calls);
  client.close();
  await server.close();
});
afterAll(() => {
  // The shipped rules and the calls: the same.
  expect([...new Set(calls.map(grantOf))].sort()).toEqual(grantsOf(readGpuRbac().roles));
});

/** What a call needs, as a rule has it: `get resource.k8s.io/resourceclaims`. */
function grantOf(call: string): string {
  const [, root, group, rest = ''] =
    /^GET \/(apis|api)\/(?:([^/]+\.[^/]+)\/)?[^/]+\/(?:namespaces\/[^/]+\/)?([^?]+)/.exec(call) ?? [];
  const [kind, name] = rest.split('/');
  return `${name === undefined ? 'list' : 'get'} ${root === 'api' ? '' : group}/${kind}`;
}

const PLACE = { namespace: 'team', pod: 'worker', uid: 'uid-1', container: 'main', nodeName: 'node-1' };
const UUIDS = [0, 1, 2, 3].map((n) => `GPU-00000000-0000-0000-0000-00000000000${n}`);
const ask = (changes: Partial<typeof PLACE> = {}) => readPodGpus(client, { ...PLACE, ...changes });

interface Reference {
  readonly name: string;
  readonly request?: string;
}

/** A pod whose container refers to claims; each is its own name in the API. */
function givenPod(
  references: readonly Reference[],
  changes: { spec?: object; status?: object; container?: object } = {},
) {
  const names = [...new Set(references.map(({ name }) => name))];
  const main = { name: 'main', resources: { claims: references }, ...changes.container };
  dra.pods.set('team/worker', {
    kind: 'Pod',
    metadata: { name: 'worker', uid: 'uid-1' },
    spec: {
      containers: [{ name: 'side' }, main],
      resourceClaims: names.map((name) => ({ name, resourceClaimName: name })),
      ...changes.spec,
    },
    status: { phase: 'Running', ...changes.status },
  });
}

interface Result {
  readonly request?: string;
  readonly driver?: string;
  readonly pool?: string;
  readonly device: string;
}

function givenClaim(name: string, results: readonly Result[], reservedFor: readonly object[] = [ours]): void {
  const devices = {
    results: results.map((result) => ({ request: 'gpu', driver: 'gpu.nvidia.com', pool: 'node-1', ...result })),
  };
  dra.claims.set(`team/${name}`, {
    kind: 'ResourceClaim',
    metadata: { name },
    status: { allocation: { devices, nodeSelector: {} }, reservedFor },
  });
}
const ours = { resource: 'pods', name: 'worker', uid: 'uid-1' };

const gpu = (n: number) => ({ type: 'gpu', uuid: UUIDS[n] ?? '' });
function givenSlice(changes: Partial<FakeSlice> = {}): void {
  const devices = { 'gpu-0': gpu(0), 'gpu-1': gpu(1), 'gpu-2': gpu(2) };
  dra.slices.push({ driver: 'gpu.nvidia.com', nodeName: 'node-1', pool: 'node-1', devices, ...changes });
}

describe('a container without claims', () => {
  it('is none of DRA, and nothing but its pod is asked for', async () => {
    givenPod([]);
    expect(await ask()).toEqual({ isPrivileged: false, claimed: undefined });
    expect(dra.calls).toEqual(['GET /api/v1/namespaces/team/pods/worker']);
  });

  it('may be privileged', async () => {
    givenPod([], { container: { securityContext: { privileged: true } } });
    expect(await ask()).toEqual({ isPrivileged: true, claimed: undefined });
  });

  it('does not get what another container of the pod refers to', async () => {
    givenPod([{ name: 'gpus' }]);
    expect(await ask({ container: 'side' })).toEqual({ isPrivileged: false, claimed: undefined });
  });
});

describe('a container with claims', () => {
  it('has the GPUs that were allocated to them', async () => {
    givenPod([{ name: 'gpus' }, { name: 'more' }]);
    givenClaim('gpus', [{ device: 'gpu-2' }, { device: 'gpu-0' }]);
    givenClaim('more', [{ device: 'gpu-1' }]);
    givenSlice();
    expect((await ask()).claimed).toEqual([UUIDS[2], UUIDS[0], UUIDS[1]]);
    expect(dra.calls).toEqual([
      'GET /api/v1/namespaces/team/pods/worker',
      'GET /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.driver=gpu.nvidia.com,spec.nodeName=node-1&limit=100',
      'GET /apis/resource.k8s.io/v1/namespaces/team/resourceclaims/gpus',
      'GET /apis/resource.k8s.io/v1/namespaces/team/resourceclaims/more',
    ]);
  });

  it('has only what the requests give that it names', async () => {
    givenPod([{ name: 'gpus', request: 'big' }]);
    givenClaim('gpus', [
      { request: 'big/second-choice', device: 'gpu-0' },
      { request: 'bigger', device: 'gpu-1' },
      { request: 'big', device: 'gpu-2' },
    ]);
    givenSlice();
    expect((await ask()).claimed).toEqual([UUIDS[0], UUIDS[2]]);
  });

  it('has a GPU once, by however many requests', async () => {
    givenPod([{ name: 'gpus', request: 'a' }, { name: 'gpus', request: 'b' }, { name: 'gpus' }]);
    givenClaim('gpus', [
      { request: 'a', device: 'gpu-0' },
      { request: 'b', device: 'gpu-0' },
    ]);
    givenSlice();
    expect((await ask()).claimed).toEqual([UUIDS[0]]);
  });

  it('may have claims that are made from templates, and none where none was needed', async () => {
    givenPod([{ name: 'made' }, { name: 'needless' }], {
      spec: {
        resourceClaims: [
          { name: 'made', resourceClaimTemplateName: 't' },
          { name: 'needless', resourceClaimTemplateName: 't' },
        ],
      },
      status: {
        resourceClaimStatuses: [{ name: 'made', resourceClaimName: 'worker-made-x7b2q' }, { name: 'needless' }],
      },
    });
    givenClaim('worker-made-x7b2q', [{ device: 'gpu-1' }]);
    givenSlice();
    expect((await ask()).claimed).toEqual([UUIDS[1]]);
  });

  it('may have them because DRA serves its extended resources', async () => {
    const mapping = (containerName: string, requestName: string) => ({
      containerName,
      resourceName: 'nvidia.com/gpu',
      requestName,
    });
    givenPod([], {
      status: {
        extendedResourceClaimStatus: {
          resourceClaimName: 'worker-extended',
          requestMappings: [mapping('side', 'container-0-request-0'), mapping('main', 'container-1-request-0')],
        },
      },
    });
    givenClaim('worker-extended', [
      { request: 'container-0-request-0', device: 'gpu-0' },
      { request: 'container-1-request-0', device: 'gpu-1' },
    ]);
    givenSlice();
    expect((await ask()).claimed).toEqual([UUIDS[1]]);
    expect((await ask({ container: 'side' })).claimed).toEqual([UUIDS[0]]);
  });

  it('may be an init container that goes on running', async () => {
    givenPod([], {
      spec: {
        initContainers: [{ name: 'early', resources: { claims: [{ name: 'gpus' }] } }],
        resourceClaims: [{ name: 'gpus', resourceClaimName: 'gpus' }],
      },
    });
    givenClaim('gpus', [{ device: 'gpu-0' }]);
    givenSlice();
    expect((await ask({ container: 'early' })).claimed).toEqual([UUIDS[0]]);
  });

  it('may have claims that are of no GPU', async () => {
    givenPod([{ name: 'nic' }]);
    givenClaim('nic', [{ driver: 'net.example.com', device: 'nic-0' }]);
    expect((await ask()).claimed).toEqual([]);
  });

  it.each(['v1beta2', 'v1beta1'])('is understood where the API has no newer version than %s', async (version) => {
    dra.versions = [version];
    givenPod([{ name: 'gpus' }]);
    givenClaim('gpus', [{ device: 'gpu-1' }]);
    givenSlice({ devices: { 'gpu-1': { 'gpu.nvidia.com/uuid': UUIDS[1] ?? '' } } });
    expect((await ask()).claimed).toEqual([UUIDS[1]]);
    expect(dra.calls.at(-1)).toContain(`/${version}/namespaces/team/resourceclaims/gpus`);
  });

  it('has the GPU of the newest generation of a pool, on this node, of this driver', async () => {
    givenPod([{ name: 'gpus' }]);
    givenClaim('gpus', [{ device: 'gpu-0' }]);
    const other = (n: number) => ({ devices: { 'gpu-0': gpu(n) } });
    givenSlice({ generation: 4, ...other(1) });
    givenSlice({ generation: 5, ...other(2) });
    givenSlice({ generation: 9, nodeName: 'node-2', ...other(3) });
    givenSlice({ generation: 9, driver: 'compute-domain.nvidia.com', ...other(3) });
    givenSlice({ generation: 9, pool: 'other', ...other(3) });
    expect((await ask()).claimed).toEqual([UUIDS[2]]);
  });

  it('has a GPU that is on a later page of the slices', async () => {
    givenPod([{ name: 'gpus' }]);
    givenClaim('gpus', [{ device: 'gpu-0', pool: 'pool-249' }]);
    for (let n = 0; n < 250; n++) givenSlice({ pool: `pool-${n}`, devices: { 'gpu-0': gpu(n === 249 ? 3 : 0) } });
    expect((await ask()).claimed).toEqual([UUIDS[3]]);
    expect(dra.calls.filter((call) => call.includes('resourceslices'))).toHaveLength(3);
  });
});

describe('once a container refers to a claim, an error is', () => {
  beforeEach(() => {
    givenPod([{ name: 'gpus' }]);
    givenClaim('gpus', [{ device: 'gpu-0' }]);
    givenSlice();
  });

  const cases: readonly [string, RegExp, () => void][] = [
    ['a claim that is not there', /claim gpus is not there/, () => dra.claims.clear()],
    [
      'a claim that is not allocated',
      /claim gpus is not allocated/,
      () => void dra.claims.set('team/gpus', { status: { reservedFor: [ours] } }),
    ],
    [
      'a claim of another pod',
      /not reserved for this pod/,
      () => givenClaim('gpus', [{ device: 'gpu-0' }], [{ ...ours, uid: 'uid-0' }]),
    ],
    [
      'a claim that the pod does not define',
      /does not define the claim gpus/,
      () => givenPod([{ name: 'gpus' }], { spec: { resourceClaims: [] } }),
    ],
    [
      'a template whose claim is not named',
      /status of the pod does not name the claim made for gpus/,
      () =>
        givenPod([{ name: 'gpus' }], { spec: { resourceClaims: [{ name: 'gpus', resourceClaimTemplateName: 't' }] } }),
    ],
    [
      'a device in no slice',
      /device gpu-7 of pool node-1, allocated to claim gpus, is in no resource slice of this node/,
      () => givenClaim('gpus', [{ device: 'gpu-7' }]),
    ],
    [
      'a pool that is being published',
      /\(1 of 2 slices of its pool are published\)/,
      () => givenSlice({ generation: 2, sliceCount: 2, devices: { 'gpu-1': gpu(1) } }),
    ],
    ['a device that is published twice', /is published 2 times/, () => givenSlice()],
    [
      'a device without a UUID',
      /no UUID of a GPU: ""/,
      () => givenSlice({ generation: 2, devices: { 'gpu-0': { type: 'gpu' } } }),
    ],
    [
      'a device with a UUID that is none',
      /no UUID of a GPU: "GPU-0\\n"/,
      () => givenSlice({ generation: 2, devices: { 'gpu-0': { type: 'gpu', uuid: 'GPU-0\n' } } }),
    ],
    [
      'a GPU that is passed to a virtual machine',
      /is of type vfio, and no GPU/,
      () => givenSlice({ generation: 2, devices: { 'gpu-0': { ...gpu(0), type: 'vfio' } } }),
    ],
    [
      'an API without DRA',
      /serves none of the versions v1, v1beta2, v1beta1/,
      () => {
        dra.versions = [];
      },
    ],
    [
      'slices without end',
      /more than 1000 resource slices/,
      () => {
        for (let n = 0; n < 1_100; n++) givenSlice({ pool: `p${n}`, devices: {} });
      },
    ],
  ];
  it.each(cases)('%s', async (_, message, given) => {
    given();
    const error = await ask().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'GPU_IDENTITY', message: expect.stringMatching(message) });
    expect((error as Error).message).toContain('container main of pod team/worker');
  });

  it.each<[string, Readonly<Record<string, string>>]>([
    ['by its type', { type: 'mig', uuid: UUIDS[0] ?? '' }],
    ['by its UUID', { uuid: 'MIG-00000000-0000-0000-0000-000000000000' }],
  ])('a MIG instance, named as such %s', async (_, device) => {
    givenSlice({ generation: 2, devices: { 'gpu-0': device } });
    await expect(ask()).rejects.toMatchObject({ code: 'GPU_IDENTITY', reasons: [{ code: 'GPU_MIG' }] });
  });

  it.each(['/pods/worker', '/resourceslices', '/resourceclaims/gpus'])('an API that refuses %s', async (end) => {
    dra.refusals.push({ end, code: 403, reason: 'Forbidden' });
    await expect(ask()).rejects.toMatchObject({
      code: 'KUBERNETES_UNAVAILABLE',
      retryable: true,
      message: expect.stringMatching(/403 Forbidden/),
    });
  });

  it('an API that is away', async () => {
    await server.away();
    await expect(ask()).rejects.toMatchObject({ code: 'KUBERNETES_UNAVAILABLE' });
  });

  it('an answer that is no claim', async () => {
    dra.claims.set('team/gpus', { status: { allocation: { devices: { results: [{ device: 1 }] } } } });
    await expect(ask()).rejects.toMatchObject({
      code: 'KUBERNETES_UNAVAILABLE',
      message: expect.stringMatching(/not understood/),
    });
  });
});

describe('a pod that is not the one that was meant', () => {
  it('is gone', async () => {
    await expect(ask()).rejects.toMatchObject({ code: 'POD_GONE' });
  });

  it('is gone where another one has its name', async () => {
    givenPod([]);
    await expect(ask({ uid: 'uid-0' })).rejects.toMatchObject({ code: 'POD_GONE' });
  });

  it('lacks the container', async () => {
    givenPod([]);
    await expect(ask({ container: 'other' })).rejects.toMatchObject({
      code: 'GPU_IDENTITY',
      message: expect.stringMatching(/no container other/),
    });
  });
});

it('a question that is given up ends with the reason of its signal', async () => {
  givenPod([]);
  const stop = AbortSignal.abort(new Error('stopped'));
  await expect(readPodGpus(client, PLACE, stop)).rejects.toThrow('stopped');
});
