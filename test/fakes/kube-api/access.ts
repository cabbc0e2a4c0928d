import type { ApiCall } from './calls.ts';
import { type ApiError, forbidden, unauthorized } from './status.ts';

/** A Role or ClusterRole as its manifest has it. A Role gives rights in its namespace, a ClusterRole in all. */
export interface Role {
  readonly kind?: string;
  readonly metadata?: { readonly name?: string; readonly namespace?: string };
  readonly rules: readonly Rule[];
}

/** One rule of a role. Resources are as in a manifest: `pods`, `pods/status`, `*`. */
interface Rule {
  readonly apiGroups?: readonly string[];
  readonly resources?: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}

const ANONYMOUS = 'system:anonymous';
/** May do everything, whatever the rules are: a person with a kubeconfig. */
export const ADMIN = 'kubernetes-admin';

/** The user that a header stands for. A wrong token is 401; no token at all is a user without rights. */
export function authenticate(authorization: string | undefined, tokens: ReadonlyMap<string, string>): string {
  if (authorization === undefined) return ANONYMOUS;
  const user = tokens.get(authorization.replace(/^Bearer /, ''));
  if (user === undefined) throw unauthorized();
  return user;
}

/** 403 where the rules do not allow the call; without rules every known user may do everything. */
export function refusal(call: ApiCall, roles: readonly Role[] | undefined): ApiError | undefined {
  if (call.resource === '' || call.user === ADMIN) return undefined;
  const isAllowed = call.user !== ANONYMOUS && (roles === undefined || roles.some((role) => isAllowedBy(role, call)));
  return isAllowed ? undefined : forbidden(call);
}

function isAllowedBy({ kind, metadata, rules }: Role, call: ApiCall): boolean {
  const isInScope = kind !== 'Role' || (call.namespace !== '' && call.namespace === metadata?.namespace);
  return isInScope && rules.some((rule) => isGranted(rule, call));
}

function isGranted({ apiGroups = [], resources = [], verbs, resourceNames = [] }: Rule, call: ApiCall): boolean {
  const has = (list: readonly string[], value: string) => list.includes('*') || list.includes(value);
  const full = call.subresource === '' ? call.resource : `${call.resource}/${call.subresource}`;
  const isNamed = resourceNames.length === 0 || resourceNames.includes(call.name);
  return has(apiGroups, call.apiGroup) && has(resources, full) && has(verbs, call.verb) && isNamed;
}
