import { execFileSync, spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { parseAllDocuments } from 'yaml';

const REPOSITORY = resolve(import.meta.dirname, '../..');
const HELM = resolve(REPOSITORY, '.tools/helm');

/** The chart's directory. */
export const CHART = resolve(REPOSITORY, 'deploy/chart');

/** Where the tests install the chart, in thought. */
export const NAMESPACE = 'snapshot-system';
const RELEASE = 'snapshot';

/** A rendered object. What is below is the chart's. */
export interface Rendered {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

export interface Release {
  readonly namespace?: string;
  readonly name?: string;
  /** The chart; another directory for a copy of it. */
  readonly chart?: string;
}

const rendered = new Map<string, readonly Rendered[]>();

/** What helm makes of the chart with these values, hooks included. Each set of values is rendered once in a process. Throws helm's message. */
export function render(values: object = {}, release: Release = {}): readonly Rendered[] {
  const key = JSON.stringify([values, release]);
  const known = rendered.get(key) ?? parse(execFileSync(HELM, args(release), { ...options(values), encoding: 'utf8' }));
  rendered.set(key, known);
  return known;
}

function parse(text: string): Rendered[] {
  const documents = parseAllDocuments(text, { uniqueKeys: true });
  for (const { errors } of documents) if (errors[0] !== undefined) throw errors[0];
  return documents.map((document) => document.toJS() as Rendered | null).filter((object) => object !== null);
}

/** Why helm refuses these values, on one line for each reason. Throws where it does not. */
export function refusalOf(values: object): string {
  const { status, stderr } = spawnSync(HELM, args({}), { ...options(values), encoding: 'utf8' });
  if (status === 0) throw new Error(`helm takes ${JSON.stringify(values)}`);
  const sentence = /^Error: execution error at \([^)]*\): (.*)$/m.exec(stderr)?.[1];
  return sentence ?? [...stderr.matchAll(/^- (at .*)$/gm)].map(([, reason = '']) => reason).join('\n') ?? stderr;
}

/** Runs another command of helm: what it printed, on both streams. Throws where it fails. */
export function helm(...command: readonly string[]): string {
  return execFileSync(HELM, command, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function args({ name = RELEASE, namespace = NAMESPACE, chart = CHART }: Release): string[] {
  return ['template', name, chart, '--namespace', namespace, '--values', '-'];
}

function options(values: object) {
  return { input: JSON.stringify(values), stdio: 'pipe' as const };
}

/** The only object of a kind, or the one of that name. */
export function only(objects: readonly Rendered[], kind: string, name?: string): Rendered {
  const found = objects.filter((one) => one.kind === kind && (name === undefined || one.metadata.name === name));
  const [object] = found;
  if (object === undefined || found.length > 1)
    throw new Error(`the chart renders ${found.length} objects of kind ${kind} ${name ?? ''}, not one`);
  return object;
}
