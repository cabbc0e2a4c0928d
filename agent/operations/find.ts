import { KUBELET_LABELS } from '../../contract/keys.ts';
import type { ContainerView, PodView } from '../../contract/pods.ts';
import { SnapshotError } from '../errors.ts';
import type { Runtime, RuntimeContainer } from '../watch/runtime.ts';
import type { AgentContext } from './context.ts';
import type { Caller, ContainerReference } from './service.ts';

/** A container that runs on this node, and its pod as the runtime has it. */
export interface Found {
  readonly pod: PodView;
  readonly container: ContainerView;
}

/**
 * Finds the running container that a caller means. Throws CONTAINER_NOT_FOUND, also for one in a namespace that is not the caller's:
 * nobody learns what others run.
 */
export async function findContainer(
  runtime: AgentContext['runtime'],
  reference: ContainerReference,
  caller: Caller,
): Promise<Found> {
  const all = await runtime.containers(labelsOf(reference));
  const found = all
    .filter(({ id, state }) => state === 'CONTAINER_RUNNING' && (reference.containerId || id) === id)
    .filter(({ labels }) => mayUse(caller, labels[KUBELET_LABELS.podNamespace]))
    .reduce<RuntimeContainer | undefined>((last, one) => (last && startedLater(last, one) ? last : one), undefined);
  const pod = found && (await podOf(runtime, found));
  if (found === undefined || pod === undefined) throw notFound(reference);
  const name = found.labels[KUBELET_LABELS.containerName] ?? found.metadata.name;
  return { pod, container: { id: found.id, name, state: 'running', attempt: found.metadata.attempt } };
}

function labelsOf({ namespace, pod, container }: ContainerReference): Record<string, string> {
  return {
    ...(namespace && { [KUBELET_LABELS.podNamespace]: namespace }),
    ...(pod && { [KUBELET_LABELS.podName]: pod }),
    ...(container && { [KUBELET_LABELS.containerName]: container }),
  };
}

function mayUse({ namespaces }: Caller, namespace: string | undefined): boolean {
  return namespaces === 'all' || (namespace !== undefined && namespaces.has(namespace));
}

function startedLater(one: RuntimeContainer, than: RuntimeContainer): boolean {
  return BigInt(one.created_at) > BigInt(than.created_at);
}

async function podOf(runtime: Pick<Runtime, 'sandboxes'>, container: RuntimeContainer): Promise<PodView | undefined> {
  const uid = container.labels[KUBELET_LABELS.podUid];
  const sandboxes = await runtime.sandboxes(uid === undefined ? undefined : { [KUBELET_LABELS.podUid]: uid });
  const sandbox = sandboxes.find(({ id }) => id === container.pod_sandbox_id);
  if (sandbox === undefined) return undefined;
  const { metadata, labels, annotations } = sandbox;
  return { ...metadata, sandboxId: sandbox.id, labels, annotations, containers: [] };
}

function notFound({ namespace, pod, container, containerId }: ContainerReference): SnapshotError {
  const what = containerId ? `with id ${containerId}` : `${container} of pod ${namespace}/${pod}`;
  return new SnapshotError('CONTAINER_NOT_FOUND', `no container ${what} runs on this node`);
}
