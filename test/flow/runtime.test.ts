import * as grpc from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openRuntime, type Runtime } from '../../agent/watch/runtime.ts';
import { type FakeContainer, type FakeCri, fakePod, makeCri, until } from '../fakes/cri-server.ts';

let cri: FakeCri;
let runtime: Runtime;
beforeEach(async () => {
  cri = await makeCri();
  runtime = openRuntime(cri.socketPath);
});
afterEach(async () => {
  runtime.close();
  await cri.remove();
});

const verbose = (info: object) => JSON.stringify(info);
const put = (container: Partial<FakeContainer>) => cri.put(fakePod('a', { container }));

describe('the runtime', () => {
  it('says what it is', async () => {
    expect(await runtime.version()).toBe('fake 1.2.3');
  });

  it('lists sandboxes and containers', async () => {
    cri.put(
      fakePod('a'),
      fakePod('b', { sandbox: { state: 'SANDBOX_NOTREADY' }, container: { state: 'CONTAINER_EXITED' } }),
    );
    expect(await runtime.sandboxes()).toMatchObject([
      { id: 'sandbox-a', state: 'SANDBOX_READY', metadata: { uid: 'a', namespace: 'team', name: 'pod-a' } },
      { id: 'sandbox-b', state: 'SANDBOX_NOTREADY' },
    ]);
    expect(await runtime.containers()).toMatchObject([
      {
        id: 'container-a',
        pod_sandbox_id: 'sandbox-a',
        state: 'CONTAINER_RUNNING',
        metadata: { name: 'main', attempt: 0 },
      },
      { id: 'container-b', state: 'CONTAINER_EXITED' },
    ]);
  });

  it('lists more than fits into the usual four megabytes', async () => {
    const annotations = { big: 'x'.repeat(64 << 10) };
    for (let n = 0; n < 100; n++) cri.put(fakePod(`p${n}`, { sandbox: { annotations } }));
    expect(await runtime.sandboxes()).toHaveLength(100);
  });

  it.each<[string, readonly string[]]>([
    ['one address', ['10.0.0.5']],
    ['both families', ['10.0.0.5', 'fd00::5']],
    ['none, on the network of the host', []],
  ])('gives the addresses of a pod: %s', async (_, ips) => {
    cri.put(fakePod('a', { sandbox: { ips } }));
    expect(await runtime.podIps('sandbox-a')).toEqual(ips);
  });
});

describe('a running container', () => {
  const spec = {
    ociVersion: '1.1.0',
    process: { terminal: true, env: ['A=1', 'B=2'], args: ['sh'] },
    mounts: [
      { destination: '/data', source: '/host/data', type: 'bind', options: ['rw'] },
      { destination: '/proc', type: 'proc' },
    ],
    linux: { resources: { memory: { limit: 1 << 30 } }, namespaces: [{ type: 'pid' }] },
  };
  const full = {
    id: 'container-a',
    hostPid: 4242,
    startedAtMs: 1767323045678,
    image: 'registry/worker:1',
    imageId: 'sha256:abc',
    tty: true,
    env: ['A=1', 'B=2'],
    mounts: [
      { destination: '/data', source: '/host/data' },
      { destination: '/proc', source: '' },
    ],
    memoryLimitBytes: 1 << 30,
  };

  it.each([
    [
      'containerd',
      { sandboxID: 's', pid: 4242, removing: false, snapshotter: 'overlayfs', runtimeSpec: spec, config: {} },
    ],
    [
      'CRI-O',
      { sandboxID: 's', pid: 4242, privileged: true, checkpointedAt: '0001-01-01T00:00:00Z', runtimeSpec: spec },
    ],
  ])('is read from the verbose status of %s', async (_, info) => {
    put({ info: verbose(info) });
    expect(await runtime.running('container-a')).toEqual(full);
  });

  it('may say next to nothing of itself', async () => {
    put({ info: verbose({ pid: 1, runtimeSpec: { process: {} } }) });
    expect(await runtime.running('container-a')).toMatchObject({
      hostPid: 1,
      tty: false,
      env: [],
      mounts: [],
      memoryLimitBytes: undefined,
    });
  });

  it.each([[-1], [0]])('has no memory limit where it is %i', async (limit) => {
    put({ info: verbose({ pid: 1, runtimeSpec: { process: {}, linux: { resources: { memory: { limit } } } } }) });
    expect((await runtime.running('container-a')).memoryLimitBytes).toBeUndefined();
  });

  it.each<[string, Partial<FakeContainer> | undefined, RegExp]>([
    ['unknown', undefined, /ContainerStatus: fake NOT_FOUND/],
    ['created', { state: 'CONTAINER_CREATED' }, /is CONTAINER_CREATED, not running/],
    ['exited', { state: 'CONTAINER_EXITED' }, /is CONTAINER_EXITED, not running/],
    ['without a process', { info: verbose({ pid: 0, runtimeSpec: { process: {} } }) }, /has no process any more/],
  ])('is not found where it is %s', async (_, container, message) => {
    if (container !== undefined) put(container);
    await expect(runtime.running('container-a')).rejects.toMatchObject({
      code: 'CONTAINER_NOT_FOUND',
      message: expect.stringMatching(message),
    });
  });

  it.each<[string, Partial<FakeContainer>]>([
    ['is no JSON', { info: '{"pid": ' }],
    ['has no PID', { info: verbose({ runtimeSpec: { process: {} } }) }],
    ['has a PID that is none', { info: verbose({ pid: '12', runtimeSpec: { process: {} } }) }],
    ['has no specification', { info: verbose({ pid: 12 }) }],
    ['is not there', {}],
  ])('is not understood where its verbose status %s', async (_, container) => {
    cri.put(fakePod('a'));
    const { info: _info, ...rest } = fakePod('a').container;
    cri.containers.set('container-a', { ...rest, ...container });
    await expect(runtime.running('container-a')).rejects.toMatchObject({
      code: 'RUNTIME_UNAVAILABLE',
      message: expect.stringContaining('verbose status of container container-a is not understood'),
    });
  });
});

