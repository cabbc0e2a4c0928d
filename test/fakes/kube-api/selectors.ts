import type { Json, KubeObject, Resource } from './resources.ts';
import { badRequest } from './status.ts';

/** Says whether an object is in the selection of a list or watch. */
export type Selector = (object: KubeObject) => boolean;

/** The value of a dotted path, as field selectors compare it: an absent one is the empty string. */
function fieldOf(object: KubeObject, path: string): string {
  let value: unknown = object;
  for (const part of path.split('.')) value = (value as Json | undefined)?.[part];
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

function parseFieldSelector(text: string, resource: Resource): Selector[] {
  const allowed = new Set(['metadata.name', 'metadata.namespace', ...resource.selectableFields]);
  const terms = text.split(',').filter((term) => term !== '');
  return terms.map((term) => {
    const match = /^([^=!]+)(!=|==|=)(.*)$/.exec(term);
    if (match === null) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
    const [, field = '', operator, wanted = ''] = match;
    if (!allowed.has(field)) throw badRequest(`field label not supported: ${field}`);
    return (object) => (fieldOf(object, field) === wanted) === (operator !== '!=');
  });
}

/** Splits at commas that are not inside the parentheses of a set. */
const requirementsOf = (text: string) => text.match(/(?:[^,(]|\([^)]*\)?)+/g) ?? [];

function parseRequirement(text: string): Selector {
  const labelOf = (object: KubeObject, key: string) => object.metadata.labels?.[key];
  const set = /^(\S+)\s+(in|notin)\s*\(([^)]*)\)$/.exec(text);
  if (set !== null) {
    const [, key = '', operator, list = ''] = set;
    const values = new Set(list.split(',').map((value) => value.trim()));
    return (object) => {
      const value = labelOf(object, key);
      return (value !== undefined && values.has(value)) === (operator === 'in');
    };
  }
  const word = /^(\S+)\s+(?:in|notin)\s+(\S+)/.exec(text);
  if (word !== null) throw badRequest(`unable to parse requirement: found '${word[2]}' expected: '('`);
  const equality = /^([^\s=!]+)\s*(!=|==|=)\s*(\S*)$/.exec(text);
  if (equality !== null) {
    const [, key = '', operator, wanted] = equality;
    return (object) => (labelOf(object, key) === wanted) === (operator !== '!=');
  }
  const existence = /^(!?)\s*([^\s=!()]+)$/.exec(text);
  if (existence === null) throw badRequest(`unable to parse requirement: found '${text}', expected: identifier`);
  const [, not, key = ''] = existence;
  return (object) => (labelOf(object, key) !== undefined) === (not === '');
}

/** The selection of a request: namespace, labels and fields together. Throws 400 as a real server does. */
export function parseSelector(
  resource: Resource,
  namespace: string,
  query: URLSearchParams,
): { readonly selects: Selector; readonly isWhole: boolean } {
  const terms = [
    ...parseFieldSelector(query.get('fieldSelector') ?? '', resource),
    ...requirementsOf(query.get('labelSelector') ?? '').map((text) => parseRequirement(text.trim())),
  ];
  const selects: Selector = (object) =>
    (namespace === '' || object.metadata.namespace === namespace) && terms.every((term) => term(object));
  return { selects, isWhole: terms.length === 0 };
}
