/** One container of a pod as the runtime lists it. */
export interface ContainerView {
  readonly name: string;
  readonly id: string;
  readonly state: 'created' | 'running' | 'exited' | 'unknown';
  /** How often the container was restarted in this pod. */
  readonly attempt: number;
}

/** A pod of this node, the same shape wherever it was learned: from the container runtime or from the Kubernetes API. */
export interface PodView {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly sandboxId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly containers: readonly ContainerView[];
}
