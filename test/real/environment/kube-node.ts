/**
 * Nodes of a Kubernetes of which the API server is a fake, and the pods and the agents are real. Whoever puts a Pod object onto one of the
 * nodes gets a pod in the container runtime, with the object's uid, labels and annotations; its containers are probed, started again by
 * their restart policy, mirrored into the object's status, and ended when the object is deleted. The Job of a pod ends with it.
 *
 * ```ts
 * const kube = await KubeNode.start();                         // the shipped RBAC rules hold
 * const agent = await kube.startAgent();                       // of node-1
 * const other = await kube.startAgent({ nodeName: 'node-2' });
 * kube.api.put({ kind: 'Pod', metadata, spec: { nodeName: 'node-1', containers: [...] } });
 * await kube.container('default/web', 'main');                 // the real one
 * kube.holdReports(); kube.releaseReports();                   // kubelet is late with the status
 * await kube.stop();
 * ```
 */
import { join } from 'node:path';
import { completeJob, failJob } from '../../fakes/kube-api/job-controller.ts';
import { FakeKubelet } from '../../fakes/kube-api/kubelet.ts';
import type { KubeObject } from '../../fakes/kube-api/resources.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../fakes/kube-api/server.ts';
import { askedFor, grantsOf, readRbac } from '../../fakes/kube-api/shipped-roles.ts';
import type { Agent, AgentRequest } from './agent.ts';
import { Cluster } from './cluster.ts';
import type { Container } from './container.ts';
import { eventually } from './host.ts';
import { KubeletPod } from './kubelet-pod.ts';
import type { Pod } from './pod.ts';
import { specOf } from './pod-object.ts';

export const NODE = 'node-1';

type AgentOnNode = Parameters<Cluster['startAgent']>[0] & { readonly nodeName?: string };

export class KubeNode {
  readonly cluster: Cluster;
  readonly api: KubeApi;
  readonly kubelet: FakeKubelet;
  /** Where claims are on this machine: `checkpoints` is the cluster's volume. */
  readonly claims: Map<string, string>;
  /** Where seccomp profiles are on this machine, by the names that pods call them. */
  readonly profiles = new Map<string, string>();
  readonly #pods = new Map<string, KubeletPod>();
  readonly #ending = new Set<string>();
  readonly #problems: unknown[] = [];
  #isHeld = false;

