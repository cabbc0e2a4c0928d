import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { grantsOf, readGpuRbac, readRbac } from '../fakes/kube-api/shipped-roles.ts';

const read = (path: string) => readFileSync(resolve(import.meta.dirname, '../..', path), 'utf8');
const everywhere = readRbac();
const inOne = readRbac('demo');
const gpu = readGpuRbac();

describe('the RBAC manifests', () => {
  it('allow the same, in all namespaces or in one', () => {
    expect(grantsOf(inOne.roles)).toEqual(grantsOf(everywhere.roles));
    expect(everywhere.roles.map(({ kind }) => kind)).toEqual(['ClusterRole']);
    expect(inOne.roles.map(({ kind, metadata }) => [kind, metadata?.namespace])).toEqual([['Role', 'demo']]);
  });

  it('say what is needed for GPUs apart: nothing of it is in the others', () => {
    expect(grantsOf(gpu.roles).filter((grant) => grantsOf(everywhere.roles).includes(grant))).toEqual([]);
  });

  it('name every verb and every resource, and no name: nothing is allowed by the way', () => {
    const grants = grantsOf(everywhere.roles);
    expect(grants.filter((grant) => grant.includes('*'))).toEqual([]);
    expect(new Set(grants).size).toBe(grants.length);
  });

  it.each([
    ['all namespaces', everywhere, 'ClusterRole'],
    ['one namespace', inOne, 'Role'],
    ['GPUs', gpu, 'ClusterRole'],
  ])('bind their role to the service account that the agent runs as: %s', (_, { roles, bindings }, kind) => {
    type Workload = {
      kind: string;
      metadata: { namespace: string };
      spec: { template: { spec: { serviceAccountName: string } } };
    };
    const daemonSet = parseAllDocuments(read('deploy/agent-daemonset.yaml'))
      .map((document) => document.toJS() as Workload)
      .find((object) => object.kind === 'DaemonSet');
    expect(bindings).toHaveLength(1);
    expect(bindings[0]).toMatchObject({
      kind: `${kind}Binding`,
      roleRef: { kind, name: roles[0]?.metadata?.name },
      subjects: [
        {
          kind: 'ServiceAccount',
          name: daemonSet?.spec.template.spec.serviceAccountName,
          namespace: daemonSet?.metadata.namespace,
        },
      ],
    });
  });
});

describe('docs/kubernetes.md', () => {
  it.each([
    ['everywhere', 'verbs', everywhere],
    ['for GPUs', 'GPU verbs', gpu],
  ])('has a row for each rule %s, and no other', (_, heading, { roles }) => {
    const [, table = ''] = read('docs/kubernetes.md').split(`| API group | resource | ${heading} | for |\n`);
    const lines = table.split('\n\n')[0]?.split('\n') ?? [];
    const cells = lines
      .map((line) => /^\| `([a-z0-9.]*)` \| `([a-z]+)` \| ((?:`[a-z]+`(?:, )?)+) \|/.exec(line))
      .filter((match) => match !== null);
    const documented = cells.flatMap(([, group = '', resource = '', verbs = '']) =>
      [...verbs.matchAll(/`([a-z]+)`/g)].map(([, verb]) => `${verb} ${group === 'core' ? '' : group}/${resource}`),
    );
    expect(documented.sort()).toEqual(grantsOf(roles));
  });
});
