import { type Rendered, render } from '../../chart/render.ts';
import { ADMIN, type Role } from './access.ts';
import type { ApiCall } from './calls.ts';

/** What binds a role, as the chart has it. */
interface Binding {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects: readonly { readonly kind: string; readonly name: string; readonly namespace: string }[];
}

export interface Rbac {
  readonly roles: readonly Role[];
  readonly bindings: readonly Binding[];
}

/** The chart's rules for the agent: for all namespaces, or for one, which the release is in. Without what GPUs need. */
export function readRbac(namespace?: string): Rbac {
  return agentRbac(namespace, false);
}

/** The rules that the chart adds for workloads with GPUs, and what binds them. */
export function readGpuRbac(namespace?: string): Rbac {
  const without = JSON.stringify(agentRbac(namespace, false).roles.flatMap(({ rules }) => rules));
  const { roles, bindings } = agentRbac(namespace, true);
  const added = roles.map(({ rules, ...role }) => ({
    ...role,
    rules: rules.filter((rule) => !without.includes(JSON.stringify(rule))),
  }));
  return { roles: added, bindings };
}

/** Roles and bindings of the account that the agent runs as. */
function agentRbac(namespace: string | undefined, gpu: boolean): Rbac {
  const restricted = namespace !== undefined;
  const values = { rbac: { namespaceRestricted: restricted }, gpu: { enabled: gpu }, credentials: { enabled: false } };
  const objects = render(values, restricted ? { namespace } : {});
  const of = (kind: string) => objects.filter((object) => object.kind === kind || object.kind === `Cluster${kind}`);
  return { roles: of('Role').map(asRole), bindings: of('RoleBinding') as unknown as Binding[] };
}

/** Roles and bindings of the account that the operator runs as: for all namespaces, or for the one that the release is in. */
export function readOperatorRbac(values: object, namespace?: string): Rbac {
  const restricted = namespace !== undefined;
  const on = { enabled: true, crds: { checkpoints: 'never', graphDeployments: 'never' } };
  const objects = render(
    { ...values, rbac: { namespaceRestricted: restricted }, operator: on },
    restricted ? { namespace } : {},
  );
  const bindings = objects.filter(({ kind, ...object }) => {
    const subjects = (object as { subjects?: Binding['subjects'] }).subjects ?? [];
    return kind.endsWith('RoleBinding') && subjects.some(({ name }) => name === 'snapshot-operator');
  }) as unknown as Binding[];
  const isBound = ({ kind, metadata }: Rendered) =>
    bindings.some(({ roleRef }) => roleRef.kind === kind && roleRef.name === metadata.name);
  return { roles: objects.filter(isBound).map(asRole), bindings };
}

const asRole = (object: Rendered) => object as unknown as Role;

/** Everything that rules allow, one line for each verb on each resource: `patch batch/jobs`. */
export function grantsOf(roles: readonly Role[]): string[] {
  const grants = roles.flatMap(({ rules }) =>
    rules.flatMap(({ apiGroups = [], resources = [], verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) => verbs.map((verb) => `${verb} ${group}/${resource}`)),
      ),
    ),
  );
  return grants.sort();
}

/** The same of calls, each once; those of a person who may do everything are left out. */
export function askedFor(calls: readonly ApiCall[]): string[] {
  const ofAgents = calls.filter(({ user }) => user !== ADMIN);
  const asked = ofAgents.map(({ verb, apiGroup, resource, subresource }) => {
    const full = subresource === '' ? resource : `${resource}/${subresource}`;
    return `${verb} ${apiGroup}/${full}`;
  });
  return [...new Set(asked)].sort();
}
