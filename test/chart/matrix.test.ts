import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../agent/config.ts';
import { VERSION } from '../../contract/version.ts';
import { CHART, helm, NAMESPACE, only, type Rendered, render } from './render.ts';
import { problemsOf } from './schemas.ts';

const both = [true, false];

/** Every combination of what decides the shape of the objects. */
const MATRIX = ['agentMount', 'podMount'].flatMap((accessMode) =>
  ['containerd', 'crio'].flatMap((type) =>
    both.flatMap((openshift) =>
      both.flatMap((namespaceRestricted) =>
        both.flatMap((tls) =>
          both.map((gpu) => ({
            runtime: { type },
            storage: { accessMode },
            openshift: { enabled: openshift },
            rbac: { namespaceRestricted },
            api: { tcp: { enabled: tls } },
            gpu: { enabled: gpu },
          })),
        ),
      ),
    ),
  ),
);

/** What is off by default, on. */
const EVERYTHING = {
  commonLabels: { team: 'ml' },
  commonAnnotations: { owner: 'ml' },
  metrics: { podMonitor: { enabled: true, interval: '15s', scrapeTimeout: '10s', labels: { release: 'prometheus' } } },
  networkPolicy: {
    metricsFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
    grpcFrom: [{ ipBlock: { cidr: '10.0.0.0/8' } }],
  },
  daemonset: {
    image: { repository: 'registry.example/snapshot-agent', digest: `sha256:${'0'.repeat(64)}` },
    imagePullSecrets: [{ name: 'pull' }],
    labels: { a: 'b' },
    annotations: { a: 'b' },
    podLabels: { a: 'b' },
    podAnnotations: { a: 'b' },
    affinity: { podAntiAffinity: {} },
    extraEnv: [{ name: 'HTTPS_PROXY', value: 'http://proxy:3128' }],
    extraVolumes: [{ name: 'driver', hostPath: { path: '/run/nvidia/driver' } }],
    extraVolumeMounts: [{ name: 'driver', mountPath: '/run/nvidia/driver' }],
  },
  serviceAccount: { annotations: { a: 'b' } },
  storage: { pvc: { storageClass: '-', annotations: { a: 'b' } } },
  api: { tcp: { enabled: true }, clients: [{ name: 'ci', namespaces: ['demo'] }] },
};

/** The configuration that the agent gets. */
function configOf(objects: readonly Rendered[]) {
  const { data } = only(objects, 'ConfigMap', 'snapshot-config') as unknown as { data: { 'config.yaml': string } };
  return parseConfig(data['config.yaml'], { NODE_NAME: 'node-1' });
}

it('helm finds nothing to complain about', () => {
  expect(helm('lint', '--strict', CHART)).toContain('0 chart(s) failed');
});

describe.each(MATRIX)('%j', (values) => {
  const objects = render(values);

  it('renders objects that Kubernetes takes, key by key', () => {
    expect(objects.flatMap(problemsOf)).toEqual([]);
  });

  it('gives the agent a configuration that it accepts', () => {
    expect(configOf(objects)).toMatchObject({
      runtime: values.runtime,
      storage: values.storage,
      api: { listen: values.api.tcp.enabled ? ':9443' : '' },
    });
  });

  it('names everything by the release and its namespace, each thing once', () => {
    const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`);
    expect(new Set(names).size).toBe(names.length);
    const ofCluster = objects.filter(({ kind }) => kind.startsWith('Cluster'));
    for (const { metadata } of ofCluster) expect(metadata.namespace).toBeUndefined();
    for (const object of objects.filter((one) => !ofCluster.includes(one)))
      expect(object.metadata.namespace).toBe(NAMESPACE);
  });
});

it.each(['agentMount', 'podMount'])('everything at once, in %s mode, is taken as well', (accessMode) => {
  const objects = render({ ...EVERYTHING, storage: { ...EVERYTHING.storage, accessMode } });
  expect(objects.flatMap(problemsOf)).toEqual([]);
  for (const { metadata } of objects) expect(metadata.labels).toMatchObject({ team: 'ml' });
});

it('the schemas of these tests see a wrong type, a missing field and a misspelt key', () => {
  const good = only(render(), 'DaemonSet');
  const broken = (change: (pod: Record<string, unknown>) => void) => {
    const copy = structuredClone(good) as unknown as { spec: { template: { spec: Record<string, unknown> } } };
    change(copy.spec.template.spec);
    return problemsOf(copy as unknown as Rendered).join('\n');
  };
  expect(problemsOf(good)).toEqual([]);
  expect(broken((pod) => Object.assign(pod, { hostPid: true }))).toContain('.spec.template.spec.hostPid is no key');
  expect(broken((pod) => Object.assign(pod, { terminationGracePeriodSeconds: 'long' }))).toMatch(/must be integer/);
  expect(broken((pod) => Object.assign(pod, { containers: [{ image: 'a' }] }))).toMatch(/required property name/);
});

it('the chart can be part of another one, and be a release of any name', () => {
  expect(() => render({ global: { anything: 1 } })).not.toThrow();
  const named = (name: string) => only(render({}, { name }), 'DaemonSet').metadata.name;
  expect([named('snapshot'), named('my-snapshot'), named('other')]).toEqual([
    'snapshot-agent',
    'my-snapshot-agent',
    'other-snapshot-agent',
  ]);
  expect(only(render({ fullnameOverride: 'own' }), 'DaemonSet').metadata.name).toBe('own-agent');
});

it('names that look like numbers stay names', () => {
  const values = {
    storage: { pvc: { name: '1e3', storageClass: '007' } },
    gpu: { runtimeClassName: '1' },
    daemonset: { priorityClassName: '1', image: { repository: '1', tag: '1.0' } },
    serviceAccount: { name: '1' },
    credentials: { recordKeySecret: '1', caSecret: '2', agentTlsSecret: '3', operatorTlsSecret: '4' },
    api: { tcp: { enabled: true } },
    openshift: { enabled: true },
  };
  expect(render(values, { name: '1', namespace: '2' }).flatMap(problemsOf)).toEqual([]);
});

it('releases in several namespaces do not meet in an object of the cluster', () => {
  const ofCluster = (namespace: string) =>
    render({}, { namespace })
      .filter(({ kind }) => kind.startsWith('Cluster'))
      .map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  expect(ofCluster('one').length).toBeGreaterThan(0);
  expect(ofCluster('one').filter((name) => ofCluster('two').includes(name))).toEqual([]);
});

it('the version of the chart is that of the package, and of the images', () => {
  const chart = parse(helm('show', 'chart', CHART)) as { version: string; appVersion: string };
  expect([chart.version, chart.appVersion]).toEqual([VERSION, VERSION]);
});
