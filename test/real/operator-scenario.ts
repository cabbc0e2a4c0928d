import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { LABELS } from '../../contract/keys.ts';
import { SECCOMP_PROFILE } from '../../contract/seccomp.ts';
import { only, render } from '../chart/render.ts';
import { ADMIN } from '../fakes/kube-api/access.ts';
import { readDefinitions } from '../fakes/kube-api/crds.ts';
import { runDeployments } from '../fakes/kube-api/deployment-controller.ts';
import type { Json, KubeObject } from '../fakes/kube-api/resources.ts';
import { type Agent, type AgentRequest, merged, type Tree } from './environment/agent.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import type { Cluster } from './environment/cluster.ts';
import { runJobs, schedule } from './environment/controllers.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import { Operator } from './environment/operator.ts';
import { keyOf, NAMESPACE } from './kubernetes-scenario.ts';
import { credentials, putAgents, SYSTEM } from './operator-agents.ts';
import { jsonpath } from './operator-samples.ts';
import { WITHOUT_IO_URING } from './snapshotctl-scenario.ts';

const LEASE = `${SYSTEM}/snapshot-operator`;
export const WEBHOOK_SERVICE = `${SYSTEM}/snapshot-operator-webhook`;
export const WEBHOOK_SECRET = `${SYSTEM}/snapshot-operator-webhook`;
const TOKEN = 'token-of-the-operator';
/** How the podMount claim is called, and what the operator is told of it. */
export const CLAIM = 'snapshot-pvc';
const CHART_VALUES = {
  agentMount: {},
  podMount: {
    storage: { accessMode: 'podMount', pvc: { create: true, name: CLAIM, basePath: '/checkpoints', size: '1Gi' } },
  },
};

type AccessMode = 'agentMount' | 'podMount';

interface OperatedRequest {
  readonly accessMode?: AccessMode;
  /** Whether the operator can call the agents; where it cannot, annotations alone must do. */
  readonly areAgentsCalled?: boolean;
  /** Of the operator. */
  readonly config?: Tree;
  /** How the agent is started besides. */
  readonly agent?: (cluster: Cluster) => Promise<Pick<AgentRequest, 'config' | 'binds'>>;
}

/**
 * A cluster of one node with agent and operator, both as built, and what else is in every cluster: scheduler, controllers of Jobs and
 * Deployments, garbage collector, and the webhook's configuration as the chart has it.
 */
export class OperatedCluster {
  readonly kube: KubeNode;
  readonly agent: Agent;
  readonly #config: Tree;
  readonly #operators: Operator[] = [];
  readonly #stops: (() => void)[] = [];
  /** The uids of all pods in the order of their creation, which their own times do not tell within a second. */
  readonly #seen: string[] = [];

