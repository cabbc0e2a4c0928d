import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { type Authority, type Issued, makeAuthority } from '../grpc/certificates.ts';
import { json } from './server.ts';

let dir: string;
let authority: Authority;
let client: Issued;
let server: Server;
let port: number;
/** Who the server saw: token, certificate. */
let seen: string[];
const opened: KubeClient[] = [];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kube-'));
  authority = await makeAuthority(dir, 'cluster');
  const { cert, key } = await authority.issue('server', { names: 'IP:127.0.0.1,DNS:kubernetes.default' });
  client = await authority.issue('system:agent');
  const tls = { cert, key, ca: authority.certificate, requestCert: true, rejectUnauthorized: false };
  server = createServer(tls, (request, response) => {
    const { CN } = (request.socket as TLSSocket).getPeerCertificate().subject ?? {};
    seen.push(`${request.headers.authorization ?? 'no token'}, ${CN ?? 'no certificate'}`);
    json(response, 200, {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  ({ port } = server.address() as AddressInfo);
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(dir, { recursive: true });
});
afterEach(() => {
  for (const one of opened.splice(0)) one.close();
  vi.unstubAllEnvs();
});

/** Opens a client and makes one call. */
async function call(options: Parameters<typeof openKube>[0]) {
  seen = [];
  const kube = await openKube(options);
  opened.push(kube);
  await kube.request({ method: 'GET', path: '/version' });
  return { kube, seen };
}
/** Writes a kubeconfig. What is not given: this server, its authority by file name, no credential. */
async function kubeconfig(parts: { cluster?: object; user?: object; more?: object } = {}) {
  const path = join(dir, 'kubeconfig');
  const cluster = { server: `https://127.0.0.1:${port}`, 'certificate-authority': 'cluster/ca.pem', ...parts.cluster };
  const config = {
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user: parts.user ?? {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
    ...parts.more,
  };
  await writeFile(path, JSON.stringify(config));
  return { kubeconfigPath: path };
}
const base64 = (content: Buffer) => content.toString('base64');

describe('a client from a kubeconfig', () => {
  it.each<[string, () => Promise<object> | object, string]>([
    ['a token', () => ({ token: 'abc' }), 'Bearer abc, no certificate'],
    [
      'a token from a file beside it',
      async () => {
        await writeFile(join(dir, 'token'), 'abc\n');
        return { tokenFile: 'token' };
      },
      'Bearer abc, no certificate',
    ],
    [
      'a certificate from files',
      () => ({ 'client-certificate': client.certFile, 'client-key': client.keyFile }),
      'no token, system:agent',
    ],
    [
      'a certificate inside it',
      () => ({ 'client-certificate-data': base64(client.cert), 'client-key-data': base64(client.key) }),
      'no token, system:agent',
    ],
    [
      'the answer of a program',
      async () => {
        const plugin = join(dir, 'plugin');
        const answer = {
          apiVersion: 'client.authentication.k8s.io/v1',
          kind: 'ExecCredential',
          status: { token: 'made' },
        };
        await writeFile(plugin, `#!/bin/sh\necho '${JSON.stringify(answer)}'\n`);
        await chmod(plugin, 0o755);
        return { exec: { apiVersion: 'client.authentication.k8s.io/v1', command: plugin } };
      },
      'Bearer made, no certificate',
    ],
    ['nothing', () => ({}), 'no token, no certificate'],
  ])('shows %s', async (_, user, shown) => {
    expect((await call(await kubeconfig({ user: await user() }))).seen).toEqual([shown]);
  });

  it('trusts the authority that is inside it, and calls the server by another name where it says so', async () => {
    const cluster = {
      'certificate-authority': undefined,
      'certificate-authority-data': base64(authority.certificate),
      'tls-server-name': 'kubernetes.default',
    };
    await call(await kubeconfig({ cluster }));
    const wrongName = call(await kubeconfig({ cluster: { 'tls-server-name': 'elsewhere' } }));
    await expect(wrongName).rejects.toMatchObject({ reason: 'Unreachable' });
  });

  it('trusts no other authority, unless it is told to trust all', async () => {
    const other = await makeAuthority(dir, 'other');
    const cluster = { 'certificate-authority': other.file };
    await expect(call(await kubeconfig({ cluster }))).rejects.toMatchObject({
      name: 'KubeError',
      reason: 'Unreachable',
    });
    await call(await kubeconfig({ cluster: { ...cluster, 'insecure-skip-tls-verify': true } }));
  });

  it('of another context than the current one, where that is named', async () => {
    const users = [
      { name: 'u', user: { token: 'first' } },
      { name: 'v', user: { token: 'second' } },
    ];
    const contexts = ['u', 'v'].map((user) => ({ name: `as-${user}`, context: { cluster: 'c', user } }));
    const path = await kubeconfig({ more: { users, contexts, 'current-context': 'as-u' } });
    expect((await call(path)).seen).toEqual(['Bearer first, no certificate']);
    expect((await call({ ...path, context: 'as-v' })).seen).toEqual(['Bearer second, no certificate']);
  });

  it.each<[string, Parameters<typeof kubeconfig>[0], string]>([
    ['has no such context', { more: { 'current-context': 'y' } }, 'no context "y"'],
    ['has no context at all', { more: { 'current-context': undefined } }, 'which context is current'],
    ['has no such cluster', { more: { clusters: [] } }, 'no cluster "c"'],
    ['has no such user', { more: { users: [] } }, 'no user "u"'],
    ['wants a proxy', { cluster: { 'proxy-url': 'http://p' } }, 'proxy-url'],
    ['has an auth provider', { user: { 'auth-provider': { name: 'gcp' } } }, 'auth-provider'],
    ['has a password', { user: { username: 'a', password: 'b' } }, 'password'],
    ['names no server', { cluster: { server: 'nowhere' } }, 'nowhere'],
    ['would send a token in the clear', { cluster: { server: 'http://192.0.2.1' } }, 'https'],
  ])('that %s is refused, and says so', async (_, parts, message) => {
    const refused = { name: 'KubeError', reason: 'Credentials', message: expect.stringContaining(message) as string };
    await expect(openKube(await kubeconfig(parts))).rejects.toMatchObject(refused);
  });

  it('that is not there, or is no YAML, is refused with its path', async () => {
    const path = join(dir, 'odd');
    await expect(openKube({ kubeconfigPath: path })).rejects.toMatchObject({ reason: 'Credentials' });
    await writeFile(path, '');
    const empty = { reason: 'Credentials', message: expect.stringContaining('which context is current') as string };
    await expect(openKube({ kubeconfigPath: path })).rejects.toMatchObject(empty);
    await writeFile(path, 'a: [');
    const refused = { reason: 'Credentials', message: expect.stringContaining(path) as string };
    await expect(openKube({ kubeconfigPath: path })).rejects.toMatchObject(refused);
  });

  it.each<[string, object, string]>([
    ['a token file that is not there', { tokenFile: 'missing' }, 'missing'],
    [
      'a program that fails',
      { exec: { apiVersion: 'client.authentication.k8s.io/v1', command: '/bin/false' } },
      'user u',
    ],
  ])('fails each call, by name, for %s', async (_, user, message) => {
    const kube = await openKube(await kubeconfig({ user }));
    opened.push(kube);
    const failure = { reason: 'Credentials', message: expect.stringContaining(message) as string };
    await expect(kube.request({ method: 'GET', path: '/version' })).rejects.toMatchObject(failure);
  });
});

it('an empty token file is one that is being written: nothing is sent, and the next call reads it again', async () => {
  await writeFile(join(dir, 'token'), '');
  const kube = await openKube(await kubeconfig({ user: { tokenFile: 'token' } }));
  opened.push(kube);
  const ask = () => kube.request({ method: 'GET', path: '/version' });
  const failure = { reason: 'Credentials', message: expect.stringContaining('is empty') as string };
  const before = seen.length;
  await expect(ask()).rejects.toMatchObject(failure);
  expect(seen.length).toBe(before);
  await writeFile(join(dir, 'token'), 'abc');
  await ask();
  expect(seen.at(-1)).toBe('Bearer abc, no certificate');
});

describe('a client in a pod', () => {
  it('uses the address, authority and token that every pod is given', async () => {
    const serviceAccountDir = join(dir, 'account');
    await mkdir(serviceAccountDir);
    await writeFile(join(serviceAccountDir, 'ca.crt'), authority.certificate);
    await writeFile(join(serviceAccountDir, 'token'), 'of-the-account');
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '127.0.0.1');
    vi.stubEnv('KUBERNETES_SERVICE_PORT', String(port));
    const { kube, seen: shown } = await call({ serviceAccountDir });
    expect(kube.server).toBe(`https://127.0.0.1:${port}`);
    expect(shown).toEqual(['Bearer of-the-account, no certificate']);
  });

  it('has brackets around an IPv6 address', async () => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', 'fd00::1');
    vi.stubEnv('KUBERNETES_SERVICE_PORT', '6443');
    const kube = await openKube({ serviceAccountDir: dir });
    opened.push(kube);
    expect(kube.server).toBe('https://[fd00::1]:6443');
  });

  it('is refused outside of one', async () => {
    vi.stubEnv('KUBERNETES_SERVICE_HOST', '');
    await expect(openKube()).rejects.toMatchObject({
      reason: 'Credentials',
      message: expect.stringContaining('kubeconfig'),
    });
  });
});