  private constructor(cluster: Cluster, api: KubeApi) {
    this.cluster = cluster;
    this.api = api;
    this.kubelet = new FakeKubelet(api);
    this.claims = new Map([['checkpoints', cluster.volume.hostPath]]);
    api.onChange('pods', (pod, isDeleted) => {
      // Not within the write that told of it.
      setImmediate(() => this.#changed(pod, isDeleted));
    });
  }

  /** Whoever calls the API may do what the shipped manifest for all namespaces allows, unless `options` says otherwise. */
  static async start(options: KubeApiOptions = {}): Promise<KubeNode> {
    const { roles } = readRbac();
    const [cluster, api] = await Promise.all([Cluster.start(), startKubeApi({ roles, ...options })]);
    return new KubeNode(cluster, api);
  }

  /** Starts an agent that follows the pods of a node. Each node has an agent with a state of its own. */
  async startAgent({ nodeName = NODE, ...request }: AgentOnNode = {}): Promise<Agent> {
    const kubeconfig = await this.api.writeKubeconfig(join(this.cluster.sharedDirectory, 'kube'));
    const { watch, kubernetes, ...config } = (request.config ?? {}) as Record<string, object>;
    return this.cluster.startAgent({
      stateName: nodeName,
      ...request,
      config: {
        nodeName,
        watch: { source: 'kubernetes', ...watch },
        kubernetes: { kubeconfig, ...kubernetes },
        ...config,
      } satisfies AgentRequest['config'],
    });
  }

  /** The real pod of an object, once its sandbox is up. The key is `namespace/name`, here and below. */
  async pod(key: string): Promise<Pod> {
    return this.#await(`pod ${key}`, () => this.#podOf(key)?.pod);
  }

  /** The real container of this name, once it was started. */
  async container(key: string, name = 'main'): Promise<Container> {
    return this.#await(`container ${name} of pod ${key}`, () => this.#podOf(key)?.container(name));
  }

  /** From now on kubelet writes no status of any pod. */
  holdReports(): void {
    this.#isHeld = true;
  }

  releaseReports(): void {
    this.#isHeld = false;
  }

  /** Deletes a pod, and waits until it is gone. */
  async deletePod(key: string): Promise<void> {
    this.api.delete('pods', key);
    await this.#await(`the end of pod ${key}`, () => (this.api.get('pods', key) === undefined ? true : undefined));
  }

  /** Ends everything. Throws what went wrong while it stood in for kubelet, and where an agent asked for what no shipped rule allows. */
  async stop(): Promise<void> {
    this.api.heal();
    await Promise.all([...this.#pods.values()].map((pod) => pod.halt().catch(() => undefined)));
    await this.cluster.stop();
    await this.api.close();
    const allowed = grantsOf(readRbac().roles);
    const beyond = askedFor(this.api.calls()).filter((call) => !allowed.includes(call));
    if (beyond.length > 0) this.#problems.push(new Error(`calls that no rule allows: ${beyond.join(', ')}`));
    if (this.#problems.length > 0) throw new AggregateError(this.#problems, 'the stand-in for kubelet failed');
  }

  #podOf(key: string): KubeletPod | undefined {
    const uid = this.api.get('pods', key)?.metadata.uid;
    return uid === undefined ? undefined : this.#pods.get(uid);
  }

  async #await<T>(what: string, ask: () => T | undefined): Promise<T> {
    return await eventually(what, () => {
      const allowed = grantsOf(readRbac().roles);
      const beyond = askedFor(this.api.calls()).filter((call) => !allowed.includes(call));
      if (beyond.length > 0) this.#problems.push(new Error(`calls that no rule allows: ${beyond.join(', ')}`));
      if (this.#problems.length > 0) throw this.#problems[0];
      return ask();
    });
  }

  #changed(pod: KubeObject, isDeleted: boolean): void {
    const { uid, deletionTimestamp, labels = {} } = pod.metadata;
    // That of an agent stands for the one that runs beside the node.
    if (labels['app.kubernetes.io/component'] === 'snapshot-agent') return;
    const known = this.#pods.get(uid);
    if (isDeleted || deletionTimestamp !== undefined) this.#once(`${uid} deleted`, () => this.#end(pod, known));
    else if (known === undefined && specOf(pod).nodeName !== undefined) this.#run(pod);
    else this.#endJob(pod);
  }

  #run(pod: KubeObject): void {
    const { cluster, kubelet, claims, profiles } = this;
    const running = new KubeletPod({ cluster, kubelet, claims, profiles, mayReport: () => !this.#isHeld }, pod);
    this.#pods.set(pod.metadata.uid, running);
    this.#note(running.running);
  }

  async #end({ metadata: { uid, namespace, name } }: KubeObject, pod: KubeletPod | undefined): Promise<void> {
    const codes = (await pod?.end()) ?? {};
    const key = `${namespace}/${name}`;
    // What holds a pod of a Job is its controller, which lets a pod go that is deleted.
    if (this.api.get('pods', key)?.metadata.uid !== uid) return;
    this.api.patch('pods', key, { metadata: { finalizers: null } });
    this.kubelet.end(key, codes);
  }

  /** As the Job controller: a Job of one pod, without another try. */
  #endJob({ metadata: { uid, namespace, name, ownerReferences = [] }, status }: KubeObject): void {
    const phase = status?.['phase'];
    const job = ownerReferences.find(({ kind }) => kind === 'Job')?.['name'];
    if (typeof job !== 'string' || (phase !== 'Succeeded' && phase !== 'Failed')) return;
    const end = phase === 'Succeeded' ? completeJob : failJob;
    this.#once(`${uid} ended`, () => {
      if (this.api.get('jobs', `${namespace}/${job}`) !== undefined) end(this.api, `${namespace}/${job}`, name);
      return Promise.resolve();
    });
  }

  #once(what: string, work: () => Promise<void>): void {
    if (this.#ending.has(what)) return;
    this.#ending.add(what);
    this.#note(work());
  }

  /** A defect of the environment must not look like one of the agent. */
  #note(work: Promise<void>): void {
    work.catch((error: unknown) => this.#problems.push(error));
  }
}
