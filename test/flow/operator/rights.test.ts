import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ANNOTATIONS } from '../../../contract/keys.ts';
import { type Config, parseConfig } from '../../../operator/config.ts';
import { serve } from '../../../operator/serve.ts';
import { NAMESPACE, only, render } from '../../chart/render.ts';
import { readDefinitions } from '../../fakes/kube-api/crds.ts';
import { failJob, startJobPod } from '../../fakes/kube-api/job-controller.ts';
import type { Json } from '../../fakes/kube-api/resources.ts';
import { type KubeApi, startKubeApi } from '../../fakes/kube-api/server.ts';
import { askedFor, grantsOf, readOperatorRbac } from '../../fakes/kube-api/shipped-roles.ts';
import { memoryLog } from '../../fakes/log.ts';
import { AUTO, CHECKPOINT } from '../../unit/crds/samples.ts';
import { eventually } from '../kube/server.ts';

/*
 * The whole operator under the rules of the chart, as the API server enforces them: what it may not do fails, and what it never does need not
 * be allowed.
 */

const ACCOUNT = 'system:serviceaccount:snapshot-system:snapshot-operator';
const PODS = { storage: { accessMode: 'podMount' } };

/** What this life of an operator does not come to, and what it is needed for. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'get apps/deployments': 'a Deployment that a try before made',
  'get nvidia.com/dynamocheckpoints': 'a status that somebody else wrote first',
  'get nvidia.com/dynamographdeployments': 'the same',
  'delete nvidia.com/dynamocheckpoints': 'the checkpoint of a past generation whose workers have gone',
  'patch /services': 'a Service of the rollout that somebody changed',
  'update /secrets': "the webhook's certificate, when it is renewed",
};

let api: KubeApi;
let dir: string;
let stop: AbortController;
let running: Promise<void>;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'rights-'));
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  await running;
  await api.close();
  await rm(dir, { recursive: true });
});

/** The operator as the chart installs it. */
async function start(
  namespace: string | undefined,
): Promise<{ grants: string[]; calls: () => string[]; log: ReturnType<typeof memoryLog> }> {
  const { roles } = readOperatorRbac(PODS, namespace);
  api = await startKubeApi({
    definitions: readDefinitions(),
    roles,
    tokens: { 'token-1': ACCOUNT },
    collectsGarbage: true,
  });
  const restricted = namespace !== undefined;
  const values = { ...PODS, rbac: { namespaceRestricted: restricted }, operator: { enabled: true } };
  const objects = render(values, restricted ? { namespace } : {});
  api.put(only(objects, 'MutatingWebhookConfiguration') as unknown as Parameters<KubeApi['put']>[0]);
  const { data } = only(objects, 'ConfigMap', 'snapshot-operator') as unknown as { data: { 'config.yaml': string } };
  const config: Config = parseConfig(data['config.yaml']);
  const log = memoryLog();
  const kubernetes = { kubeconfig: await api.writeKubeconfig(dir), namespace: namespace ?? NAMESPACE };
  const here = { ...config, kubernetes, http: { address: '127.0.0.1:0' }, webhook: { ...config.webhook, port: 0 } };
  running = serve(
    {
      config: { ...here, graph: { ...config.graph, settleSeconds: 0, keptGenerations: 0 } },
      env: { OPERATOR_IMAGE: 'operator:1' },
      log: log.log,
    },
    stop.signal,
  );
  return { grants: [...new Set(grantsOf(roles))], calls: () => askedFor(api.calls({})), log };
}

/** A life of the operator that comes to nearly everything. */
async function live(namespace: string): Promise<void> {
  const key = `${namespace}/one`;
  const metadata = { name: 'one', namespace, annotations: { [ANNOTATIONS.deletionPolicy]: 'Delete' } };
  api.put({ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata });
  const phase = () => api.get('dynamocheckpoints', key)?.status?.['phase'];
  await eventually(() => expect(phase()).toBe('Creating'));
  const job = `${namespace}/${String(api.get('dynamocheckpoints', key)?.status?.['jobName'])}`;
  startJobPod(api, job, 'source');
  failJob(api, job, 'source');
  await eventually(() => expect(phase()).toBe('Failed'));
  // One try more: the old Job goes, and a new one comes.
  api.patch('dynamocheckpoints', key, { metadata: { annotations: { [ANNOTATIONS.retry]: 'yes' } } });
  await eventually(() => expect(phase()).toBe('Creating'));
  api.delete('dynamocheckpoints', key);
  api.onChange('jobs', ({ metadata: { name, deletionTimestamp } }) => {
    if (deletionTimestamp !== undefined) setImmediate(() => api.remove('jobs', `${namespace}/${name}`));
  });
  for (const { metadata: one } of api.list('jobs'))
    if (one.deletionTimestamp !== undefined) api.remove('jobs', `${namespace}/${one.name}`);
  await eventually(() =>
    expect(api.list('jobs').map((one) => one.metadata.name)).toEqual([expect.stringContaining('cleanup')]),
  );
  await graphs(namespace);
}

async function graphs(namespace: string): Promise<void> {
  const graph = (services: Json) => ({
    ...(AUTO as { spec: Json }),
    kind: 'DynamoGraphDeployment',
    metadata: { name: 'graph', namespace },
    spec: { services },
  });
  const { services } = (AUTO as { spec: { services: Record<string, Json> } }).spec;
  const put = (changed: Record<string, Json>) => api.put(graph(changed) as Parameters<KubeApi['put']>[0]);
  put(services);
  await eventually(() => expect(api.list('deployments')).toHaveLength(2));
  const worker = services['VllmDecodeWorker'] as Json;
  put({ ...services, VllmDecodeWorker: { ...worker, replicas: 2 } });
  await eventually(() =>
    expect(
      api
        .list('deployments')
        .map(({ spec }) => spec?.['replicas'])
        .sort(),
    ).toEqual([1, 2]),
  );
  put({ VllmDecodeWorker: { ...worker, replicas: 2 } });
  await eventually(() => expect(api.list('deployments')).toHaveLength(1));
}

describe.each([
  ['all namespaces', undefined, 'demo'],
  ['one namespace', 'demo', 'demo'],
])('the rights of the operator, in %s', (_, restricted, namespace) => {
  it('are enough for it, and none is left over', async () => {
    const { grants, calls, log } = await start(restricted);
    await live(namespace);
    // The deletion of its lease is its last call.
    stop.abort();
    await running;
    const left = () => grants.filter((grant) => !calls().includes(grant) && !(grant in ELSEWHERE));
    expect(left()).toEqual([]);
    expect(calls().filter((call) => !grants.includes(call))).toEqual([]);
    expect(api.calls({ where: ({ status }) => status === 403 }).map(({ verb, path }) => `${verb} ${path}`)).toEqual([]);
    expect(log.lines.filter(({ level }) => Number(level) >= 50)).toEqual([]);
  }, 60_000);
});
