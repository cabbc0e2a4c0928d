import { execFile } from 'node:child_process';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { stringify } from 'yaml';
import { SECCOMP_PROFILE } from '../../contract/seccomp.ts';
import { ADMIN } from '../fakes/kube-api/access.ts';
import { startJobPod } from '../fakes/kube-api/job-controller.ts';
import type { Container } from './environment/container.ts';
import { eventually, REPOSITORY } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { type KubeNode, NODE } from './environment/kube-node.ts';
import { workload } from './environment/pod.ts';
import { keyOf, NAMESPACE } from './kubernetes-scenario.ts';

const PROGRAM = join(REPOSITORY, 'dist/snapshotctl/snapshotctl.mjs');
const TOKEN = 'token-of-a-person';

const IO_URING = ['io_uring_setup', 'io_uring_enter', 'io_uring_register'];
/** What the nodes of a cluster have for workloads: everything but io_uring, of which they are told that the kernel has none. */
export const WITHOUT_IO_URING = {
  defaultAction: 'SCMP_ACT_ALLOW',
  architectures: ['SCMP_ARCH_X86_64'],
  syscalls: [{ names: IO_URING, action: 'SCMP_ACT_ERRNO', errnoRet: 38 }],
};

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Lines of `key=value`. */
  readonly result: Readonly<Record<string, string>>;
}

/** A person with a kubeconfig beside a cluster, and the Job controller that makes pods of their Jobs. */
export class Person {
  readonly #directory: string;
  readonly #kubeconfig: string;

  private constructor(directory: string, kubeconfig: string) {
    this.#directory = directory;
    this.#kubeconfig = kubeconfig;
  }

  static async beside(kube: KubeNode): Promise<Person> {
    const directory = await mkdtemp(join(kube.cluster.directory, 'person-'));
    kube.api.tokens.set(TOKEN, ADMIN);
    const profile = join(directory, 'block-iouring.json');
    await writeFile(profile, JSON.stringify(WITHOUT_IO_URING));
    kube.profiles.set(SECCOMP_PROFILE, profile);
    const started = new Set<string>();
    kube.api.onChange('jobs', ({ metadata: { name, namespace, uid } }, isDeleted) => {
      if (isDeleted || started.has(uid)) return;
      started.add(uid);
      setImmediate(() => startJobPod(kube.api, `${namespace}/${name}`, `${name}-pod`));
    });
    return new Person(directory, await kube.api.writeKubeconfig(directory, TOKEN));
  }

  /** Writes the manifest of a worker; answers its path. */
  async manifest(name: string, over: ManifestParts = {}): Promise<string> {
    const path = join(this.#directory, `${name}.yaml`);
    await writeFile(path, stringify(workerPod(name, over)));
    return path;
  }

  /** Runs the built program as a person does. */
  snapshotctl(...args: readonly string[]): Promise<Ran> {
    const options = { env: { ...process.env, KUBECONFIG: this.#kubeconfig }, timeout: 110_000 };
    return new Promise((done) => {
      execFile(process.execPath, [PROGRAM, ...args], options, (error, stdout, stderr) => {
        const lines = stdout.split('\n').filter((line) => line.includes('='));
        const result = Object.fromEntries(lines.map((line) => line.split(/=(.*)/s, 2) as [string, string]));
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        done({ code, stdout, stderr, result });
      });
    });
  }
}

export interface ManifestParts {
  readonly container?: object;
  readonly spec?: object;
}

/** The worker in a restored container goes on with the memory that it had, and counts on: it was not started anew. */
export async function goesOn(restored: Container, digest: unknown): Promise<void> {
  await restored.waitForOutput('that it resumes', (line) => line['resumed'] === true);
  const first = await restored.check();
  expect(first).toMatchObject({ check: 'ok', phase: 'serving', digest });
  expect(restored.output().filter((line) => 'ready' in line)).toEqual([]);
  await eventually('that it counts on', async () => {
    const { beats } = await restored.check();
    return Number(beats) > Number(first['beats']) || undefined;
  });
}

/** A worker as somebody would write it down: nothing in it knows of snapshots. */
export function workerPod(name: string, { container, spec }: ManifestParts = {}) {
  const worker = { name: 'main', image: IMAGES.placeholder, command: workload('worker', '8', '0'), ...container };
  const base = { nodeName: NODE, terminationGracePeriodSeconds: 1, containers: [worker] };
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels: { app: name } }, spec: { ...base, ...spec } };
}

/** The pod of the Job that `snapshotctl checkpoint` made of a manifest. */
export const sourcePodKey = (name: string) => keyOf(`${name}-checkpoint-pod`);

/** The DaemonSet of an agent in the namespace of the workloads; with a claim it mounts the artifacts itself. */
export function putDaemonSet(kube: KubeNode, { claim }: { readonly claim?: string } = {}): void {
  const mounts = claim === undefined ? [] : [{ name: 'checkpoints', mountPath: '/checkpoints' }];
  const volumes = claim === undefined ? [] : [{ name: 'checkpoints', persistentVolumeClaim: { claimName: claim } }];
  kube.api.put({
    kind: 'DaemonSet',
    metadata: {
      name: 'snapshot-agent',
      namespace: NAMESPACE,
      labels: { 'app.kubernetes.io/component': 'snapshot-agent' },
    },
    spec: { template: { spec: { containers: [{ name: 'agent', volumeMounts: mounts }], volumes } } },
  });
}
