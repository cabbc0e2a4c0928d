import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openKube } from '../../kube/client.ts';
import { codeOf, MERGE, PODS, useServer } from '../fakes/kube-api/calling.ts';
import { type Role, startKubeApi } from '../fakes/kube-api/server.ts';
import { makeAuthority } from './grpc/certificates.ts';

const { stage, put, call, annotate, watch } = useServer();

describe('the server', () => {
  it('goes away, and is back on the same port with what it had', async () => {
    const { url } = stage.api;
    const open = await watch();
    await stage.api.goAway();
    expect(await codeOf(open.text())).toBe('ECONNRESET');
    expect(await codeOf(call(PODS))).toBe('ECONNREFUSED');
    put('web-2');
    await stage.api.comeBack({ forbiddenCalls: 1 });
    expect(stage.api.url).toBe(url);
    expect([(await call(PODS)).status, (await call(PODS)).status]).toEqual([403, 200]);
    const { items } = (await (await call(PODS)).json()) as { items: unknown[] };
    expect(items).toHaveLength(2);
  });

  it('changes its tokens while it runs, and kubeconfigs lead to it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'kube-api-'));
    const client = await openKube({ kubeconfigPath: await stage.api.writeKubeconfig(dir) });
    const { metadata } = await client.request<{ metadata: { name: string } }>({
      method: 'GET',
      path: `${PODS}/web`,
      timeoutMs: 5_000,
    });
    expect(metadata.name).toBe('web');
    client.close();
    const old = await readFile(join(dir, 'token'), 'utf8');
    stage.api.tokens.clear();
    stage.api.tokens.set('token-2', 'agent');
    const status = async (token: string) =>
      (await fetch(`${stage.api.url}${PODS}`, { headers: { authorization: `Bearer ${token}` } })).status;
    expect([await status(old), await status('token-2')]).toEqual([401, 200]);
    await rm(dir, { recursive: true });
  });

  it('serves https, and breaks its connections as well', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'kube-api-'));
    const authority = await makeAuthority(dir, 'cluster');
    const { cert, key } = await authority.issue('api', { names: 'IP:127.0.0.1' });
    const pem = { cert: cert.toString(), key: key.toString(), ca: authority.certificate.toString() };
    const secure = await startKubeApi({ tls: pem });
    put('web', secure);
    const client = await openKube({ kubeconfigPath: await secure.writeKubeconfig(dir) });
    const get = () => client.request({ method: 'GET', path: `${PODS}/web`, timeoutMs: 5_000 });
    expect(await get()).toMatchObject({ metadata: { name: 'web' } });
    const fault = secure.fault({ verb: 'get' }, { kind: 'reset', at: 'request' });
    await expect(get()).rejects.toThrow(/ECONNRESET|socket hang up/);
    expect(fault.hits).toBeGreaterThan(0);
    client.close();
    await secure.close();
    await rm(dir, { recursive: true });
  });

  it('allows what the rules allow, and logs what was asked', async () => {
    const roles: Role[] = [
      { kind: 'ClusterRole', rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }] },
      {
        kind: 'Role',
        metadata: { namespace: 'demo' },
        rules: [{ apiGroups: [''], resources: ['pods/status'], verbs: ['patch'], resourceNames: ['web'] }],
      },
    ];
    stage.api.setRoles(roles);
    const patch = (path: string) =>
      call(path, { method: 'PATCH', headers: { 'content-type': MERGE, 'user-agent': 'agent/1' }, body: '{}' });
    await call('/api/v1/pods');
    for (const name of ['web', 'web/status', 'other/status']) await patch(`${PODS}/${name}`);
    await patch('/api/v1/namespaces/other/pods/web/status');
    const logged = stage.api
      .calls()
      .map(({ verb, resource, subresource, namespace, name, status }) =>
        [verb, resource, subresource, namespace, name, status].join(' '),
      );
    expect(logged).toEqual([
      'list pods    200',
      'patch pods  demo web 403',
      'patch pods status demo web 200',
      'patch pods status demo other 403',
      'patch pods status other web 403',
    ]);
    expect(stage.api.calls({ verb: 'patch' }).map(({ userAgent }) => userAgent)).toEqual(Array(4).fill('agent/1'));
  });

  it('tells of each call as it comes', async () => {
    const seen: string[] = [];
    const stop = stage.api.onCall(({ verb, name }) => seen.push(`${verb} ${name}`));
    await annotate('a');
    stop();
    await annotate('b');
    expect(seen).toEqual(['patch web']);
  });

  it('keeps up with 500 pods and 10,000 updates, in order', async () => {
    const names = Array.from({ length: 500 }, (_, index) => `pod-${index}`);
    for (const name of names) put(name);
    const stream = await watch();
    for (let index = 0; index < 10_000; index += 1) {
      stage.api.patch('pods', `demo/${names[index % 500]}`, { metadata: { annotations: { index: `${index}` } } });
    }
    stage.api.watches.end();
    const lines = (await stream.text()).trim().split('\n');
    const seen = lines.map(
      (line) => (JSON.parse(line) as { object: { metadata: { annotations: { index: string } } } }).object,
    );
    expect(seen.map(({ metadata }) => metadata.annotations.index)).toEqual(
      Array.from({ length: 10_000 }, (_, index) => `${index}`),
    );
  });
});
