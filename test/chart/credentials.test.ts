import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { CHART, only, type Rendered, render } from './render.ts';

interface Rule {
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}
interface PodTemplate {
  readonly spec: {
    readonly serviceAccountName: string;
    readonly hostPID?: boolean;
    readonly volumes?: readonly object[];
    readonly securityContext: object;
    readonly containers: readonly [{ readonly args: readonly string[]; readonly [key: string]: unknown }];
  };
}

const TLS = { api: { tcp: { enabled: true } } };
const templateOf = (objects: readonly Rendered[], kind: 'Job' | 'CronJob') => {
  const { spec } = only(objects, kind) as unknown as {
    spec: { template: PodTemplate; jobTemplate: { spec: { template: PodTemplate } } };
  };
  return kind === 'Job' ? spec.template : spec.jobTemplate.spec.template;
};
const names = ['snapshot-credentials', 'snapshot-credentials-hook'] as const;
const rulesOf = (objects: readonly Rendered[], name: string) =>
  (only(objects, 'Role', name) as unknown as { rules: readonly Rule[] }).rules;
const hookOf = ({ metadata }: Rendered) => metadata.annotations?.['helm.sh/hook'];

describe('what makes the credentials', () => {
  it('runs before an install and an upgrade, and then again and again', () => {
    const objects = render(TLS);
    expect(hookOf(only(objects, 'Job'))).toBe('pre-install,pre-upgrade');
    expect(hookOf(only(objects, 'CronJob'))).toBeUndefined();
    const [first, later] = [templateOf(objects, 'Job'), templateOf(objects, 'CronJob')];
    expect(later.spec.containers).toEqual(first.spec.containers);
    expect([later, first].map(({ spec }) => spec.serviceAccountName)).toEqual(names);
  });

  it('finds its account before it, as a hook that is gone when it is done', () => {
    const hooks = render(TLS).filter((object) => hookOf(object) !== undefined);
    const weight = ({ metadata }: Rendered) => Number(metadata.annotations?.['helm.sh/hook-weight']);
    const inOrder = [...hooks].sort((one, other) => weight(one) - weight(other)).map(({ kind }) => kind);
    expect(inOrder.at(-1)).toBe('Job');
    expect(inOrder.slice(0, -1).sort()).toEqual(['Role', 'RoleBinding', 'ServiceAccount']);
    for (const { metadata } of hooks)
      expect(metadata.annotations?.['helm.sh/hook-delete-policy']).toBe('before-hook-creation,hook-succeeded');
  });

  it('is told the names that the agents mount, and labels that say whose the Secrets are', () => {
    const values = { ...TLS, credentials: { recordKeySecret: 'own-key' }, commonLabels: { team: 'ml' } };
    const [{ args }] = templateOf(render(values), 'Job').spec.containers;
    expect(args).toEqual([
      'credentials',
      'ensure',
      '--namespace=snapshot-system',
      '--record-key-secret=own-key',
      '--record-key-days=0',
      '--tls',
      '--ca-secret=snapshot-ca',
      '--agent-tls-secret=snapshot-agent-tls',
      '--operator-tls-secret=snapshot-operator-tls',
      '--certificate-days=90',
      '--ca-days=1825',
      '--labels=app.kubernetes.io/instance=snapshot',
      '--labels=app.kubernetes.io/name=snapshot',
      '--labels=team=ml',
    ]);
    const { spec } = only(render(values), 'DaemonSet') as unknown as {
      spec: { template: { spec: { volumes: { secret?: { secretName: string } }[] } } };
    };
    const mounted = spec.template.spec.volumes.flatMap(({ secret }) => secret?.secretName ?? []);
    expect(mounted).toEqual(['own-key', 'snapshot-agent-tls']);
    expect(templateOf(render(), 'Job').spec.containers[0].args).not.toContain('--tls');
  });

  it.each(names)('may read and change its own Secrets, and no other: %s', (name) => {
    const [create, byName] = rulesOf(render(TLS), name);
    expect(create).toEqual({ apiGroups: [''], resources: ['secrets'], verbs: ['create'] });
    expect(byName).toMatchObject({
      resources: ['secrets'],
      resourceNames: ['snapshot-record-key', 'snapshot-ca', 'snapshot-agent-tls', 'snapshot-operator-tls'],
      verbs: ['get', 'update'],
    });
    expect(rulesOf(render(TLS), name)).toHaveLength(2);
    // Those that test/flow/credentials.test.ts compares with the calls that it makes, both ways.
    const page = readFileSync(resolve(CHART, '../../docs/credentials.md'), 'utf8');
    const [, role = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? [];
    expect(parse(role)).toMatchObject({ kind: 'Role', rules: rulesOf(render(TLS), name) });
    expect(rulesOf(render(), name)[1]?.resourceNames).toEqual(['snapshot-record-key']);
  });

  it('has no privilege, and nothing of the node', () => {
    const { spec } = templateOf(render(TLS), 'CronJob');
    expect([spec.volumes, spec.hostPID]).toEqual([undefined, undefined]);
    expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
    expect(spec.containers[0]['securityContext']).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
  });

  it('is not there where somebody else makes them', () => {
    const objects = render({ ...TLS, credentials: { enabled: false } });
    expect(objects.filter(({ metadata }) => metadata.name.includes('credentials'))).toEqual([]);
    expect(objects.filter((object) => hookOf(object) !== undefined)).toEqual([]);
  });
});

it('no Secret is made by the chart itself: what helm renders, helm stores', () => {
  expect(render(TLS).map(({ kind }) => kind)).not.toContain('Secret');
});
