import { type Answer, connectTo, type TestClient, type Watch } from '../../flow/grpc/client.ts';
import type { Agent } from '../environment/agent.ts';
import { Cluster } from '../environment/cluster.ts';
import type { Container } from '../environment/container.ts';
import { IMAGES } from '../environment/images.ts';
import type { ContainerRequest, Pod, PodRequest } from '../environment/pod.ts';
import { freshName } from '../scenario.ts';

/** A container that no label and no annotation asks anything for, and how a call names it. */
export interface Plain {
  readonly pod: Pod;
  readonly container: Container;
  readonly target: { readonly namespace: string; readonly pod: string; readonly container: string };
}

export type PlainRequest = Partial<ContainerRequest> & { readonly pod?: Partial<PodRequest> };

/** A node with the built agent, and a plain client of its gRPC service. */
export class ApiNode {
  readonly cluster: Cluster;
  readonly agent: Agent;
  #client: TestClient | undefined;

  private constructor(cluster: Cluster, agent: Agent) {
    this.cluster = cluster;
    this.agent = agent;
  }

  /** `prepare` is called with the cluster before the agent starts, and adds to how that is started. */
  static async start(
    prepare: (cluster: Cluster) => Promise<Parameters<Cluster['startAgent']>[0]> = () => Promise.resolve({}),
  ): Promise<ApiNode> {
    const cluster = await Cluster.start();
    try {
      const node = new ApiNode(cluster, await cluster.startAgent(await prepare(cluster)));
      await node.#served(0);
      return node;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** A client of the unix socket. A new one after each start of the agent: the old one's connection would be tried again only after a while. */
  get api(): TestClient {
    this.#client ??= this.connect();
    return this.#client;
  }

  connect(): TestClient {
    return connectTo(`unix:${this.agent.apiSocket}`, undefined, { 'grpc.use_local_subchannel_pool': 1 });
  }

  async #served(from: number): Promise<void> {
    await this.agent.waitForLog('its gRPC service', (line) => line['msg'] === 'started', { from });
  }

  /** Ends the agent where it is still there, and starts it again with what it left. */
  async startAgain(signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<void> {
    await this.agent.end(signal);
    this.#client?.close();
    this.#client = undefined;
    const from = this.agent.logs().length;
    await this.agent.start();
    await this.#served(from);
  }

  /** Ends everything; what is left then, in words. */
  async stop(): Promise<string[]> {
    this.#client?.close();
    await this.cluster.stop();
    return this.cluster.leftovers();
  }

  /** Runs a container that nothing asks for, and waits until its workload is set up. */
  async runPlain(request: PlainRequest & Pick<ContainerRequest, 'command'>): Promise<Plain> {
    const plain = await this.#run(request, (pod) => pod.run({ image: IMAGES.placeholder, control: false, ...request }));
    await plain.container.ready();
    return plain;
  }

  /** Runs a placeholder that nothing asks for. */
  async runPlaceholder(request: PlainRequest = {}): Promise<Plain> {
    return await this.#run(request, (pod) => pod.runPlaceholder({ control: false, ...request }));
  }

  async #run(request: PlainRequest, run: (pod: Pod) => Promise<Container>): Promise<Plain> {
    const pod = await this.cluster.runPod({ name: freshName('plain'), ...request.pod });
    const container = await run(pod);
    return { pod, container, target: { namespace: pod.namespace, pod: pod.name, container: container.name } };
  }

  /** Starts an operation on a container; answers with the operation as it was accepted. */
  async begin(kind: 'Checkpoint' | 'Restore', { target }: Pick<Plain, 'target'>, more: object = {}): Promise<Answer> {
    return await this.api.ask(kind, { ...freshIds(), target, wait_seconds: 60, ...more });
  }

  /** Follows an operation to its end. */
  async end(operation: string): Promise<Answer> {
    const watch = this.api.watch('WatchOperation', { name: operation });
    const error = await watch.ended;
    if (error !== undefined) throw error;
    return watch.seen.at(-1);
  }

  /** Performs an operation, which must succeed. */
  async perform(...request: Parameters<ApiNode['begin']>): Promise<Answer> {
    const { name } = await this.begin(...request);
    return this.requireSuccess(await this.end(name));
  }

  requireSuccess(operation: Answer): Answer {
    if (operation.result === 'response') return operation;
    const said = this.agent.logs().filter((line) => line['operationId'] === operation.name);
    throw new Error(`${operation.error?.message}\n${said.map((line) => JSON.stringify(line)).join('\n')}`);
  }

  /** Checkpoints a container of its own and removes it; what is restored from it is given as `checkpoint_id`. */
  async makeArtifact(request: PlainRequest & Pick<ContainerRequest, 'command'>): Promise<string> {
    const source = await this.runPlain(request);
    const { response } = await this.perform('Checkpoint', source);
    await source.pod.remove();
    return response.checkpoint_id;
  }
}

function freshIds() {
  return { request_id: freshName('request'), checkpoint_id: freshName('checkpoint') };
}

/** The steps that a watch showed, in the order in which it did; each as often as it came anew. */
export function stepsSeen({ seen }: Pick<Watch, 'seen'>): string[] {
  const steps: string[] = seen.map(({ metadata }) => metadata.step);
  return steps.filter((step, index) => step !== '' && step !== steps[index - 1]);
}

/** The steps of a finished operation, with their times. */
export function stepsOf(operation: Answer): string[] {
  return operation.metadata.timings.map(({ step }: { step: string }) => step);
}
