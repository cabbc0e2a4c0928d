/** What the scheduler and the Job controller of a cluster do, where it has one node. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { completeJob, failJob, startJobPod } from '../../fakes/kube-api/job-controller.ts';
import type { KubeObject } from '../../fakes/kube-api/resources.ts';
import { REPOSITORY } from './host.ts';
import { type KubeNode, NODE } from './kube-node.ts';

/** Puts every new pod onto the one node. */
export function schedule({ api }: KubeNode): () => void {
  return api.onChange('pods', ({ metadata: { namespace, name, deletionTimestamp }, spec }, isDeleted) => {
    if (isDeleted || deletionTimestamp !== undefined || spec?.['nodeName'] !== undefined) return;
    const key = `${namespace}/${name}`;
    setImmediate(() => {
      const pod = api.get('pods', key);
      if (pod !== undefined && pod.spec?.['nodeName'] === undefined)
        api.patch('pods', key, { spec: { nodeName: NODE } });
    });
  });
}

/** Makes the pod of each new Job, once. */
export function runJobs({ api, cluster }: KubeNode): () => void {
  const started = new Set<string>();
  return api.onChange('jobs', ({ metadata: { namespace, name, uid, labels = {} } }, isDeleted) => {
    if (isDeleted || started.has(uid)) return;
    started.add(uid);
    setImmediate(() => {
      const key = `${namespace}/${name}`;
      const job = api.get('jobs', key);
      if (job?.metadata.uid !== uid) return;
      if (labels['app.kubernetes.io/component'] === 'checkpoint-cleanup')
        cleanUp(job, cluster.volume.hostPath).then(
          () => completeJob(api, key, ''),
          () => failJob(api, key, ''),
        );
      else startJobPod(api, key, `${name}-${uid.slice(0, 5)}`);
    });
  });
}

/** The operator's image is not here: its program runs beside the node, on the volume itself. */
async function cleanUp({ spec }: KubeObject, volume: string): Promise<void> {
  const template = spec?.['template'] as { spec: { containers: { env: { name: string; value: string }[] }[] } };
  const said = template.spec.containers.flatMap(({ env }) => env);
  const env = Object.fromEntries(said.map(({ name, value }) => [name, value]));
  const program = join(REPOSITORY, 'dist/operator/snapshot-cleanup.mjs');
  await promisify(execFile)(process.execPath, [program], { env: { ...env, CHECKPOINT_BASE_PATH: volume } });
}
