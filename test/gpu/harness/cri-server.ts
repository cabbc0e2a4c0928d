import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { KUBELET_LABELS } from '../../../contract/keys.ts';
import { REPOSITORY } from '../../real/environment/host.ts';
import type { RuncContainer } from './container.ts';

type Labels = Readonly<Record<string, string>>;
type Request = { readonly [field: string]: unknown };
type Answer = (request: Request) => object | undefined;

/** What every container of the node is said to be made from: a root over the machine's own file system. */
const IMAGE = { image: 'machine.local/root:1', image_ref: 'sha256:machine' };

/** The part of a container runtime's socket that the agent asks, over containers that runc runs. Each pod has one container. */
export interface CriServer {
  readonly socketPath: string;
  stop(): Promise<void>;
}

export async function serveCri(socketPath: string, containers: () => readonly RuncContainer[]): Promise<CriServer> {
  const find = (id: unknown) => containers().find((one) => one.id === id || one.sandboxId === id);
  const matching = (request: Request) => containers().filter((one) => fits(one, labelSelector(request)));

  const unary: Readonly<Record<string, Answer>> = {
    Version: () => ({ version: '0.1.0', runtime_name: 'runc', runtime_version: '1', runtime_api_version: 'v1' }),
    ListPodSandbox: (request) => ({ items: matching(request).map(sandboxOf) }),
    ListContainers: (request) => ({ containers: matching(request).map(containerOf) }),
    PodSandboxStatus: ({ pod_sandbox_id: id }) => {
      const one = find(id);
      return one && { status: { ...sandboxOf(one), network: { ip: '', additional_ips: [] } }, info: {} };
    },
    ContainerStatus: ({ container_id: id, verbose }) => {
      const one = find(id);
      return one && { status: statusOf(one), info: verbose === true ? { info: infoOf(one) } : {} };
    },
  };
  const handlers: grpc.UntypedServiceImplementation = Object.fromEntries(
    Object.entries(unary).map(([name, make]): [string, grpc.handleUnaryCall<Request, object>] => [
      name,
      (call, done) => {
        const answer = make(call.request);
        if (answer === undefined) done({ code: grpc.status.NOT_FOUND, details: 'no such container' });
        else done(null, answer);
      },
    ]),
  );
  // A runtime without events: the agent polls.
  handlers['GetContainerEvents'] = (call: grpc.ServerWritableStream<object, object>) => {
    call.emit('error', { code: grpc.status.UNIMPLEMENTED, details: 'no events' });
  };

  const server = new grpc.Server();
  server.addService(runtimeService(), handlers);
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix://${socketPath}`, grpc.ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    );
  });
  return {
    socketPath,
    stop: async () => {
      server.forceShutdown();
      await rm(socketPath, { force: true });
    },
  };
}

function runtimeService(): grpc.ServiceDefinition {
  const definition = loadSync(join(REPOSITORY, 'proto/cri.proto'), {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  });
  const root = grpc.loadPackageDefinition(definition) as unknown as {
    runtime: { v1: { RuntimeService: { service: grpc.ServiceDefinition } } };
  };
  return root.runtime.v1.RuntimeService.service;
}

function labelSelector(request: Request): Labels {
  const { filter } = request as { filter?: { label_selector?: Labels } | null };
  return filter?.label_selector ?? {};
}

function fits(one: RuncContainer, wanted: Labels): boolean {
  const labels = labelsOf(one);
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

const stateOf = (one: RuncContainer) => (one.exitCode === undefined ? 'CONTAINER_RUNNING' : 'CONTAINER_EXITED');
const createdAt = (one: RuncContainer) => String(one.startedAtNs);

function labelsOf({ pod, name }: RuncContainer): Record<string, string> {
  return {
    ...pod.labels,
    [KUBELET_LABELS.podName]: pod.name,
    [KUBELET_LABELS.podNamespace]: pod.namespace,
    [KUBELET_LABELS.podUid]: pod.uid,
    [KUBELET_LABELS.containerName]: name,
  };
}

function sandboxOf(one: RuncContainer) {
  const { name, uid, namespace, annotations } = one.pod;
  return {
    id: one.sandboxId,
    metadata: { name, uid, namespace, attempt: 0 },
    state: one.exitCode === undefined ? 'SANDBOX_READY' : 'SANDBOX_NOTREADY',
    created_at: createdAt(one),
    labels: labelsOf(one),
    annotations,
  };
}

function containerOf(one: RuncContainer) {
  return {
    id: one.id,
    pod_sandbox_id: one.sandboxId,
    metadata: { name: one.name, attempt: 0 },
    image: { image: IMAGE.image },
    image_ref: IMAGE.image_ref,
    state: stateOf(one),
    created_at: createdAt(one),
    labels: labelsOf(one),
  };
}

function statusOf(one: RuncContainer) {
  const { id, metadata, image, image_ref, state, created_at } = containerOf(one);
  const started = { started_at: createdAt(one), finished_at: '0', exit_code: one.exitCode ?? 0 };
  return { id, metadata, image, image_ref, state, created_at, ...started };
}

function infoOf(one: RuncContainer): string {
  return JSON.stringify({ pid: one.exitCode === undefined ? one.pid : 0, runtimeSpec: one.spec });
}
