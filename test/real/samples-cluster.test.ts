import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { startJobPod } from '../fakes/kube-api/job-controller.ts';
import type { Json } from '../fakes/kube-api/resources.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { REPOSITORY } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { KubeNode, NODE } from './environment/kube-node.ts';
import { becomesReady, jobEnded, jobStatus, keyOf, NAMESPACE, restoreStatus } from './kubernetes-scenario.ts';

/** The manifests of deploy/samples that do without snapshotctl, as `kubectl apply` would bring them to a cluster. */
let kube: KubeNode;

beforeAll(async () => {
  kube = await KubeNode.start();
  await becomesReadyToWork(await kube.startAgent());
});

afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

interface Applied {
  readonly kind: 'Job' | 'Pod';
  readonly metadata: { readonly name: string } & Json;
  readonly spec: Json;
}

/** The manifest with an image that is here, on the node that is here. */
function manifest(name: string): Applied {
  const text = readFileSync(join(REPOSITORY, 'deploy/samples', name), 'utf8');
  const object = parse(text.replaceAll(/image: registry\.example\.com\/\S+/g, `image: ${IMAGES.placeholder}`));
  const { spec } = object.kind === 'Job' ? object.spec.template : object;
  Object.assign(spec, { nodeName: NODE, terminationGracePeriodSeconds: 5 });
  return { ...object, metadata: { ...object.metadata, namespace: NAMESPACE } };
}

test('a Job is checkpointed and completes; a pod is restored from it, and is ready when the worker answers', async () => {
  const job = manifest('worker-checkpoint-job.yaml');
  const jobKey = keyOf(job.metadata.name);
  kube.api.put({ ...job });
  startJobPod(kube.api, jobKey, 'sample-source');
  expect(await jobEnded(kube, { id: '', version: '', jobKey, podKey: keyOf('sample-source') })).toBe('Complete');
  expect(jobStatus(kube, { jobKey })).toBe('completed');

  const pod = manifest('worker-restored-pod.yaml');
  const podKey = keyOf(pod.metadata.name);
  kube.api.put({ ...pod });
  const container = await kube.container(podKey);
  await becomesReady(kube, podKey);
  expect(restoreStatus(kube.api.get('pods', podKey))).toMatchObject({ status: 'completed', containerId: container.id });
  expect(container.output().map(({ event }) => event)).toEqual(['restored', 'serving']);
  expect(container.output().at(-1)).toMatchObject({ pod: pod.metadata.name, token: 1000 });
  await kube.deletePod(podKey);
});
