import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openKube } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import { execInPod } from '../../kube/exec.ts';
import { type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';
import { makeAuthority } from './grpc/certificates.ts';
import { eventually } from './grpc/client.ts';

let api: KubeApi;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'exec-'));
  api = await startKubeApi();
});
afterEach(async () => {
  await api.close();
  await rm(directory, { recursive: true, force: true });
});

const putPod = (to = api) =>
  to.put({
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'demo' },
    spec: { nodeName: 'node-1', containers: [{ name: 'main' }] },
  });

async function exec(signal?: AbortSignal, to = api) {
  const kube = await openKube({ kubeconfigPath: await to.writeKubeconfig(directory) });
  try {
    return await execInPod(kube.credentials, {
      namespace: 'demo',
      pod: 'web',
      container: 'main',
      command: ['run', 'it'],
      signal,
    });
  } finally {
    kube.close();
  }
}

const sh = (script: string) => api.serveExec(() => ({ file: 'sh', args: ['-c', script] }));
const V4 = ['v4.channel.k8s.io'];

describe('a program in a container', () => {
  beforeEach(() => putPod());

  it('gets what is written, in whole, and its end; and so does its reader', async () => {
    sh('wc -c; echo "to stderr" >&2');
    const { stream, ended } = await exec();
    const bytes = Buffer.alloc(5 << 20, 'x');
    stream.end(bytes);
    expect((await text(stream)).trim()).toBe(String(bytes.length));
    expect(await ended).toEqual({ exitCode: 0, message: '', stderr: 'to stderr' });
  });

  it('is held up by a reader that does not read', async () => {
    const size = 64 << 20;
    sh(`head -c ${size} /dev/zero`);
    const { stream, ended } = await exec();
    await eventually(() => stream.readableLength > 0);
    // The program cannot have written all of it: what is on the way has its limits.
    expect(api.execs).toHaveLength(1);
    let count = 0;
    for await (const chunk of stream) count += (chunk as Buffer).length;
    expect([count, (await ended).exitCode]).toEqual([size, 0]);
  });

  it('that fails is told by its status and what it said', async () => {
    sh('echo no such thing >&2; exit 3');
    const { stream, ended } = await exec();
    stream.resume();
    expect(await ended).toMatchObject({ exitCode: 3, stderr: 'no such thing' });
  });

  it('that is not there never ran', async () => {
    api.serveExec(() => ({ file: '/nonexistent/run', args: [] }));
    const { ended } = await exec();
    expect(await ended).toMatchObject({
      exitCode: undefined,
      message: expect.stringContaining('executable file not found'),
    });
  });

  it('ends with its input over v4, too, where the connection is closed for it', async () => {
    api.serveExec(() => ({ file: 'cat', args: [] }), V4);
    const { stream } = await exec();
    stream.write('hello');
    const [first] = await Promise.all([new Promise((resolve) => stream.once('data', resolve))]);
    expect(String(first)).toBe('hello');
    stream.end();
    await eventually(() => api.execs.length === 0);
  });

  it('whose connection breaks is lost, with an error', async () => {
    api.serveExec(() => ({ file: 'cat', args: [] }));
    const { stream, ended } = await exec();
    const failed = new Promise((resolve) => stream.once('error', resolve));
    api.resetConnections();
    expect(await failed).toMatchObject({ name: 'KubeError', reason: 'Reset' });
    expect(await ended).toMatchObject({
      exitCode: undefined,
      message: expect.stringContaining('the connection broke'),
    });
  });

  it('is let go of by the signal', async () => {
    api.serveExec(() => ({ file: 'cat', args: [] }));
    const stop = new AbortController();
    const { stream, ended } = await exec(stop.signal);
    stop.abort(new Error('enough'));
    await ended;
    expect(stream.destroyed).toBe(true);
    await eventually(() => api.execs.length === 0);
    await expect(exec(stop.signal)).rejects.toThrow('enough');
  });
});

describe('is refused', () => {
  const refused = async () => {
    const [outcome] = await Promise.allSettled([exec()]);
    if (outcome.status === 'fulfilled') throw new Error('it was not refused');
    expect(outcome.reason).toBeInstanceOf(KubeError);
    return outcome.reason as KubeError;
  };

  it('without the right to it', async () => {
    putPod();
    api.setRoles([{ rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] }]);
    expect(await refused()).toMatchObject({ status: 403, message: expect.stringContaining('pods/exec') });
  });

  it('without the pod, or without its container', async () => {
    expect(await refused()).toMatchObject({ status: 404, reason: 'NotFound' });
    api.put({ kind: 'Pod', metadata: { name: 'web', namespace: 'demo' }, spec: { containers: [{ name: 'other' }] } });
    expect(await refused()).toMatchObject({
      status: 400,
      message: expect.stringContaining('container main is not valid'),
    });
  });

  it('by nobody where nobody listens', async () => {
    await api.goAway();
    expect(await refused()).toMatchObject({ status: 0, reason: 'Unreachable' });
    await api.comeBack();
  });
});

it('takes a token that was changed meanwhile, over TLS', async () => {
  const authority = await makeAuthority(directory, 'ca');
  const issued = await authority.issue('api', { names: 'IP:127.0.0.1' });
  const tls = { cert: issued.cert.toString(), key: issued.key.toString(), ca: authority.certificate.toString() };
  const secure = await startKubeApi({ tls });
  try {
    putPod(secure);
    secure.serveExec(() => ({ file: 'echo', args: ['hello'] }));
    const kube = await openKube({ kubeconfigPath: await secure.writeKubeconfig(directory) });
    await kube.request({ method: 'GET', path: '/api/v1/pods' });
    secure.tokens.clear();
    secure.tokens.set('token-2', 'system:serviceaccount:default:agent');
    await secure.writeKubeconfig(directory);
    const { stream } = await execInPod(kube.credentials, {
      namespace: 'demo',
      pod: 'web',
      container: 'main',
      command: ['x'],
    });
    expect(await text(stream)).toBe('hello\n');
    expect(secure.calls({ subresource: 'exec' }).map(({ status }) => status)).toEqual([401, 101]);
    kube.close();
  } finally {
    await secure.close();
  }
});
