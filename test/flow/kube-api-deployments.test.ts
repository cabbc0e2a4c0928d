import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runDeployments } from '../fakes/kube-api/deployment-controller.ts';
import { type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';

const KEY = 'demo/worker';
let api: KubeApi;
let stop: () => void;
beforeEach(async () => {
  api = await startKubeApi({ collectsGarbage: true });
  stop = runDeployments(api);
});
afterEach(async () => {
  stop();
  await api.close();
});

function put(replicas: number, image = 'worker:1') {
  api.put({
    kind: 'Deployment',
    metadata: { name: 'worker', namespace: 'demo' },
    spec: {
      replicas,
      template: { metadata: { labels: { app: 'worker' } }, spec: { containers: [{ name: 'main', image }] } },
    },
  });
}
const images = () =>
  api.list('pods').map(({ spec = {} }) => (spec['containers'] as readonly { readonly image: string }[])[0]?.image);
const status = () => api.get('deployments', KEY)?.status;
function makeReady() {
  const condition = { type: 'Ready', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' };
  // One that is ready may end another at once.
  for (const { metadata } of api.list('pods'))
    if (api.get('pods', `demo/${metadata.name}`) !== undefined)
      api.patch('pods', `demo/${metadata.name}`, { status: { phase: 'Running', conditions: [condition] } });
}

describe('the stand-in for the controller of Deployments', () => {
  it('keeps as many pods as are asked for, and says how many there are', async () => {
    put(2);
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 2, readyReplicas: 0, observedGeneration: 1 }));
    const names = api.list('pods').map(({ metadata }) => metadata.name);
    expect(names).toEqual([expect.stringMatching(/^worker-[0-9a-f]{10}-[0-9a-f]{5}$/), expect.any(String)]);
    makeReady();
    await vi.waitFor(() =>
      expect(status()).toMatchObject({ readyReplicas: 2, availableReplicas: 2, unavailableReplicas: 0 }),
    );
    api.patch('deployments', KEY, { spec: { replicas: 1 } });
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 1 }));
    api.remove('pods', `demo/${api.list('pods')[0]?.metadata.name}`);
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 1, readyReplicas: 0 }));
    api.patch('deployments', KEY, { spec: { replicas: 0 } });
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 0 }));
  });

  it('replaces pods of an older template once the new ones are ready', async () => {
    put(1);
    await vi.waitFor(() => expect(images()).toEqual(['worker:1']));
    put(1, 'worker:2');
    await vi.waitFor(() => expect(images().sort()).toEqual(['worker:1', 'worker:2']));
    makeReady();
    await vi.waitFor(() => expect(images()).toEqual(['worker:2']));
  });

  it('leaves nothing behind when the Deployment goes', async () => {
    put(2);
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 2 }));
    api.delete('deployments', KEY);
    await vi.waitFor(() => expect(api.list('pods')).toEqual([]));
  });

  it('makes its pods through the webhooks: one that cannot be asked, and must be, keeps them away', async () => {
    const rules = [{ operations: ['CREATE'], apiGroups: [''], resources: ['pods'] }];
    const clientConfig = { service: { namespace: 'system', name: 'gone' } };
    const webhooks = [{ name: 'pods.example.com', clientConfig, rules, failurePolicy: 'Fail' }];
    api.put({ kind: 'MutatingWebhookConfiguration', metadata: { name: 'pods' }, webhooks });
    put(1);
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 0 }));
    api.remove('mutatingwebhookconfigurations', '/pods');
    api.patch('deployments', KEY, { metadata: { annotations: { again: '1' } } });
    await vi.waitFor(() => expect(status()).toMatchObject({ replicas: 1 }));
  });
});
