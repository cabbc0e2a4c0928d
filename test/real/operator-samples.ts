import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { parse } from 'yaml';
import type { Json } from '../fakes/kube-api/resources.ts';
import type { Container } from './environment/container.ts';
import { eventually, REPOSITORY } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';

/** The manifest of deploy/samples with an image that is here, under a name of its own. */
export function sample(file: string, name?: string): Json & { kind: string; metadata: Json; spec: Json } {
  const text = readFileSync(join(REPOSITORY, 'deploy/samples', file), 'utf8');
  const object = parse(text.replaceAll(/image: registry\.example\.com\/\S+/g, `image: ${IMAGES.placeholder}`));
  return name === undefined ? object : { ...object, metadata: { ...object.metadata, name } };
}

/** The sample with automatic checkpoints, of workers alone. */
export function automaticGraph(name: string, startupPolicy: string) {
  const object = sample('dynamographdeployment-auto.yaml', name);
  const { SampleWorker } = object.spec['services'] as Record<'SampleWorker', Json & { readonly checkpoint: Json }>;
  const checkpoint = { ...SampleWorker.checkpoint, startupPolicy };
  return { ...object, spec: { ...object.spec, services: { SampleWorker: { ...SampleWorker, checkpoint } } } };
}

/** The sample with a checkpointRef, of workers alone, which are started by it only. */
export function referringGraph(name: string, checkpointRef: string) {
  const object = sample('dynamographdeployment-checkpointref.yaml', name);
  const { SampleWorker } = object.spec['services'] as Record<'SampleWorker', Json>;
  const checkpoint = { enabled: true, checkpointRef, startupPolicy: 'WaitForCheckpoint' };
  return { ...object, spec: { ...object.spec, services: { SampleWorker: { ...SampleWorker, checkpoint } } } };
}

/** That the worker in this container goes on where the checkpoint was made: it never loaded, its memory is whole, and its counter goes on. */
export async function wasRestored(container: Container, pod: string): Promise<void> {
  const events = () => container.output().map(({ event }) => event);
  await eventually('that it serves', () => events().includes('serving') || undefined, {
    explain: () => JSON.stringify(container.output()),
  });
  expect(events()).toEqual(['restored', 'serving']);
  expect(container.output().at(-1)).toMatchObject({ pod, token: 1000 });
  expect(await asked(container, 'health')).toMatchObject({ pod, intact: true });
  expect(await asked(container, 'generate')).toMatchObject({ pod, token: 1001 });
}

/** That it loaded its model by itself. */
export function wasStartedCold(container: Container): void {
  expect(container.output().map(({ event }) => event)).toEqual(['loaded', 'serving']);
}

async function asked(container: Container, path: string): Promise<Json> {
  const program = `import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:8000/${path}").read().decode())`;
  const { stdout } = await container.exec('python3', '-c', program);
  return JSON.parse(stdout) as Json;
}

/** Reads a jsonpath of fields alone, as kubectl prints it. */
export function jsonpath(object: unknown, path: string): string {
  const values = [...path.matchAll(/\{\.([^}]+)\}|\{"\\n"\}/g)].map(([, fields]) => {
    if (fields === undefined) return '\n';
    const value = fields.split('.').reduce<unknown>((part, name) => (part as Json | undefined)?.[name], object);
    return typeof value === 'string' ? value : JSON.stringify(value ?? '').replaceAll('"', '');
  });
  return values.join('');
}