describe('a runtime in trouble', () => {
  it.each([[grpc.status.UNAVAILABLE], [grpc.status.INTERNAL], [grpc.status.UNKNOWN], [grpc.status.DEADLINE_EXCEEDED]])(
    'is unavailable, which may pass, whatever it answers: status %i',
    async (status) => {
      cri.faults.set('ListContainers', [status]);
      await expect(runtime.containers()).rejects.toMatchObject({
        code: 'RUNTIME_UNAVAILABLE',
        retryable: true,
        message: expect.stringMatching(/^ListContainers on .*runtime\.sock: fake /),
      });
      expect(await runtime.containers()).toEqual([]);
    },
  );

  it('is unavailable where nothing listens on its socket, and back soon after it is', async () => {
    await cri.stop();
    await expect(runtime.version()).rejects.toMatchObject({ code: 'RUNTIME_UNAVAILABLE' });
    await cri.start();
    let isBack = false;
    const ask = async () => {
      while (!isBack)
        isBack = await runtime.version().then(Boolean, () => new Promise((go) => setTimeout(go, 20, false)));
    };
    const asking = ask();
    await until(() => isBack, 'the runtime to be back', 4_000);
    await asking;
  });

  it('whose answer is not understood is unavailable too, not a defect of ours', async () => {
    cri.put(fakePod('a'));
    const broken = { ...fakePod('a').sandbox, metadata: undefined } as unknown as ReturnType<typeof fakePod>['sandbox'];
    cri.sandboxes.set('broken', broken);
    await expect(runtime.sandboxes()).rejects.toMatchObject({
      code: 'RUNTIME_UNAVAILABLE',
      message: expect.stringContaining('metadata'),
    });
  });
});

describe('events of the runtime', () => {
  it('are told until the signal, and then the stream is closed', async () => {
    const stop = new AbortController();
    let told = 0;
    const ended = runtime.events(() => told++, stop.signal);
    await until(() => cri.openStreams === 1, 'the stream');
    cri.emit();
    cri.emit();
    await until(() => told === 2, 'two events');
    stop.abort();
    expect(await ended).toBe('stopped');
    await until(() => cri.openStreams === 0, 'the stream to be closed');
  });

  it.each([
    ['unsupported', 'unsupported'],
    ['broken', 'broken'],
  ] as const)('are %s where the runtime says so', async (events, why) => {
    cri.events = events;
    expect(await runtime.events(() => undefined, new AbortController().signal)).toBe(why);
  });

  it('are broken when the stream or the runtime goes away', async () => {
    for (const goAway of [async () => cri.breakStreams(), cri.stop]) {
      const ended = runtime.events(() => undefined, new AbortController().signal);
      await until(() => cri.openStreams === 1, 'the stream');
      await goAway();
      expect(await ended).toBe('broken');
    }
  });

  it('are stopped at once where the signal came before', async () => {
    expect(await runtime.events(() => undefined, AbortSignal.abort())).toBe('stopped');
    await until(() => cri.openStreams === 0, 'no stream');
  });
});
