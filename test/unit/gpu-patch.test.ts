import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { parseConfig } from '../../agent/config.ts';

interface Spec {
  readonly template: {
    readonly spec: {
      readonly containers: readonly { readonly name: string; readonly volumeMounts: readonly Mount[] }[];
      readonly volumes: readonly { readonly name: string; readonly hostPath?: { readonly path: string } }[];
    };
  };
}
interface Mount {
  readonly name: string;
  readonly mountPath: string;
}

const read = (name: string) => readFileSync(resolve(import.meta.dirname, '../../deploy', name), 'utf8');
const podOf = (object: { readonly spec: Spec }) => object.spec.template.spec;

it('the patch for GPUs is for the container that the DaemonSet has, and mounts what the agent looks for', () => {
  const daemonSet = parseAllDocuments(read('agent-daemonset.yaml'))
    .map((document) => document.toJS() as { kind: string; spec: Spec })
    .find(({ kind }) => kind === 'DaemonSet');
  const patch = podOf(parse(read('agent-daemonset-gpu.yaml')) as { spec: Spec });
  const names = (pod: Spec['template']['spec']) => pod.containers.map(({ name }) => name);
  expect(names(patch)).toEqual(daemonSet && names(podOf(daemonSet)));
  const { podResourcesSocket } = parseConfig('nodeName: a\nstorage: { basePath: /c }').cuda;
  const mounts = patch.containers.flatMap(({ volumeMounts }) => volumeMounts);
  expect(mounts.map(({ mountPath }) => mountPath)).toEqual([dirname(podResourcesSocket)]);
  const paths = new Map(patch.volumes.map(({ name, hostPath }) => [name, hostPath?.path]));
  for (const { name, mountPath } of mounts) expect(paths.get(name)).toBe(mountPath);
});
