import { mkdtemp } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ANNOTATIONS, KUBELET_LABELS, LABELS } from '../contract/keys.ts';
import { type FakeCri, fakePod, makeCri } from '../test/fakes/cri-server.ts';
import { FakeKubelet } from '../test/fakes/kube-api/kubelet.ts';
import { type KubeApi, startKubeApi } from '../test/fakes/kube-api/server.ts';
import type { Agent } from '../test/real/environment/agent.ts';
import type { Cluster } from '../test/real/environment/cluster.ts';
import type { Container } from '../test/real/environment/container.ts';
import { eventually } from '../test/real/environment/host.ts';
import { IMAGES } from '../test/real/environment/images.ts';
import type { AgentAddress } from './process-figures.ts';
import { workerCommand } from './worker.ts';

const NODE = 'crowded-node';
const NAMESPACE = 'team';
/** With so many environment variables a pod object has the 10 KiB that usual ones have. */
const ENVIRONMENT = Array.from({ length: 60 }, (_, n) => ({
  name: `WORKER_SETTING_${n}`,
  value: `/models/some-model-of-a-usual-name/revision-${n}/weights-and-tokenizer`,
}));
const TIMEOUT_MS = 120_000;

/** A pod of the node, in the API and in the runtime. */
export interface CrowdPod {
  readonly name: string;
  readonly uid: string;
  readonly containerId: string;
  readonly kind: Kind;
}

/** A checkpoint source that still loads, or a restore target whose artifact is not there. */
type Kind = 'source' | 'target';

/** A pod that runs for real. */
interface RealPod {
  readonly pod: CrowdPod;
  readonly container: Container;
  end(): Promise<void>;
}

interface Parts {
  readonly api: KubeApi;
  readonly cri: FakeCri;
  readonly agent: Agent;
  readonly address: AgentAddress;
  /** Host PID of the process behind the containers. */
  readonly pid: number;
}

/**
 * A node with more pods than this machine could run. API server, kubelet and container runtime are fakes behind real sockets; the agent
 * is the one that was built. All pods but those of `addReal` share one real process, so that the agent finds a process to pin.
 */
export class CrowdedNode {
  readonly agent: Agent;
  readonly address: AgentAddress;
  /** Pods of the node now. */
  readonly pods = new Map<string, CrowdPod>();
  readonly #cluster: Cluster;
  readonly #api: KubeApi;
  readonly #kubelet: FakeKubelet;
  readonly #cri: FakeCri;
  readonly #pid: number;
  /** By container: when the API server wrote that its pod is ready, and when its operation first asked the runtime. */
  readonly #writtenAtMs = new Map<string, number>();
  readonly #begunAtMs = new Map<string, number>();

  private constructor(cluster: Cluster, parts: Parts) {
    this.#cluster = cluster;
    this.#api = parts.api;
    this.#cri = parts.cri;
    this.agent = parts.agent;
    this.address = parts.address;
    this.#pid = parts.pid;
    this.#kubelet = new FakeKubelet(parts.api);
    this.#cri.onStatus = (id) => {
      if (this.#writtenAtMs.has(id) && !this.#begunAtMs.has(id)) this.#begunAtMs.set(id, performance.now());
    };
  }

  static async start(cluster: Cluster): Promise<CrowdedNode> {
    const api = await startKubeApi({ historyLimit: 2_000 });
    const cri = await makeCri(cluster.directory);
    // It shares its pod's PID namespace: a checkpoint of it is refused after the first steps, which are all that is measured.
    const pod = await cluster.runPod({ name: 'crowd', sharePid: true });
    const idle = { image: IMAGES.placeholder, command: ['/bin/sleep', 'infinity'], control: false };
    const pid = await (await pod.run(idle)).pid();
    const directory = await mkdtemp(join(cluster.directory, 'kubeconfig-'));
    const agent = await cluster.startAgent({
      stateName: NODE,
      binds: [directory, dirname(cri.socketPath)].map((path) => `${path}:${path}`),
      config: {
        nodeName: NODE,
        logLevel: 'info',
        runtime: { socketPath: cri.socketPath },
        watch: { source: 'kubernetes' },
        kubernetes: { kubeconfig: await api.writeKubeconfig(directory) },
      },
    });
    await agent.waitForLog('the start', ({ msg }) => msg === 'started');
    const { port } = await agent.waitForLog('its port', ({ msg }) => msg === 'metrics and health are served');
    const address = { pid: agent.pid ?? Number.NaN, port: Number(port) };
    return new CrowdedNode(cluster, { api, cri, agent, address, pid });
  }

