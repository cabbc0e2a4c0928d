import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type GpuSources, readContainerGpus } from '../../agent/cuda/container-gpus.ts';
import { openPodResources, type PodResources } from '../../agent/cuda/pod-resources.ts';
import { type FakeKubelet, makeKubelet } from '../fakes/pod-resources-server.ts';
import { nodeGpu, uuidOf } from '../unit/cuda/gpus.ts';

const NODE = [0, 1].map((n) => nodeGpu(n, { minor: 7 - n }));
const PLACE = { namespace: 'team', pod: 'worker', uid: 'uid-1', container: 'main', nodeName: 'node-1' };
const NAME = 'container main of pod team/worker';

type Found = Awaited<ReturnType<GpuSources['native']['devices']>>;
type Node = Found['devices'][number];
type Access = Pick<Node, 'usable' | 'errno'>;
const gpu = (path: string, minor: number, access: Access = {}): Node => ({
  ...{ path, type: 'char', major: 195, minor },
  ...access,
});
const CONTROL = gpu('nvidiactl', 255);
const OPEN: Access = { usable: true };
const CLOSED: Access = { usable: false, errno: 'EPERM' };

let procRoot: string;
let kubelet: FakeKubelet;
let podResources: PodResources;
let logged: unknown[];

beforeEach(async () => {
  procRoot = await mkdtemp(join(tmpdir(), 'proc-'));
  await writeFile(join(procRoot, 'devices'), 'Character devices:\n195 nvidia\n');
  kubelet = await makeKubelet();
  podResources = openPodResources(kubelet.socketPath);
  logged = [];
});
afterEach(async () => {
  podResources.close();
  await Promise.all([kubelet.remove(), rm(procRoot, { recursive: true })]);
});

/** A device plugin gave it these GPUs. */
function given(...gpus: readonly number[]): void {
  const devices = [{ resource_name: 'nvidia.com/gpu', device_ids: gpus.map(uuidOf) }];
  kubelet.pods.push({ namespace: 'team', name: 'worker', containers: [{ name: 'main', devices }] });
}

/** Asks with these device nodes inside, beside that of the driver. */
async function ask(devices: readonly Node[], untried?: Found['untried']) {
  const found = { dir: true, devices: [CONTROL, ...devices], ...(untried === undefined ? {} : { untried }) };
  const sources: GpuSources = {
    native: { devices: () => Promise.resolve(found) },
    log: pino({ level: 'debug' }, { write: (line: string) => logged.push(JSON.parse(line)) }),
    ...{ procRoot, cgroupRoot: '/host/cgroup', kube: undefined, podResources },
  };
  const container = { place: PLACE, id: { pid: 4242, start: 17 }, mounts: [], env: [] };
  const { gpus, source, closed } = await readContainerGpus(sources, container, NODE);
  return { source, closed, gpus: gpus.map(({ index }) => index) };
}

const NODES = [gpu('nvidia0', 7, OPEN), gpu('nvidia1', 6, CLOSED)];

it.each<[string, string, readonly number[]]>([
  ['that it was given', 'podResources', [0]],
  ['that it sees', 'visible', []],
])('a GPU whose node the container may not open is none of those %s, and is told of', async (_, source, gave) => {
  if (gave.length > 0) given(...gave);
  expect(await ask(NODES)).toEqual({ source, gpus: [0], closed: ['/dev/nvidia1'] });
  const msg = 'device nodes of GPUs that the container may not open';
  expect(logged).toMatchObject([{ level: 20, container: NAME, closed: ['/dev/nvidia1'], msg }]);
});

it('a GPU that the container was given and may not open is an error that says so', async () => {
  given(0, 1);
  await expect(ask(NODES)).rejects.toMatchObject({
    code: 'GPU_IDENTITY',
    message: expect.stringMatching(
      /0001 .* and sees GPU-\S+0000 [^;]*; its device cgroup does not let it open \/dev\/nvidia1$/,
    ),
  });
});

it('not all nodes are named where a container has made very many', async () => {
  given(0);
  const many = Array.from({ length: 200 }, (_, n) => gpu(`nvidia-${n}`, 7, CLOSED));
  await expect(ask(many)).rejects.toMatchObject({
    message: expect.stringMatching(/sees none in its \/dev; .* open (\/dev\/nvidia-\d+(, | )){16}and 184 more$/),
  });
});

it('a GPU counts where it is not known whether the container may open its node, and a warning says so', async () => {
  given(0, 1);
  const unknown = [gpu('nvidia0', 7, { usable: null }), gpu('nvidia1', 6, { usable: null, errno: 'EIO' })];
  expect(await ask(unknown, { message: 'no such cgroup' })).toMatchObject({ gpus: [0, 1], closed: [] });
  expect(logged).toMatchObject([
    { level: 40, container: NAME, unknown: ['/dev/nvidia0', '/dev/nvidia1: EIO'], reason: 'no such cgroup' },
  ]);
});
