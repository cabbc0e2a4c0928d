import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../operator/config.ts';
import { WEBHOOK_PATH } from '../../operator/webhook/server.ts';
import { NAMESPACE, only, type Rendered, render } from './render.ts';
import { problemsOf } from './schemas.ts';

const NAME = 'snapshot-operator';
const both = [true, false];
const withOperator = (operator: object = {}, more: object = {}) =>
  render({ operator: { enabled: true, ...operator }, ...more });

const MATRIX = ['agentMount', 'podMount'].flatMap((accessMode) =>
  both.flatMap((namespaceRestricted) =>
    both.flatMap((webhook) =>
      both.map((openshift) => ({
        storage: { accessMode },
        rbac: { namespaceRestricted },
        openshift: { enabled: openshift },
        operator: { enabled: true, webhook: { enabled: webhook } },
        metrics: { podMonitor: { enabled: true, interval: '15s' } },
      })),
    ),
  ),
);

function configOf(objects: readonly Rendered[]) {
  const { data } = only(objects, 'ConfigMap', NAME) as unknown as { data: { 'config.yaml': string } };
  return parseConfig(data['config.yaml']);
}
interface PodSpec {
  readonly serviceAccountName: string;
  readonly securityContext: object;
  readonly nodeSelector: Readonly<Record<string, string>>;
  readonly containers: readonly [
    {
      readonly securityContext: object;
      readonly env: readonly object[];
      readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
      readonly volumeMounts: readonly { readonly mountPath: string }[];
    },
  ];
}
const podOf = (objects: readonly Rendered[]) =>
  (only(objects, 'Deployment') as unknown as { spec: { template: { spec: PodSpec } } }).spec.template.spec;