  add(name: string, kind: Kind): CrowdPod {
    const uid = this.#put(name, kind);
    const container = {
      labels: { [KUBELET_LABELS.containerName]: 'main' },
      info: JSON.stringify({ pid: this.#pid, runtimeSpec: { process: {} } }),
    };
    return this.#run({ name, uid, kind }, fakePod(uid, { container }));
  }

  /** A checkpoint source that runs for real: the fake runtime says of it what the real one does. */
  async addReal(name: string): Promise<RealPod> {
    const real = await this.#cluster.runPod({ name, namespace: NAMESPACE });
    const container = await real.run({ image: IMAGES.placeholder, command: workerCommand(16) });
    await container.ready();
    const { info } = await container.status();
    const { sandboxId, ip } = real;
    const uid = this.#put(name, 'source', real.uid);
    const pod = this.#run(
      { name, uid, kind: 'source' },
      fakePod(uid, {
        sandbox: { id: sandboxId, ips: [ip] },
        container: {
          id: container.id,
          pod_sandbox_id: sandboxId,
          labels: { [KUBELET_LABELS.containerName]: 'main' },
          info: JSON.stringify(info),
        },
      }),
    );
    const end = async () => {
      this.remove(pod);
      await real.remove();
    };
    return { pod, container, end };
  }

  becomeReady({ name, containerId }: CrowdPod): void {
    this.#writtenAtMs.set(containerId, performance.now());
    this.#kubelet.report(`${NAMESPACE}/${name}`, [{ name: 'main', state: 'running', id: containerId, isReady: true }]);
  }

  /** Milliseconds from the API server's word that the pod is ready to the first question of its operation, when it has come. */
  async reaction({ name, containerId }: CrowdPod): Promise<number> {
    const took = () => {
      const begunAtMs = this.#begunAtMs.get(containerId);
      return begunAtMs === undefined ? undefined : begunAtMs - (this.#writtenAtMs.get(containerId) ?? Number.NaN);
    };
    return eventually(`the operation on ${name} to begin`, took, { everyMs: 5, timeoutMs: TIMEOUT_MS });
  }

  /** Something changes that is none of the agent's business. */
  annotate({ name }: CrowdPod, note: string): void {
    this.#api.patch('pods', `${NAMESPACE}/${name}`, { metadata: { annotations: { 'example.com/note': note } } });
  }

  remove({ name, uid, containerId }: CrowdPod): void {
    this.#api.remove('pods', `${NAMESPACE}/${name}`);
    this.#cri.drop(uid);
    this.#cri.emit(uid);
    this.pods.delete(name);
    this.#writtenAtMs.delete(containerId);
    this.#begunAtMs.delete(containerId);
  }

  async stop(): Promise<void> {
    await this.agent.end();
    await this.#api.close();
    await this.#cri.remove();
  }

  #put(name: string, kind: Kind, uid?: string): string {
    const role = kind === 'source' ? LABELS.checkpointSource : LABELS.restoreTarget;
    const labels = { [LABELS.checkpointId]: name, [role]: 'true' };
    const annotations = { [ANNOTATIONS.targetContainers]: 'main' };
    const metadata = { name, namespace: NAMESPACE, labels, annotations, ...(uid === undefined ? {} : { uid }) };
    const containers = [{ name: 'main', image: 'registry/worker:1', env: ENVIRONMENT }];
    return this.#api.put({ kind: 'Pod', metadata, spec: { nodeName: NODE, containers } }).metadata.uid;
  }

  #run(known: Omit<CrowdPod, 'containerId'>, made: ReturnType<typeof fakePod>): CrowdPod {
    const pod = { ...known, containerId: made.container.id };
    this.#cri.put(made);
    this.#cri.emit(pod.uid);
    this.#kubelet.run(`${NAMESPACE}/${pod.name}`, { main: pod.containerId }, { isReady: false });
    this.pods.set(pod.name, pod);
    return pod;
  }
}
