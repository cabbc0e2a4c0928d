import { ANNOTATIONS, annotationKeyProblem, SCOPED_ANNOTATIONS } from './keys.ts';
import { ShapingError } from './shaping-error.ts';

/** The names in a list of target containers, or a sentence saying what is wrong with it. `what` names where it was found. */
export function targetNames(text: string, what: string): string[] | string {
  if (text.trim() === '') return `${what} is missing or blank`;
  const names = text.split(',').map((name) => name.trim());
  if (names.includes('')) return `${what} "${text.trim()}" has an empty entry`;
  if (new Set(names).size !== names.length) return `${what} "${text.trim()}" names a container twice`;
  return names;
}

/** Where the names of target containers can come from. Blank is as good as missing. */
export interface TargetSources {
  /** Of the command line. */
  readonly flag: string | undefined;
  /** As it is called there, for messages. */
  readonly flagName: string;
  readonly annotation: string | undefined;
  /** So many at most. */
  readonly limit: number;
}

/** The target containers that flag and annotation agree on, in their order. Throws ShapingError. */
export function agreedTargets({ flag = '', flagName, annotation = '', limit }: TargetSources): string[] {
  const key = ANNOTATIONS.targetContainers;
  const given = flag.trim() === '' ? undefined : required(targetNames(flag, flagName));
  const annotated = annotation.trim() === '' ? undefined : required(targetNames(annotation, `annotation ${key}`));
  const names = given ?? annotated;
  if (names === undefined) throw new ShapingError(`target containers are required: pass --container(s) or set ${key}`);
  if (given !== undefined && annotated !== undefined && given.join() !== annotated.join())
    throw new ShapingError(
      `--container(s) flag "${given.join()}" does not match manifest ${key} "${annotated.join()}"; pass one or the other`,
    );
  if (names.length > limit)
    throw new ShapingError(`expected at most ${limit} target container(s), got ${names.length}`);
  return names;
}

function required(names: string[] | string): string[] {
  if (typeof names === 'string') throw new ShapingError(names);
  return names;
}

/** Why the outcome of a restore into a container of this name could not be written onto its pod: annotation keys have a length limit. Or undefined. */
export function reportingProblem(container: string): string | undefined {
  const keys = Object.values(SCOPED_ANNOTATIONS).map((prefix) => prefix + container);
  const key = keys.find((each) => annotationKeyProblem(each) !== undefined);
  return key === undefined ? undefined : `annotation ${key} ${annotationKeyProblem(key)}`;
}
