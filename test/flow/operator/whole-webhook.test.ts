import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../../contract/keys.ts';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { parseConfig } from '../../../operator/config.ts';
import { serve } from '../../../operator/serve.ts';
import { NAMESPACE, only, render } from '../../chart/render.ts';
import { readDefinitions } from '../../fakes/kube-api/crds.ts';
import type { Json } from '../../fakes/kube-api/resources.ts';
import { type KubeApi, startKubeApi } from '../../fakes/kube-api/server.ts';
import { memoryLog } from '../../fakes/log.ts';
import { CHECKPOINT } from '../../unit/crds/samples.ts';

/** The API server asks about a pod as the chart tells it to, and the whole operator answers, with a certificate that it made itself. */

let api: KubeApi;
let client: KubeClient;
let dir: string;
let stop: AbortController;
let running: Promise<void>;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'whole-'));
  stop = new AbortController();
  api = await startKubeApi({ definitions: readDefinitions() });
  const values = { operator: { enabled: true }, rbac: { namespaceRestricted: false } };
  const objects = render(values);
  api.put(only(objects, 'MutatingWebhookConfiguration') as unknown as Parameters<KubeApi['put']>[0]);
  // The agents are in the same namespace as the workers: what it has of a DaemonSet says where artifacts are.
  const agents = only(objects, 'DaemonSet');
  api.put({ ...agents, metadata: { ...agents.metadata, namespace: 'demo' } } as unknown as Parameters<
    KubeApi['put']
  >[0]);
  const { data } = only(objects, 'ConfigMap', 'snapshot-operator') as unknown as { data: { 'config.yaml': string } };
  const kubeconfig = await api.writeKubeconfig(dir);
  client = await openKube({ kubeconfigPath: kubeconfig });
  const config = parseConfig(data['config.yaml']);
  const { webhook } = config;
  const here = {
    ...{ ...config, kubernetes: { kubeconfig, namespace: NAMESPACE } },
    ...{ http: { address: '127.0.0.1:0' }, webhook: { ...webhook, port: 0 } },
  };
  const onListening = ({ webhook: port = 0 }) => void api.services.set(`${NAMESPACE}/${webhook.serviceName}`, port);
  running = serve({ config: here, env: {}, log: memoryLog().log, onListening }, stop.signal);
});
afterEach(async () => {
  stop.abort();
  await running;
  client.close();
  await api.close();
  await rm(dir, { recursive: true });
});

let count = 0;
async function candidate(): Promise<Json> {
  count += 1;
  const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'worker', uid: 'r1', controller: true };
  const body = {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: {
      ...{ name: `worker-${count}`, namespace: 'demo', ownerReferences: [owner] },
      annotations: { [ANNOTATIONS.restoreCandidate]: 'true', [ANNOTATIONS.checkpointName]: 'one' },
    },
    spec: { containers: [{ name: 'main', image: 'worker:1' }] },
  };
  return client.request<Json>({ method: 'POST', path: '/api/v1/namespaces/demo/pods', body });
}
const labelsOf = (pod: Json) => (pod['metadata'] as { labels?: Record<string, string> }).labels ?? {};

it('a candidate starts cold until its checkpoint is ready, and is restored from then on', async () => {
  const put = (phase: string) =>
    api.put({
      ...{ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name: 'one', namespace: 'demo' } },
      status: { phase, checkpointID: 'the-id', identityHash: 'the-id' },
    });
  expect(labelsOf(await candidate())).not.toHaveProperty(LABELS.restoreTarget);
  put('Ready');
  await vi.waitFor(async () => {
    const pod = await candidate();
    expect(labelsOf(pod)).toMatchObject({ [LABELS.restoreTarget]: 'true', [LABELS.checkpointId]: 'the-id' });
  }, 15_000);
});