  private constructor(kube: KubeNode, agent: Agent, config: Tree) {
    [this.kube, this.agent, this.#config] = [kube, agent, config];
    const see = ({ metadata: { uid } }: KubeObject) => this.#seen.includes(uid) || this.#seen.push(uid);
    this.#stops.push(kube.api.onChange('pods', see), schedule(kube), runJobs(kube), runDeployments(kube.api));
  }

  static async start(request: OperatedRequest = {}): Promise<OperatedCluster> {
    const { accessMode = 'agentMount', areAgentsCalled = true, config = {} } = request;
    const kube = await KubeNode.start({ definitions: readDefinitions(), collectsGarbage: true });
    kube.api.tokens.set(TOKEN, ADMIN);
    const { directory } = kube.cluster;
    const profile = join(directory, 'block-iouring.json');
    await writeFile(profile, JSON.stringify(WITHOUT_IO_URING));
    kube.profiles.set(SECCOMP_PROFILE, profile);
    kube.claims.set(CLAIM, kube.cluster.volume.hostPath);
    const { agents, agentConfig, binds } = await credentials(directory);
    const more = await request.agent?.(kube.cluster);
    const agent = await kube.startAgent({
      accessMode,
      config: merged(agentConfig, more?.config ?? {}),
      binds: [...binds, ...(more?.binds ?? [])],
    });
    await becomesReadyToWork(agent);
    putAgents(kube, accessMode, areAgentsCalled);
    const release = render({
      operator: { enabled: true },
      rbac: { namespaceRestricted: false },
      ...CHART_VALUES[accessMode],
    });
    kube.api.put(only(release, 'MutatingWebhookConfiguration') as never);
    const kubeconfig = await kube.api.writeKubeconfig(join(directory, 'operator'), TOKEN);
    const { data } = only(release, 'ConfigMap', 'snapshot-operator') as unknown as { data: { 'config.yaml': string } };
    const own = {
      ...{ agents, graph: { settleSeconds: 0 }, leaderElection: { leaseSeconds: 5 } },
      kubernetes: { kubeconfig, namespace: SYSTEM },
    };
    const all = [own, config].reduce<Tree>(merged, parse(data['config.yaml']) as Tree);
    return new OperatedCluster(kube, agent, all);
  }

  get api() {
    return this.kube.api;
  }

  /** The one that was started last. */
  get operator(): Operator {
    const last = this.#operators.at(-1);
    if (last === undefined) throw new Error('no operator was started');
    return last;
  }

  /** One replica more; the webhook's Service leads to it. */
  async startOperator(config: Tree = {}): Promise<Operator> {
    const directory = join(this.kube.cluster.directory, `operator-${this.#operators.length + 1}`);
    const operator = await Operator.start(directory, merged(this.#config, config));
    this.#operators.push(operator);
    this.api.services.set(WEBHOOK_SERVICE, operator.webhookPort);
    return operator;
  }

  /** Waits until it leads, and until pods are asked about and the answer is trusted. */
  async isUp(): Promise<void> {
    await eventually('that the operator leads', () => this.operator.leads || undefined, this.#explained());
    await eventually(
      'that the webhook is trusted',
      () => {
        const [configuration] = this.api.list('mutatingwebhookconfigurations');
        const [hook] = (configuration?.['webhooks'] ?? []) as Json[];
        return (hook?.['clientConfig'] as Json | undefined)?.['caBundle'] ? true : undefined;
      },
      this.#explained(),
    );
    const isReady = async () => ((await this.operator.unready()).length === 0 ? true : undefined);
    await eventually('that the operator is ready', isReady, this.#explained());
  }

  /** As `kubectl apply` of an object that is not there. */
  apply(object: Json & { readonly kind: string; readonly metadata: Json }): KubeObject {
    const { name } = object.metadata as { name: string };
    return this.api.put({ ...object, metadata: { ...object.metadata, name, namespace: NAMESPACE } });
  }

  checkpoint(name: string): KubeObject | undefined {
    return this.api.get('dynamocheckpoints', keyOf(name));
  }

  graph(name: string): KubeObject | undefined {
    return this.api.get('dynamographdeployments', keyOf(name));
  }

  /** Waits until a DynamoCheckpoint is in a phase; answers its status. */
  async phase(name: string, phase: string): Promise<Json> {
    return await this.waitFor(`DynamoCheckpoint ${name} to be ${phase}`, () => {
      const status = this.checkpoint(name)?.status;
      return status?.['phase'] === phase ? status : undefined;
    });
  }

  /** What the inspection commands of the original print of a graph: name, id, and whether it is ready. */
  inspected(graph: string): string[] {
    const of = (field: string) => `{.status.checkpoints.SampleWorker.${field}}{"\\n"}`;
    return jsonpath(this.graph(graph), of('checkpointName') + of('checkpointID') + of('ready')).split('\n');
  }

  /** Waits until the checkpoint of the present generation is ready; answers its name and id. `besides`: the id of the one before. */
  async checkpointed(graph: string, besides?: string): Promise<{ readonly name: string; readonly id: string }> {
    return await this.waitFor(`the checkpoint of ${graph}`, () => {
      const [name = '', id = '', isReady] = this.inspected(graph);
      return isReady === 'true' && id !== besides ? { name, id } : undefined;
    });
  }

  /** The Jobs of an id, in whatever state. */
  jobs(id: string): KubeObject[] {
    return this.api.list('jobs').filter(({ metadata }) => metadata.labels?.[LABELS.checkpointId] === id);
  }

  /** The pods of a service that are there and stay, oldest first. */
  pods(graph: string, service = 'SampleWorker'): KubeObject[] {
    return this.api
      .list('pods')
      .filter(({ metadata: { labels = {}, ownerReferences = [], deletionTimestamp } }) => {
        const isOf = labels[LABELS.graph] === graph && labels[LABELS.component] === service;
        // The pod of a checkpoint Job has the same labels.
        return isOf && ownerReferences[0]?.['kind'] === 'Deployment' && deletionTimestamp === undefined;
      })
      .sort((a, b) => this.#seen.indexOf(a.metadata.uid) - this.#seen.indexOf(b.metadata.uid));
  }

  /** Waits until a service has so many pods, all of them ready; answers their names. */
  async ready(graph: string, count: number, service = 'SampleWorker'): Promise<string[]> {
    return await this.waitFor(`${count} ready pods of ${service}`, () => {
      const pods = this.pods(graph, service);
      return pods.length === count && pods.every(isReady) ? pods.map(({ metadata }) => metadata.name) : undefined;
    });
  }

  async waitFor<T>(what: string, ask: () => T | undefined): Promise<T> {
    return await eventually(what, ask, this.#explained());
  }

  /** Whether an artifact lies on the volume. */
  hasArtifact(id: string, version = '1'): boolean {
    return existsSync(join(this.kube.cluster.volume.hostPath, id, 'versions', version, 'manifest.yaml'));
  }

  /** So long passes that the lease of a dead leader runs out. */
  runOutLease(): void {
    this.api.remove('leases', LEASE);
  }

  async stop(): Promise<void> {
    for (const operator of this.#operators) await operator.end('SIGKILL');
    for (const stop of this.#stops) stop();
    const isEnding = ({ metadata }: KubeObject) => metadata.deletionTimestamp !== undefined;
    // The runtime does not take it well that two end the same pod.
    const left = () => (this.api.list('pods').some(isEnding) ? undefined : true);
    await eventually('the end of the pods that are being deleted', left).catch(() => undefined);
    await this.kube.stop();
  }

  #explained() {
    const seen = () =>
      (['dynamocheckpoints', 'dynamographdeployments', 'jobs', 'deployments', 'pods'] as const)
        .flatMap((kind) => this.api.list(kind))
        .map(({ kind, metadata: { name, annotations }, status }) => JSON.stringify({ kind, name, annotations, status }))
        .join('\n');
    const said = () =>
      this.api
        .calls({ where: ({ userAgent }) => userAgent.startsWith('snapshot-operator') })
        .slice(-40)
        .map(
          ({ verb, resource, name, status, atMs }) =>
            `${new Date(atMs).toISOString()} ${verb} ${resource} ${name} ${status}`,
        )
        .join('\n');
    return { timeoutMs: 30_000, explain: () => `${seen()}\n${said()}\n${this.operator.lastLines()}` };
  }
}

function isReady({ status }: KubeObject): boolean {
  const conditions = (status?.['conditions'] ?? []) as { type: string; status: string }[];
  return conditions.some(({ type, status: value }) => type === 'Ready' && value === 'True');
}
