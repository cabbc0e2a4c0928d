import { isDeepStrictEqual } from 'node:util';

/** One operation of a JSON patch (RFC 6902). */
export type PatchOperation =
  | { readonly op: 'add' | 'replace'; readonly path: string; readonly value: unknown }
  | { readonly op: 'remove'; readonly path: string };

type Json = Readonly<Record<string, unknown>>;

/**
 * The operations that make `before` into `after`, and touch nothing that is the same in both: beside us, others patch the same object. A
 * member that is undefined is absent.
 */
export function jsonPatch(before: object, after: object): readonly PatchOperation[] {
  return difference(before, after, '');
}

function difference(before: unknown, after: unknown, path: string): PatchOperation[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (Array.isArray(before) && Array.isArray(after)) return listDifference(before, after, path);
  if (isMap(before) && isMap(after)) return mapDifference(before, after, path);
  return [{ op: 'replace', path, value: after }];
}

function mapDifference(before: Json, after: Json, path: string): PatchOperation[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].flatMap((name): PatchOperation[] => {
    const [old, value] = [before[name], after[name]];
    const at = `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    if (old === undefined) return value === undefined ? [] : [{ op: 'add', path: at, value }];
    return value === undefined ? [{ op: 'remove', path: at }] : difference(old, value, at);
  });
}

/** Element by element, as what is made of a pod keeps the order of its lists and adds at their ends. */
function listDifference(before: readonly unknown[], after: readonly unknown[], path: string): PatchOperation[] {
  const common = before
    .slice(0, after.length)
    .flatMap((old, index) => difference(old, after[index], `${path}/${index}`));
  const added = after.slice(before.length).map((value) => ({ op: 'add', path: `${path}/-`, value }) as const);
  const surplus = before.slice(after.length).map((_, index) => `${path}/${after.length + index}`);
  return [...common, ...added, ...surplus.reverse().map((at) => ({ op: 'remove', path: at }) as const)];
}

const isMap = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
