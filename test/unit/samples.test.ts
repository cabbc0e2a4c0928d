import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Job } from 'kubernetes-models/batch/v1/Job';
import { Pod } from 'kubernetes-models/v1/Pod';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';

const SAMPLES = resolve(import.meta.dirname, '../../deploy/samples');
const read = (name: string) => readFileSync(join(SAMPLES, name), 'utf8');
const script = (manifest: { spec: { containers: { command: string[] }[] } }) =>
  manifest.spec.containers[0]?.command.at(-1);

describe('deploy/samples', () => {
  it.each(readdirSync(SAMPLES).filter((name) => name.endsWith('.yaml')))('%s is what Kubernetes takes', (name) => {
    const manifest = parse(read(name));
    const object = manifest.kind === 'Job' ? new Job(manifest) : new Pod(manifest);
    expect(() => object.validate()).not.toThrow();
  });

  it('has manifests that start the very scripts', () => {
    expect(script(parse(read('worker-pod.yaml')))).toBe(read('worker.py'));
    expect(script(parse(read('worker-checkpoint-job.yaml')).spec.template)).toBe(read('worker.py'));
    expect(script(parse(read('shell-pod.yaml')))).toBe(read('worker.sh'));
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
