import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CHART, NAMESPACE } from './render.ts';

/** What the chart does where something of an operator is in the cluster already: helm looks it up, here at a server that knows just that. */

const HELM = resolve(CHART, '../../.tools/helm');
const CLUSTER_KINDS = ['ClusterRole', 'ClusterRoleBinding', 'CustomResourceDefinition', 'MutatingWebhookConfiguration'];
/** The kinds that the chart has, by group: helm wants to know all of them. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  '': ['ConfigMap', 'PersistentVolumeClaim', 'Service', 'ServiceAccount'],
  'admissionregistration.k8s.io': ['MutatingWebhookConfiguration'],
  'apiextensions.k8s.io': ['CustomResourceDefinition'],
  apps: ['DaemonSet', 'Deployment'],
  batch: ['CronJob', 'Job'],
  'networking.k8s.io': ['NetworkPolicy'],
  policy: ['PodDisruptionBudget'],
  'rbac.authorization.k8s.io': ['ClusterRole', 'ClusterRoleBinding', 'Role', 'RoleBinding'],
};
const pluralOf = (kind: string) => kind.toLowerCase().replace(/y$/, 'ie').concat('s');
/** By path. */
let objects: Map<string, object>;
let server: Server;
let dir: string;

function answerTo(path: string): object | undefined {
  if (path === '/version') return { major: '1', minor: '31', gitVersion: 'v1.31.0' };
  if (path === '/api') return { kind: 'APIVersions', versions: ['v1'] };
  const versions = (name: string) => [{ groupVersion: `${name}/v1`, version: 'v1' }];
  const names = Object.keys(GROUPS).filter((name) => name !== '');
  const groups = names.map((name) => ({ name, versions: versions(name), preferredVersion: versions(name)[0] }));
  if (path === '/apis') return { kind: 'APIGroupList', apiVersion: 'v1', groups };
  const group = path === '/api/v1' ? '' : /^\/apis\/([^/]+)\/v1$/.exec(path)?.[1];
  const kinds = group === undefined ? undefined : GROUPS[group];
  if (kinds === undefined) return objects.get(path);
  const resources = kinds.map((kind) => ({
    ...{
      name: pluralOf(kind),
      singularName: '',
      kind,
      namespaced: !CLUSTER_KINDS.includes(kind),
      verbs: ['get', 'list'],
    },
  }));
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion: group === '' ? 'v1' : `${group}/v1`, resources };
}

beforeEach(async () => {
  objects = new Map();
  dir = mkdtempSync(join(tmpdir(), 'release-'));
  server = createServer((request, response) => {
    const answer = answerTo((request.url ?? '').split('?')[0] ?? '');
    const missing = { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason: 'NotFound', code: 404 };
    response
      .writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' })
      .end(JSON.stringify(answer ?? missing));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const kubeconfig = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
    clusters: [{ name: 'c', cluster: { server: `http://127.0.0.1:${port}` } }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    users: [{ name: 'u', user: {} }],
  };
  writeFileSync(join(dir, 'kubeconfig'), JSON.stringify(kubeconfig));
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(dir, { recursive: true });
});

function put(path: string, kind: string, release?: readonly [name: string, namespace: string]): void {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const annotations = release && {
    'meta.helm.sh/release-name': release[0],
    'meta.helm.sh/release-namespace': release[1],
  };
  objects.set(path, {
    apiVersion: 'x/v1',
    kind,
    metadata: { name, ...(annotations && { annotations, labels: { 'app.kubernetes.io/managed-by': 'Helm' } }) },
  });
}
const marker = (release: readonly [string, string]) =>
  put('/apis/rbac.authorization.k8s.io/v1/clusterroles/snapshot-operator-release', 'ClusterRole', release);
const definition = (name: string, release?: readonly [string, string]) =>
  put(`/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`, 'CustomResourceDefinition', release);

/** What helm says: the rendered objects, or why there are none. */
function template(...set: string[]): Promise<string> {
  const args = [
    'template',
    'snapshot',
    CHART,
    '--namespace',
    NAMESPACE,
    '--dry-run=server',
    '--disable-openapi-validation',
    '--set',
    'operator.enabled=true',
    ...set,
  ];
  const env = { ...process.env, KUBECONFIG: join(dir, 'kubeconfig'), HOME: dir };
  return new Promise((done) =>
    execFile(HELM, args, { env, maxBuffer: 1 << 26 }, (_, stdout, stderr) => done(stdout + stderr)),
  );
}
const definitionsIn = (text: string) =>
  [...text.matchAll(/^ {2}name: (dynamo\w+\.nvidia\.com)$/gm)].map(([, name]) => name);
const DCKPT = 'dynamocheckpoints.nvidia.com';
const DGD = 'dynamographdeployments.nvidia.com';

describe('a release with the operator', () => {
  it('is refused where another one has it, with a sentence that names that', async () => {
    marker(['other', 'elsewhere']);
    expect(await template()).toContain(
      'operator.enabled: release other in namespace elsewhere has the operator of this cluster already, with its webhook and CRDs: set operator.enabled to false here, or there first',
    );
  });

  it('is upgraded, its definitions too', async () => {
    const own = ['snapshot', NAMESPACE] as const;
    marker(own);
    definition(DCKPT, own);
    definition(DGD, own);
    expect(definitionsIn(await template()).sort()).toEqual([DCKPT, DGD]);
  });

  it('leaves definitions alone that others made; helm itself takes none of them over', async () => {
    definition(DGD);
    definition(DCKPT, ['other', 'elsewhere']);
    expect(definitionsIn(await template())).toEqual([]);
    expect(await template('--set', 'operator.crds.checkpoints=always')).toContain(
      `CustomResourceDefinition "${DCKPT}" in namespace "" exists and cannot be imported into the current release`,
    );
  });

  it('makes those that are not there', async () => {
    definition(DGD);
    expect(definitionsIn(await template())).toEqual([DCKPT]);
  });
});
