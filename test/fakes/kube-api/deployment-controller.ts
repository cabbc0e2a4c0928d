/** What the controllers of Deployments and ReplicaSets do, as far as it can be seen of pods and status. Pods belong to the Deployment itself. */
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Json, KubeObject } from './resources.ts';
import type { KubeApi } from './server.ts';

const HASH_LABEL = 'pod-template-hash';

/** Keeps as many pods of each Deployment as it asks for, made through the webhooks; the answer ends that. */
export function runDeployments(api: KubeApi): () => void {
  let isOver = false;
  /** By key: the look that runs, and whether another one is due after it. */
  const looks = new Map<string, { isDue: boolean }>();
  const look = async (key: string) => {
    const running = looks.get(key);
    if (running !== undefined || isOver) {
      if (running !== undefined) running.isDue = true;
      return;
    }
    const mine = { isDue: true };
    looks.set(key, mine);
    while (mine.isDue && !isOver) {
      mine.isDue = false;
      // In the background: the watches are told of a change before what it leads to.
      await setImmediate();
      await reconcile(api, key);
    }
    looks.delete(key);
  };
  const stops = [
    api.onChange('deployments', ({ metadata }) => void look(`${metadata.namespace}/${metadata.name}`)),
    api.onChange('pods', ({ metadata }) => {
      for (const { kind, name } of metadata.ownerReferences ?? [])
        if (kind === 'Deployment') void look(`${metadata.namespace}/${String(name)}`);
    }),
  ];
  for (const { metadata } of api.list('deployments')) void look(`${metadata.namespace}/${metadata.name}`);
  return () => {
    isOver = true;
    for (const stop of stops) stop();
  };
}

interface Template {
  readonly metadata?: { readonly labels?: Json; readonly annotations?: Json };
  readonly spec?: Json;
}

async function reconcile(api: KubeApi, key: string): Promise<void> {
  const deployment = api.get('deployments', key);
  if (deployment === undefined || deployment.metadata.deletionTimestamp !== undefined) return;
  const { replicas = 1, template = {} } = (deployment.spec ?? {}) as { replicas?: number; template?: Template };
  const hash = createHash('sha256').update(JSON.stringify(template)).digest('hex').slice(0, 10);
  const live = () => podsOf(api, deployment).filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const isNew = ({ metadata }: KubeObject) => metadata.labels?.[HASH_LABEL] === hash;

  const current = live().filter(isNew);
  for (const { metadata } of current.slice(replicas)) api.delete('pods', `${metadata.namespace}/${metadata.name}`);
  for (let missing = replicas - current.length; missing > 0; missing -= 1) {
    const made = await api.createPod(podOf(deployment, template, hash)).then(
      () => true,
      () => false,
    );
    // Refused: the next change is the next try, as the backoff of a real one is.
    if (!made) break;
  }
  const ready = live().filter((pod) => isNew(pod) && isReady(pod));
  const isRolledOut = ready.length >= replicas;
  const old = live().filter((pod) => !isNew(pod));
  if (isRolledOut) for (const { metadata } of old) api.delete('pods', `${metadata.namespace}/${metadata.name}`);
  tell(api, key, live(), isNew);
}

function podsOf(api: KubeApi, { metadata: { uid } }: KubeObject): KubeObject[] {
  const pods = api
    .list('pods')
    .filter(({ metadata }) => metadata.ownerReferences?.some((owner) => owner['uid'] === uid));
  return pods.sort((a, b) => Number(a.metadata.resourceVersion) - Number(b.metadata.resourceVersion));
}

function podOf({ metadata: { name, namespace, uid } }: KubeObject, { metadata = {}, spec }: Template, hash: string) {
  const owner = { apiVersion: 'apps/v1', kind: 'Deployment', name, uid, controller: true, blockOwnerDeletion: true };
  const labels = { ...metadata.labels, [HASH_LABEL]: hash };
  const meta = { ...metadata, labels, namespace, generateName: `${name}-${hash}-`, ownerReferences: [owner] };
  return { kind: 'Pod', metadata: meta, spec: spec ?? {} };
}

function isReady({ status }: KubeObject): boolean {
  const conditions = (status?.['conditions'] ?? []) as readonly Json[];
  return conditions.some(({ type, status: value }) => type === 'Ready' && value === 'True');
}

function tell(api: KubeApi, key: string, pods: readonly KubeObject[], isNew: (pod: KubeObject) => boolean): void {
  const deployment = api.get('deployments', key);
  if (deployment === undefined) return;
  const ready = pods.filter(isReady).length;
  const status = {
    observedGeneration: deployment.metadata.generation ?? 1,
    ...{ replicas: pods.length, updatedReplicas: pods.filter(isNew).length },
    ...{ readyReplicas: ready, availableReplicas: ready, unavailableReplicas: pods.length - ready },
  };
  if (!isDeepStrictEqual(deployment.status, status)) api.patch('deployments', key, { status });
}