describe.each(MATRIX)('%j', (values) => {
  const objects = render(values);

  it('renders objects that Kubernetes takes, key by key, each with a name of its own', () => {
    expect(objects.flatMap(problemsOf)).toEqual([]);
    const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`);
    expect(new Set(names).size).toBe(names.length);
  });

  it('gives the operator a configuration that it accepts', () => {
    const isOfPods = values.storage.accessMode === 'podMount';
    expect(configOf(objects)).toMatchObject({
      namespaces: values.rbac.namespaceRestricted ? [NAMESPACE] : [],
      checkpoint: { storage: { pvc: { pvcName: isOfPods ? 'snapshot-pvc' : '', create: isOfPods } } },
      webhook: { enabled: values.operator.webhook.enabled },
      agents: { port: 9443 },
    });
  });

  it('binds its rights to the account that it runs as', () => {
    const bindings = objects.filter(
      ({ kind, metadata }) => kind.endsWith('RoleBinding') && metadata.name.includes('-operator'),
    );
    expect(bindings).toHaveLength(values.operator.webhook.enabled ? 3 : 2);
    for (const binding of bindings)
      expect(binding['subjects']).toEqual([
        { kind: 'ServiceAccount', name: podOf(objects).serviceAccountName, namespace: NAMESPACE },
      ]);
  });
});

describe('the pod of the operator', () => {
  const spec = podOf(withOperator());

  it('is nobody, has no right, and writes nothing', () => {
    expect(spec.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    });
    expect(spec.containers[0].securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
  });

  it('has no user of its own on OpenShift, which refuses any but those of the namespace', () => {
    const { securityContext } = podOf(withOperator({}, { openshift: { enabled: true } }));
    expect(securityContext).toEqual({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
  });

  it('runs where its image does, and where the values say besides', () => {
    const own = { 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': 'amd64' };
    expect(spec.nodeSelector).toEqual(own);
    expect(podOf(withOperator({ nodeSelector: { pool: 'system' } })).nodeSelector).toEqual({ ...own, pool: 'system' });
  });

  it('listens and reads where its configuration says', () => {
    const { http, webhook, agents } = configOf(withOperator());
    const [{ ports, volumeMounts, env }] = spec.containers;
    expect(Object.fromEntries(ports.map(({ name, containerPort }) => [name, containerPort]))).toEqual({
      http: Number(http.address.slice(1)),
      webhook: webhook.port,
    });
    const mounts = volumeMounts.map(({ mountPath }) => mountPath);
    for (const file of [agents.caFile, agents.certificateFile, agents.keyFile, '/etc/snapshot-operator/config.yaml'])
      expect(mounts).toContain(resolve(file, '..'));
    expect(env).toContainEqual({
      name: 'OPERATOR_IMAGE',
      value: `snapshot-operator:${(parse(readFileSync('deploy/chart/Chart.yaml', 'utf8')) as { version: string }).version}`,
    });
  });

  it('is found by its Service, its PodDisruptionBudget and its NetworkPolicy, and the agents let it in', () => {
    const objects = withOperator();
    const { labels } = (
      only(objects, 'Deployment') as unknown as { spec: { template: { metadata: { labels: object } } } }
    ).spec.template.metadata;
    const selectors = [
      (only(objects, 'Service', `${NAME}-webhook`) as unknown as { spec: { selector: object } }).spec.selector,
      (only(objects, 'PodDisruptionBudget') as unknown as { spec: { selector: { matchLabels: object } } }).spec.selector
        .matchLabels,
      (only(objects, 'NetworkPolicy', NAME) as unknown as { spec: { podSelector: { matchLabels: object } } }).spec
        .podSelector.matchLabels,
    ];
    for (const selector of selectors) expect(labels).toMatchObject(selector);
    const agents = JSON.stringify(only(objects, 'NetworkPolicy', 'snapshot-agent'));
    expect(agents).toContain('"app.kubernetes.io/component":"snapshot-operator"');
    expect(withOperator({ replicas: 1 }).map(({ kind }) => kind)).not.toContain('PodDisruptionBudget');
  });
});

describe('the webhook', () => {
  const configuration = (more: object = {}) =>
    only(withOperator({}, more), 'MutatingWebhookConfiguration') as unknown as {
      metadata: { name: string };
      webhooks: readonly [
        Record<string, unknown> & {
          clientConfig: { service: object };
          namespaceSelector: unknown;
          objectSelector: unknown;
        },
      ];
    };

  it('fails open, soon, and is called where the operator looks for it', () => {
    const { metadata, webhooks } = configuration();
    const { webhook } = configOf(withOperator());
    expect(webhooks[0]).toMatchObject({ failurePolicy: 'Ignore', timeoutSeconds: 3, sideEffects: 'NoneOnDryRun' });
    expect(webhooks[0].clientConfig).toEqual({
      service: { name: webhook.serviceName, namespace: NAMESPACE, path: WEBHOOK_PATH, port: 443 },
    });
    expect(webhook.configurationName).toBe(metadata.name);
  });

  it.each([
    [{ rbac: { namespaceRestricted: true } }, { operator: 'In', values: [NAMESPACE] }],
    [
      { rbac: { namespaceRestricted: false } },
      { operator: 'NotIn', values: ['kube-system', 'kube-node-lease', 'kube-public'] },
    ],
  ])('is asked about pods of the namespaces that it works in: %j', (more, expected) => {
    const [{ namespaceSelector, objectSelector }] = configuration(more).webhooks;
    expect(namespaceSelector).toMatchObject({ matchExpressions: [expected] });
    expect(JSON.stringify(objectSelector)).toContain('DoesNotExist');
  });
});

describe('the definitions', () => {
  const of = (crds: object) => withOperator({ crds }).filter(({ kind }) => kind === 'CustomResourceDefinition');

  it('are those of deploy/crds, and stay when the release goes', () => {
    const found = of({});
    expect(found.map(({ metadata }) => metadata.name).sort()).toEqual([
      'dynamocheckpoints.nvidia.com',
      'dynamographdeployments.nvidia.com',
    ]);
    for (const { metadata, ...rest } of found) {
      expect(metadata.annotations).toMatchObject({ 'helm.sh/resource-policy': 'keep' });
      const shipped = parse(readFileSync(`deploy/crds/${metadata.name}.yaml`, 'utf8')) as Rendered;
      expect(rest['spec']).toEqual(shipped['spec']);
    }
  });

  it('are left to others where the values say so', () => {
    expect(of({ graphDeployments: 'never' }).map(({ metadata }) => metadata.name)).toEqual([
      'dynamocheckpoints.nvidia.com',
    ]);
    expect(of({ checkpoints: 'never', graphDeployments: 'never' })).toEqual([]);
  });
});

it('nothing of the operator is there without it', () => {
  expect(JSON.stringify(render().filter(({ kind }) => kind !== 'NetworkPolicy')).includes('snapshot-operator"')).toBe(
    false,
  );
  expect(render().map(({ kind }) => kind)).not.toContain('CustomResourceDefinition');
});

it('brings TLS for the agents with it', () => {
  const { data } = only(withOperator(), 'ConfigMap', 'snapshot-config') as unknown as {
    data: { 'config.yaml': string };
  };
  expect(data['config.yaml']).toContain('listen: :9443');
});
