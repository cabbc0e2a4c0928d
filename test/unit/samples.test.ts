import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Job } from 'kubernetes-models/batch/v1/Job';
import { Pod } from 'kubernetes-models/v1/Pod';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { customResource, readDefinitions } from '../fakes/kube-api/crds.ts';

const SAMPLES = resolve(import.meta.dirname, '../../deploy/samples');
const read = (name: string) => readFileSync(join(SAMPLES, name), 'utf8');
const script = (manifest: { spec: { containers: { command: string[] }[] } }) =>
  manifest.spec.containers[0]?.command.at(-1);

const workerOf = (name: string) => parse(read(name)).spec.services.SampleWorker.extraPodSpec.mainContainer;

describe('deploy/samples', () => {
  it.each(readdirSync(SAMPLES).filter((name) => name.endsWith('.yaml')))('%s is what Kubernetes takes', (name) => {
    const manifest = parse(read(name));
    const definition = readDefinitions().find(({ spec }) => spec.names.kind === manifest.kind);
    if (definition === undefined) {
      const object = manifest.kind === 'Job' ? new Job(manifest) : new Pod(manifest);
      expect(() => object.validate()).not.toThrow();
      return;
    }
    const { schema } = customResource(definition);
    expect(schema?.fill(manifest)).toMatchObject(manifest);
    expect(schema?.causes(manifest)).toEqual([]);
  });

  it('has manifests that start the very scripts', () => {
    expect(script(parse(read('worker-pod.yaml')))).toBe(read('worker.py'));
    expect(script(parse(read('worker-checkpoint-job.yaml')).spec.template)).toBe(read('worker.py'));
    expect(script(parse(read('dynamocheckpoint.yaml')).spec.job.podTemplateSpec)).toBe(read('worker.py'));
    for (const name of ['dynamographdeployment-auto.yaml', 'dynamographdeployment-checkpointref.yaml'])
      expect(workerOf(name).command.at(-1)).toBe(read('worker.py'));
    expect(script(parse(read('shell-pod.yaml')))).toBe(read('worker.sh'));
  });

  it('has workers of a DynamoGraphDeployment that are what the DynamoCheckpoint was made of', () => {
    const [{ name, ...container }] = parse(read('dynamocheckpoint.yaml')).spec.job.podTemplateSpec.spec.containers;
    expect(name).toBe('main');
    for (const file of ['dynamographdeployment-auto.yaml', 'dynamographdeployment-checkpointref.yaml'])
      expect(workerOf(file)).toEqual(container);
  });

  it('has no script that kubelet would change: it puts variables of the container in the place of $(NAME)', () => {
    for (const name of ['worker.py', 'worker.sh']) expect(read(name)).not.toMatch(/\$\([A-Za-z_][A-Za-z0-9_]*\)|\$\$/);
  });

  it('has a page that shows them as they are', () => {
    const page = readFileSync(resolve(SAMPLES, '../../docs/workload.md'), 'utf8');
    for (const [name, language] of [
      ['worker.py', 'python'],
      ['worker.sh', 'sh'],
    ] as const)
      expect(page).toContain(`\`\`\`${language}\n${read(name)}\`\`\``);
  });
});
