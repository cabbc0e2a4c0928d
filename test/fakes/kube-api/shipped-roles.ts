import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { ADMIN, type Role } from './access.ts';
import type { ApiCall } from './calls.ts';

const DEPLOY = resolve(import.meta.dirname, '../../../deploy');

/** What binds a role, as its manifest has it. */
interface Binding {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly roleRef: { readonly kind: string; readonly name: string };
  readonly subjects: readonly { readonly kind: string; readonly name: string; readonly namespace: string }[];
}

export interface RbacManifest {
  readonly roles: readonly Role[];
  readonly bindings: readonly Binding[];
}

/** The shipped rules: for all namespaces, or for one, which is given as `kubectl -n` gives it. */
export function readRbac(namespace?: string): RbacManifest {
  if (namespace === undefined) return readManifest('agent-rbac.yaml');
  const { roles, bindings } = readManifest('agent-rbac-namespaced.yaml');
  return { roles: roles.map((role) => ({ ...role, metadata: { ...role.metadata, namespace } })), bindings };
}

/** What is shipped besides for workloads with GPUs. */
export const readGpuRbac = (): RbacManifest => readManifest('agent-rbac-gpu.yaml');

function readManifest(name: string): RbacManifest {
  const text = readFileSync(resolve(DEPLOY, name), 'utf8');
  const objects = parseAllDocuments(text).map((document) => document.toJS() as Role & Binding);
  return {
    roles: objects.filter(({ rules }) => rules !== undefined),
    bindings: objects.filter(({ roleRef }) => roleRef !== undefined),
  };
}

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
