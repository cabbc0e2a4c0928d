/** One container of a pod as the runtime lists it. */
export interface ContainerView {
  readonly name: string;
  readonly id: string;
  readonly state: 'created' | 'running' | 'exited' | 'unknown';
  /** How often the container was restarted in this pod. */
  readonly attempt: number;
}

/** A container of a pod that ended with another status than 0. */
export interface FailedContainer {
  readonly name: string;
  readonly exitCode: number;
  readonly reason: string;
}

/** Where a container mounts a persistent volume claim, as its pod's specification says. */
export interface ClaimMount {
  readonly container: string;
  readonly mountPath: string;
  readonly claim: string;
}

/** What only the Kubernetes API knows of a pod. */
export interface KubernetesFacts {
  readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';
  readonly isDeleting: boolean;
  /** Names of the containers that kubelet says are ready. */
  readonly ready: readonly string[];
  readonly failed: readonly FailedContainer[];
  /** The Job that owns the pod, by name and uid. */
  readonly job: { readonly name: string; readonly uid: string } | undefined;
  readonly claimMounts: readonly ClaimMount[];
}

/** A pod of this node, the same shape wherever it was learned: from the container runtime or from the Kubernetes API. */
export interface PodView {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** Empty where the runtime does not have the pod yet. */
  readonly sandboxId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly containers: readonly ContainerView[];
  /** Absent where pods come from the runtime alone. */
  readonly kubernetes?: KubernetesFacts;
}
