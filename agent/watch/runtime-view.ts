import { KUBELET_LABELS } from '../../contract/keys.ts';
import type { ContainerView } from '../../contract/pods.ts';
import type { ApiPod } from './api-pod.ts';
import type { RuntimeContainer, Sandbox } from './runtime.ts';

/** What the runtime has of one pod: its sandbox that is up, and the containers in it. */
export interface RuntimeView {
  readonly sandboxId: string;
  readonly containers: readonly ContainerView[];
}

/** Of a pod that the runtime does not have. */
export const NOT_THERE: RuntimeView = { sandboxId: '', containers: [] };

/** Sandboxes that are up, by the uid of their pod. Where a pod has two for a moment, the younger one counts. */
export function readySandboxes(sandboxes: readonly Sandbox[]): Map<string, Sandbox> {
  return new Map(
    sandboxes
      .filter(({ state }) => state === 'SANDBOX_READY')
      // Later ones take the place of earlier ones.
      .sort((a, b) => Number(BigInt(a.created_at) - BigInt(b.created_at)))
      .map((sandbox) => [sandbox.metadata.uid, sandbox]),
  );
}

/** The containers of each sandbox, those that were started first first. */
export function containersBySandbox(containers: readonly RuntimeContainer[]): (sandboxId: string) => ContainerView[] {
  const bySandbox = new Map<string, RuntimeContainer[]>();
  for (const container of containers) {
    const those = bySandbox.get(container.pod_sandbox_id);
    if (those === undefined) bySandbox.set(container.pod_sandbox_id, [container]);
    else those.push(container);
  }
  return (sandboxId) => (bySandbox.get(sandboxId) ?? []).map(containerView).sort((a, b) => a.attempt - b.attempt);
}

/** What the runtime has of each pod; of a pod that it does not list, nothing. */
export function viewsOf(
  sandboxes: readonly Sandbox[],
  containers: readonly RuntimeContainer[],
): (uid: string) => RuntimeView {
  const ready = readySandboxes(sandboxes);
  const containersIn = containersBySandbox(containers);
  return (uid) => {
    const sandbox = ready.get(uid);
    return sandbox === undefined ? NOT_THERE : { sandboxId: sandbox.id, containers: containersIn(sandbox.id) };
  };
}

/** Whether the runtime's view has nothing else than the API says: what runs there runs here, and what ended there does not run here. */
export function agrees({ published }: ApiPod, { containers }: RuntimeView): boolean {
  return published.every(({ id, isRunning }) => {
    const isRunningHere = containers.some((one) => one.id === id && one.state === 'running');
    return isRunning === isRunningHere;
  });
}

/** Whether a container of the pod is still to come up for the first time, or was created and has not begun to run. */
export function isAwaited({ containerNames, kubernetes }: ApiPod, view: RuntimeView): boolean {
  if (kubernetes.isDeleting || kubernetes.phase === 'Succeeded' || kubernetes.phase === 'Failed') return false;
  return containerNames.some((name) => {
    const state = latest(view, name)?.state;
    return state === undefined || state === 'created' || state === 'unknown';
  });
}

/**
 * The names that kubelet says are ready, without those whose container was started again since: the new one, which the runtime already
 * has, has not passed its probe.
 */
export function readyNow({ kubernetes, published }: ApiPod, view: RuntimeView): string[] {
  return kubernetes.ready.filter((name) => {
    const id = latest(view, name)?.id;
    return id !== undefined && published.some((one) => one.id === id && one.isRunning);
  });
}

function latest({ containers }: RuntimeView, name: string): ContainerView | undefined {
  return containers.filter((container) => container.name === name).at(-1);
}

function containerView(container: RuntimeContainer): ContainerView {
  const states = { CONTAINER_CREATED: 'created', CONTAINER_RUNNING: 'running', CONTAINER_EXITED: 'exited' } as const;
  return {
    name: container.labels[KUBELET_LABELS.containerName] ?? container.metadata.name,
    id: container.id,
    state: states[container.state as keyof typeof states] ?? 'unknown',
    attempt: container.metadata.attempt,
  };
}
