import { isDeepStrictEqual } from 'node:util';

type Json = Readonly<Record<string, unknown>>;

/**
 * The JSON merge patch (RFC 7396) that makes `before` into `after`; undefined where they are the same. Lists are sent whole. A member of
 * `after` that is undefined is absent.
 */
export function mergePatch(before: object, after: object): Json | undefined {
  const [old, wanted] = [before as Json, after as Json];
  const patch: Record<string, unknown> = {};
  for (const name of Object.keys(old)) if (old[name] !== undefined && wanted[name] === undefined) patch[name] = null;
  for (const [name, value] of Object.entries(wanted)) {
    if (value === undefined || isDeepStrictEqual(value, old[name])) continue;
    patch[name] = isMap(value) ? (mergePatch(asMap(old[name]), value) ?? (isMap(old[name]) ? undefined : {})) : value;
    if (patch[name] === undefined) delete patch[name];
  }
  return Object.keys(patch).length === 0 ? undefined : patch;
}

const isMap = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
const asMap = (value: unknown) => (isMap(value) ? value : {});
