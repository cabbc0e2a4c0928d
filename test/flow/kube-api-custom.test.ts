import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MERGE } from '../fakes/kube-api/calling.ts';
import { readDefinitions } from '../fakes/kube-api/crds.ts';
import { type Json, type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';
import { altered, CHECKPOINT, CHECKPOINT_REF } from '../unit/crds/samples.ts';

const ALL = '/apis/nvidia.com/v1alpha1/namespaces/demo/dynamocheckpoints';
const ONE = `${ALL}/qwen3-06b-bf16`;
const KEY = 'demo/qwen3-06b-bf16';

let api: KubeApi;
beforeEach(async () => {
  api = await startKubeApi({ definitions: readDefinitions(), collectsGarbage: true });
});
afterEach(() => api.close());

async function call(method: string, path: string, body?: unknown, contentType = 'application/json') {
  const answer = await fetch(`${api.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${api.token}`, 'content-type': contentType },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Json & { message?: string; metadata: Json } };
}
const stored = () => api.get('dynamocheckpoints', KEY);

describe('a custom resource', () => {
  it('is made with its defaults and without a status, listed and watched', async () => {
    const made = await call('POST', ALL, altered(CHECKPOINT, 'status.phase', 'Ready'));
    expect(made).toMatchObject({
      status: 201,
      body: {
        ...{ apiVersion: 'nvidia.com/v1alpha1', kind: 'DynamoCheckpoint' },
        metadata: { namespace: 'demo', generation: 1 },
        spec: { job: { targetContainerName: 'main', sharedMemory: { size: '8Gi' } } },
      },
    });
    expect(made.body).not.toHaveProperty('status');
    const list = await call('GET', '/apis/nvidia.com/v1alpha1/dynamocheckpoints');
    expect(list.body).toMatchObject({ kind: 'DynamoCheckpointList', items: [{ metadata: made.body.metadata }] });
    const [{ resourceVersion }] = [made.body.metadata];
    const watch = await fetch(`${api.url}${ALL}?watch=true&resourceVersion=${Number(resourceVersion) - 1}`, {
      headers: { authorization: `Bearer ${api.token}` },
    });
    const { value } = (await watch.body?.getReader().read()) ?? {};
    expect(JSON.parse(Buffer.from(value ?? []).toString())).toMatchObject({ type: 'ADDED', object: made.body });
  });

  it('is known by its own version alone, and only where it is defined', async () => {
    const other = ALL.replace('v1alpha1', 'v1');
    expect((await fetch(`${api.url}${other}`)).status).toBe(404);
    const plain = await startKubeApi();
    expect((await fetch(`${plain.url}${ALL}`)).status).toBe(404);
    await plain.close();
  });

  it('is refused with what is wrong', async () => {
    const bad = altered(altered(CHECKPOINT, 'spec.identity.model', undefined), 'spec.job.activeDeadlineSeconds', 0);
    const { status, body } = await call('POST', ALL, bad);
    expect(status).toBe(422);
    expect(body).toMatchObject({
      reason: 'Invalid',
      details: {
        causes: [
          { field: 'spec.identity.model', reason: 'FieldValueRequired' },
          { field: 'spec.job.activeDeadlineSeconds', reason: 'FieldValueInvalid' },
        ],
      },
    });
    expect(body.message).toContain('DynamoCheckpoint.nvidia.com "qwen3-06b-bf16" is invalid');
  });

  it('keeps its identity, by whatever way it is written', async () => {
    const { body } = await call('POST', ALL, CHECKPOINT);
    const change = { spec: { identity: { dtype: 'fp8' } } };
    const replace = [{ op: 'replace', path: '/spec/identity/dtype', value: 'fp8' }];
    for (const answer of [
      await call('PATCH', ONE, change, MERGE),
      await call('PATCH', ONE, replace, 'application/json-patch+json'),
      await call('PUT', ONE, altered(body, 'spec.identity.dtype', 'fp8')),
    ])
      expect(answer).toMatchObject({ status: 422, body: { details: { causes: [{ field: 'spec.identity' }] } } });
    expect((await call('PATCH', ONE, change, 'application/strategic-merge-patch+json')).status).toBe(415);
    expect(stored()?.metadata).toMatchObject({ generation: 1, resourceVersion: body.metadata['resourceVersion'] });
  });

  it('has two halves: the path of the status writes nothing else, and the other not the status', async () => {
    await call('POST', ALL, CHECKPOINT);
    const patch = {
      metadata: { labels: { a: 'b' } },
      spec: { job: { activeDeadlineSeconds: 60 } },
      status: { phase: 'Creating' },
    };
    await call('PATCH', `${ONE}/status`, patch, MERGE);
    expect(stored()).toMatchObject({
      metadata: { generation: 1 },
      spec: { job: { activeDeadlineSeconds: 3600 } },
      status: { phase: 'Creating' },
    });
    expect(stored()?.metadata).not.toHaveProperty('labels');
    await call('PATCH', ONE, { ...patch, status: { phase: 'Ready' } }, MERGE);
    expect(stored()).toMatchObject({
      metadata: { generation: 2, labels: { a: 'b' } },
      spec: { job: { activeDeadlineSeconds: 60 } },
      status: { phase: 'Creating' },
    });
    expect((await call('PATCH', `${ONE}/status`, { status: { phase: 'Done' } }, MERGE)).status).toBe(422);
  });

  it('is replaced only from the version that is there', async () => {
    const { body } = await call('POST', ALL, CHECKPOINT);
    await call('PATCH', ONE, { metadata: { labels: { a: 'b' } } }, MERGE);
    expect((await call('PUT', ONE, body)).status).toBe(409);
    expect((await call('PUT', ONE, CHECKPOINT)).status).toBe(422);
    expect((await call('PUT', ALL.concat('/other'), altered(CHECKPOINT, 'metadata.name', 'other'))).status).toBe(404);
  });

  it('with finalizers is marked, and goes with the last of them', async () => {
    await call('POST', ALL, altered(CHECKPOINT, 'metadata.finalizers', ['a.b/c', 'd.e/f']));
    expect(await call('DELETE', ONE)).toMatchObject({ status: 200, body: { metadata: { name: 'qwen3-06b-bf16' } } });
    const marked = stored()?.metadata.deletionTimestamp;
    expect(marked).toBeDefined();
    await call('DELETE', ONE);
    expect(stored()?.metadata.deletionTimestamp).toBe(marked);
    const added = { metadata: { finalizers: ['a.b/c', 'd.e/f', 'x.y/z'] } };
    expect((await call('PATCH', ONE, added, MERGE)).status).toBe(422);
    await call('PATCH', ONE, { metadata: { finalizers: ['d.e/f'] } }, MERGE);
    expect(stored()?.metadata.finalizers).toEqual(['d.e/f']);
    await call('PATCH', ONE, { metadata: { finalizers: null } }, MERGE);
    expect(stored()).toBeUndefined();
  });

  it('is scaled, where it is a deployment, by a patch of one service', async () => {
    const all = '/apis/nvidia.com/v1alpha1/namespaces/demo/dynamographdeployments';
    await call('POST', all, CHECKPOINT_REF);
    const patch = { spec: { services: { VllmDecodeWorker: { replicas: 2 } } } };
    const { body } = await call('PATCH', `${all}/vllm-checkpointref-demo`, patch, MERGE);
    expect(body).toMatchObject({
      metadata: { generation: 2 },
      spec: { services: { Frontend: { replicas: 1 }, VllmDecodeWorker: { replicas: 2, componentType: 'worker' } } },
    });
  });
});

