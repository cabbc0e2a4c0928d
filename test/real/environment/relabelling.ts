import { resolve } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { REPOSITORY } from './host.ts';

interface Labelled {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

interface Sandbox extends Labelled {
  readonly metadata: { readonly uid: string };
}

/** A container runtime whose pods can be given other labels while they run, as in the Kubernetes API. */
export interface RelabellingRuntime {
  readonly socketPath: string;
  relabel(podUid: string, other: Labelled): void;
  stop(): void;
}

type Answer = (error: grpc.ServiceError | null, answer?: unknown) => void;

/**
 * Stands between the agent and the container runtime, whose labels never change: hands on every call that the agent makes, and puts the
 * other labels into the list of pods. Has no events, like containerd before 1.7.
 */
export async function relabellingRuntime(runtimeSocket: string, socketPath: string): Promise<RelabellingRuntime> {
  const definition = loadSync(resolve(REPOSITORY, 'proto/cri.proto'), {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  });
  const service = definition['runtime.v1.RuntimeService'] as grpc.ServiceDefinition;
  const client = new grpc.Client(`unix://${runtimeSocket}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': 64 << 20,
  });
  const changed = new Map<string, Labelled>();
  const relabelled = (answer: unknown) => {
    const items = (answer as { items: Sandbox[] }).items;
    return { items: items.map((item) => ({ ...item, ...changed.get(item.metadata.uid) })) };
  };
  const unary = Object.entries(service).filter(([, method]) => !method.responseStream);
  const handlers = unary.map(([name, method]) => {
    const handle = (call: { request: unknown }, done: Answer) =>
      client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        call.request,
        (error, answer) => done(error, name === 'ListPodSandbox' && !error ? relabelled(answer) : answer),
      );
    return [name, handle] as const;
  });
  const server = new grpc.Server();
  server.addService(service, Object.fromEntries(handlers) as grpc.UntypedServiceImplementation);
  await new Promise<void>((done, failed) =>
    server.bindAsync(`unix://${socketPath}`, grpc.ServerCredentials.createInsecure(), (error) =>
      error ? failed(error) : done(),
    ),
  );
  return {
    socketPath,
    relabel: (podUid, other) => changed.set(podUid, other),
    stop: () => {
      server.forceShutdown();
      client.close();
    },
  };
}
