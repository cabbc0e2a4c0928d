import { isDeepStrictEqual } from 'node:util';
import type { Json } from './resources.ts';
import { ApiError, badRequest, rejectedJsonPatch, statusBody, unsupportedPatchType } from './status.ts';

const isMap = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Lists that a strategic merge patch merges by a key. All others it replaces, like a merge patch. */
const MERGE_KEYS: Readonly<Record<string, string>> = {
  conditions: 'type',
  containers: 'name',
  initContainers: 'name',
  ownerReferences: 'uid',
};

/** The types of patches that are served. */
export const PATCH_TYPES: ReadonlySet<string> = new Set(
  ['merge-patch', 'strategic-merge-patch', 'json-patch'].map((type) => `application/${type}+json`),
);

/** Applies a patch of the given media type to an object; the object itself stays as it is. */
export function applyPatch(current: Json, patch: unknown, mediaType: string): Json {
  switch (mediaType) {
    case 'application/merge-patch+json':
      return mergeMap(current, patchMap(patch), false);
    case 'application/strategic-merge-patch+json':
      return mergeMap(current, patchMap(patch), true);
    case 'application/json-patch+json':
      return applyJsonPatch(current, patch);
    default:
      throw unsupportedPatchType();
  }
}

function patchMap(patch: unknown): Json {
  if (!isMap(patch)) throw badRequest('error decoding patch: json: cannot unmarshal into Go value of type map');
  return patch;
}

function mergeMap(current: Json, patch: Json, isStrategic: boolean): Json {
  const merged = { ...current };
  for (const [key, value] of Object.entries(patch)) {
    const mergeKey = MERGE_KEYS[key];
    const old = merged[key];
    if (value === null) delete merged[key];
    else if (isMap(value)) merged[key] = mergeMap(isMap(old) ? old : {}, value, isStrategic);
    else if (isStrategic && Array.isArray(value) && mergeKey !== undefined) {
      merged[key] = mergeList(Array.isArray(old) ? old : [], value, mergeKey);
    } else if (isStrategic && key === 'finalizers' && Array.isArray(old) && Array.isArray(value)) {
      merged[key] = [...new Set([...old, ...value])];
    } else merged[key] = value;
  }
  return merged;
}

/** A new element goes in front, as a real server does it; `$patch: delete` takes one away. */
function mergeList(current: readonly Json[], patch: readonly Json[], mergeKey: string): Json[] {
  let merged = [...current];
  const added: Json[] = [];
  for (const { $patch, ...element } of patch) {
    const id = element[mergeKey];
    if (id === undefined) {
      const text = Object.entries(element).map(([key, value]) => `${key}:${String(value)}`);
      const message = `map: map[${text.join(' ')}] does not contain declared merge key: ${mergeKey}`;
      throw new ApiError(500, statusBody(500, message));
    }
    const index = merged.findIndex((candidate) => candidate[mergeKey] === id);
    if ($patch === 'delete') merged = merged.filter((candidate) => candidate[mergeKey] !== id);
    else if (index === -1) added.push(element);
    else merged[index] = mergeMap(merged[index] ?? {}, element, true);
  }
  return [...added, ...merged];
}

function applyJsonPatch(current: Json, patch: unknown): Json {
  if (!Array.isArray(patch)) {
    throw badRequest(
      'error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp',
    );
  }
  const result = structuredClone(current);
  for (const operation of patch as Json[]) applyOperation(result, operation);
  return result;
}

function applyOperation(root: Json, { op, path, value }: Json): void {
  const steps = String(path).split('/').slice(1);
  const keys = steps.map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  const last = keys.pop();
  let parent: unknown = root;
  for (const key of keys) parent = (parent as Json | undefined)?.[key];
  if (last === undefined || typeof parent !== 'object' || parent === null) throw rejectedJsonPatch();
  const isPresent = last in parent;
  const holder = parent as Json;
  if (op === 'test' && isPresent && isDeepStrictEqual(holder[last], value)) return;
  if (op === 'add' && Array.isArray(parent)) parent.splice(last === '-' ? parent.length : Number(last), 0, value);
  else if (op === 'add' || (op === 'replace' && isPresent)) holder[last] = value;
  else if (op === 'remove' && isPresent && Array.isArray(parent)) parent.splice(Number(last), 1);
  else if (op === 'remove' && isPresent) delete holder[last];
  else throw rejectedJsonPatch();
}
