import { describe, expect, it } from 'vitest';
import { parsePodManifest } from '../../../snapshotctl/workload/manifest.ts';

const POD = `
apiVersion: v1
kind: Pod
metadata: { name: worker, labels: { app: worker } }
spec:
  containers: [{ name: main, image: "worker:1" }]
`;
const read = (text: string) => parsePodManifest(text, 'pod.yaml');

describe('a manifest', () => {
  it('is YAML or JSON, its kind may be left out, and null is as good as missing', () => {
    const pod = read(POD);
    expect(pod).toEqual({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'worker', labels: { app: 'worker' } },
      spec: { containers: [{ name: 'main', image: 'worker:1' }] },
    });
    expect(read(JSON.stringify(pod))).toEqual(pod);
    expect(read(POD.replace('kind: Pod\n', 'kind:\n'))).toEqual(pod);
    expect(read(POD.replace('kind: Pod', 'kind: ""'))).toEqual(pod);
    expect(read(`---\n${POD}  volumes:\n---\n`)).toEqual(pod);
  });

  it('that was exported from a cluster loses what the server wrote', () => {
    const exported = {
      ...read(POD),
      metadata: {
        ...{
          name: 'worker',
          generateName: 'w-',
          uid: 'u',
          resourceVersion: '7',
          creationTimestamp: '2026-01-01T00:00:00Z',
        },
        ...{ managedFields: [], ownerReferences: [{}], generation: 1, finalizers: ['keep.me/here'] },
      },
      status: { phase: 'Running' },
    };
    const pod = read(JSON.stringify(exported));
    expect(pod.metadata).toEqual({ name: 'worker', generateName: 'w-', finalizers: ['keep.me/here'] });
    expect(pod).not.toHaveProperty('status');
  });

  it('that was exported loses where its pod was and what debugged it; one that somebody wrote keeps its node', () => {
    const written = read(`${POD}  nodeName: gpu-1\n`);
    expect(written.spec).toMatchObject({ nodeName: 'gpu-1' });
    const spec = { ...written.spec, ephemeralContainers: [{ name: 'debugger', image: 'tools:1' }] };
    const exported = { ...written, metadata: { name: 'worker', uid: 'u' }, spec };
    expect(read(JSON.stringify(exported)).spec).toEqual(read(POD).spec);
  });

  it.each([
    ['', 'manifest pod.yaml is empty'],
    ['# only a comment', 'manifest pod.yaml is empty'],
    [`${POD}---${POD}`, 'manifest pod.yaml has 2 documents; a checkpoint or restore is of one pod: leave only that'],
    ['a: [', 'manifest pod.yaml is not YAML: Flow sequence in block collection'],
    ['- a', 'manifest pod.yaml is no object'],
    ['text', 'manifest pod.yaml is no object'],
    [POD.replace('kind: Pod', 'kind: Deployment'), 'manifest pod.yaml is kind "Deployment", expected Pod'],
    [POD.replace('name: worker,', ''), 'manifest pod.yaml has no metadata.name, which is required'],
    [
      POD.replace(/containers.*/, 'containers: []'),
      'manifest pod.yaml has no spec.containers, at least one container is required',
    ],
    ['metadata: { name: a }', 'manifest pod.yaml has no spec.containers, at least one container is required'],
    [POD.replace(', image: "worker:1"', ''), 'manifest pod.yaml has no image for container "main"'],
    [POD.replace('"worker:1"', '" "'), 'manifest pod.yaml has no image for container "main"'],
    [POD.replace('name: main', 'name: 7'), 'manifest pod.yaml is no pod: spec.containers.0.name: '],
    [POD.replace('app: worker', 'app: 7'), 'manifest pod.yaml is no pod: metadata.labels.app: '],
    [
      `a: &a [x, x]\nb: &b [${'*a,'.repeat(99)}]\nc: [${'*b,'.repeat(99)}]`,
      'manifest pod.yaml is not YAML: Excessive alias count',
    ],
    [`a: ${'x'.repeat(4 << 20)}`, 'manifest pod.yaml is larger than what the API server takes'],
  ])('%.40j is refused', (text, message) => {
    expect(() => read(text)).toThrow(message);
  });
});
