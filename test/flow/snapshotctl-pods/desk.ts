import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { SECCOMP_PROFILE } from '../../../contract/seccomp.ts';
import { runSnapshotctl } from '../../../snapshotctl/cli.ts';
import type { Terminal } from '../../../snapshotctl/terminal.ts';
import { FakeKubelet } from '../../fakes/kube-api/kubelet.ts';
import type { Json, KubeObject } from '../../fakes/kube-api/resources.ts';
import { type KubeApi, startKubeApi } from '../../fakes/kube-api/server.ts';

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface How {
  /** Somebody watches. */
  readonly isTerminal?: boolean;
  readonly signal?: AbortSignal;
  /** Called with what was written to standard error so far. */
  readonly onErr?: (text: string) => void;
}

/** A person's desk: a kubeconfig of a cluster that is a fake, files, and `snapshotctl`. */
export class Desk {
  readonly api: KubeApi;
  readonly kubelet: FakeKubelet;
  readonly directory: string;
  readonly #kubeconfig: string;

  private constructor(api: KubeApi, directory: string, kubeconfig: string) {
    this.api = api;
    this.kubelet = new FakeKubelet(api);
    this.directory = directory;
    this.#kubeconfig = kubeconfig;
  }

  static async open(): Promise<Desk> {
    const api = await startKubeApi();
    const directory = await mkdtemp(join(tmpdir(), 'snapshotctl-pods-'));
    return new Desk(api, directory, await api.writeKubeconfig(directory));
  }

  async close(): Promise<void> {
    await this.api.close();
    await rm(this.directory, { recursive: true });
  }

  /** Writes a file; answers its path. */
  async file(name: string, content: object | string): Promise<string> {
    const path = join(this.directory, name);
    await writeFile(path, typeof content === 'string' ? content : stringify(content));
    return path;
  }

  /** The manifest of a worker. */
  manifest(over: { readonly metadata?: Json; readonly container?: Json; readonly spec?: Json } = {}): Promise<string> {
    const containers = [{ name: 'main', image: 'worker:1', ...over.container }];
    const metadata = { name: 'worker', ...over.metadata };
    return this.file('pod.yaml', { apiVersion: 'v1', kind: 'Pod', metadata, spec: { containers, ...over.spec } });
  }

  async snapshotctl(args: readonly string[], { isTerminal = false, signal, onErr }: How = {}): Promise<Ran> {
    const written = { out: '', err: '' };
    const stream = (name: keyof typeof written) => ({
      write: (text: string) => {
        written[name] += text;
        if (name === 'err') onErr?.(written.err);
      },
      isTerminal,
      columns: 80,
      hasColors: false,
    });
    const terminal: Pick<Terminal, 'out' | 'err' | 'env' | 'signal'> = {
      out: stream('out'),
      err: stream('err'),
      env: { KUBECONFIG: this.#kubeconfig },
      signal: signal ?? new AbortController().signal,
    };
    const code = await runSnapshotctl(args, terminal as Terminal);
    return { code, ...written };
  }

  /** Does something about each object of a kind that is created from now on, after the write. */
  onCreated(kind: 'jobs' | 'pods', then: (object: KubeObject) => void): void {
    const seen = new Set(this.api.list(kind).map(({ metadata }) => metadata.uid));
    this.api.onChange(kind, (object, isDeleted) => {
      if (isDeleted || seen.has(object.metadata.uid)) return;
      seen.add(object.metadata.uid);
      setImmediate(() => then(object));
    });
  }

  /** What the agent writes onto an object. */
  annotate(kind: 'jobs' | 'pods', { metadata: { namespace, name } }: KubeObject, annotations: Json): void {
    this.api.patch(kind, `${namespace}/${name}`, { metadata: { annotations } });
  }

  /** What the agent says about a pod. */
  say({ metadata: { namespace, name, uid } }: KubeObject, reason: string, message: string): void {
    this.api.put({
      kind: 'Event',
      metadata: { name: `${name}.${reason}`, namespace },
      involvedObject: { kind: 'Pod', namespace, name, uid, fieldPath: 'spec.containers{main}' },
      source: { component: 'snapshot' },
      type: reason.endsWith('Failed') ? 'Warning' : 'Normal',
      reason,
      message,
    });
  }

  /** The DaemonSet of an agent. With a claim it mounts the artifacts itself. */
  putAgent({
    namespace = 'default',
    claim,
    config,
  }: {
    namespace?: string;
    claim?: string;
    config?: string;
  } = {}): void {
    const mounts = [{ name: 'config', mountPath: '/etc/snapshot' }];
    const volumes: Json[] = [{ name: 'config', configMap: { name: 'snapshot-config' } }];
    if (claim !== undefined) {
      mounts.push({ name: 'checkpoints', mountPath: '/checkpoints' });
      volumes.push({ name: 'checkpoints', persistentVolumeClaim: { claimName: claim } });
    }
    this.api.put({
      kind: 'DaemonSet',
      metadata: { name: 'snapshot-agent', namespace, labels: { 'app.kubernetes.io/component': 'snapshot-agent' } },
      spec: { template: { spec: { containers: [{ name: 'agent', volumeMounts: mounts }], volumes } } },
    });
    if (config !== undefined)
      this.api.put({
        kind: 'ConfigMap',
        metadata: { name: 'snapshot-config', namespace },
        data: { 'config.yaml': config },
      });
  }
}

/** The spec of a pod that waits to be restored into. */
export function waitingSpec(over: Json = {}): Json {
  return {
    nodeName: 'node-1',
    securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: SECCOMP_PROFILE } },
    volumes: [{ name: 'snapshot-control', emptyDir: {} }],
    containers: [
      {
        name: 'main',
        image: 'worker:1',
        command: ['snapshot-standby'],
        env: [{ name: 'DYN_SNAPSHOT_CONTROL_DIR', value: '/snapshot-control' }],
        volumeMounts: [{ name: 'snapshot-control', mountPath: '/snapshot-control', subPath: 'main' }],
        startupProbe: { httpGet: { path: '/health', port: 8000 } },
      },
    ],
    ...over,
  };
}