describe('garbage', () => {
  const owned = (kind: string, name: string, owner: Json) => {
    const metadata = { name, namespace: 'demo', ownerReferences: [owner] };
    return api.put({ kind, metadata, spec: kind === 'Pod' ? { nodeName: 'n', containers: [{ name: 'main' }] } : {} });
  };
  const reference = (apiVersion: string, kind: string, name: string, uid: string) => ({ apiVersion, kind, name, uid });

  it('goes after its owner, down to what runs on a node, which only begins to end', async () => {
    const { uid } = api.put({
      ...CHECKPOINT,
      kind: 'DynamoCheckpoint',
      metadata: { name: 'c', namespace: 'demo' },
    }).metadata;
    const job = owned('Job', 'j', reference('nvidia.com/v1alpha1', 'DynamoCheckpoint', 'c', uid));
    owned('Pod', 'p', reference('batch/v1', 'Job', 'j', job.metadata.uid));
    await call('DELETE', `${ALL}/c`);
    await vi.waitFor(() => expect(api.get('pods', 'demo/p')?.metadata.deletionTimestamp).toBeDefined());
    expect(api.get('jobs', 'demo/j')).toBeUndefined();
  });

  it('is what names an owner that is not there, or another of its name', async () => {
    api.put({ kind: 'Job', metadata: { name: 'j', namespace: 'demo' } });
    owned('Lease', 'stale', reference('batch/v1', 'Job', 'j', 'another'));
    await vi.waitFor(() => expect(api.get('leases', 'demo/stale')).toBeUndefined());
  });

  it('is not what one of its owners still holds, nor what an unknown kind owns', async () => {
    const { uid } = api.put({ kind: 'Job', metadata: { name: 'j', namespace: 'demo' } }).metadata;
    const [here, gone] = [reference('batch/v1', 'Job', 'j', uid), reference('batch/v1', 'Job', 'k', 'gone')];
    api.put({ kind: 'Lease', metadata: { name: 'shared', namespace: 'demo', ownerReferences: [gone, here] } });
    owned('Lease', 'foreign', reference('example.com/v1', 'Thing', 't', 'u'));
    owned('Lease', 'last', gone);
    await vi.waitFor(() => expect(api.get('leases', 'demo/last')).toBeUndefined());
    expect(api.list('leases').map(({ metadata }) => metadata.name)).toEqual(['foreign', 'shared']);
  });
});
