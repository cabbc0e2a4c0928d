import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

interface FakeClaimResource {
  readonly cdi_devices?: readonly { readonly name: string }[];
  readonly driver_name: string;
  readonly pool_name?: string;
  readonly device_name?: string;
}

/** As kubelet tells of a container. */
export interface FakeContainerResources {
  readonly name: string;
  readonly devices?: readonly { readonly resource_name: string; readonly device_ids: readonly string[] }[];
  readonly dynamic_resources?: readonly {
    readonly claim_name: string;
    readonly claim_namespace: string;
    readonly claim_resources: readonly FakeClaimResource[];
  }[];
}

interface FakePodResources {
  readonly namespace: string;
  readonly name: string;
  readonly containers: readonly FakeContainerResources[];
}

type Fault = grpc.status | 'silent';

/** Kubelet's PodResources service on a real unix socket, with faults on demand. */
export interface FakeKubelet {
  readonly socketPath: string;
  readonly pods: FakePodResources[];
  /** What there is of Get: kubelets before 1.27 lack it, and in some releases its feature gate is off. */
  get: 'served' | 'absent' | 'disabled';
  /** How often each call came. */
  readonly calls: Record<string, number>;
  /** What the next calls of a name are answered with instead, one after the other. */
  readonly faults: Map<string, Fault[]>;
  start(): Promise<void>;
  /** Goes away; the socket stays behind, as with a kubelet that crashed. */
  stop(): Promise<void>;
  remove(): Promise<void>;
}

type Handler = grpc.handleUnaryCall<Record<string, unknown>, object>;

export async function makeKubelet(): Promise<FakeKubelet> {
  const directory = await mkdtemp(join(tmpdir(), 'kubelet-'));
  const socketPath = join(directory, 'kubelet.sock');
  const path = fileURLToPath(new URL('../../proto/podresources.proto', import.meta.url));
  const root = grpc.loadPackageDefinition(loadSync(path, { keepCase: true, defaults: true })) as unknown as {
    v1: { PodResourcesLister: { service: grpc.ServiceDefinition } };
  };
  let server: grpc.Server | undefined;

  const answer =
    (name: string, make: (request: Record<string, unknown>) => object | grpc.status): Handler =>
    (call, done) => {
      kubelet.calls[name] = (kubelet.calls[name] ?? 0) + 1;
      const given = kubelet.faults.get(name)?.shift() ?? make(call.request);
      if (given === 'silent') return;
      if (typeof given === 'number') done({ code: given, details: `fake ${grpc.status[given]}` });
      else done(null, given);
    };
  const find = ({ pod_name: name, pod_namespace: namespace }: Record<string, unknown>) =>
    kubelet.pods.find((pod) => pod.name === name && pod.namespace === namespace);

  const kubelet: FakeKubelet = {
    socketPath,
    pods: [],
    get: 'served',
    calls: {},
    faults: new Map(),
    start: async () => {
      await rm(socketPath, { force: true });
      server = new grpc.Server();
      // Go's plain errors, of a gate that is off and of a pod that is not there, both come as UNKNOWN.
      const get = answer('Get', (request) => {
        const pod = kubelet.get === 'served' ? find(request) : undefined;
        return pod === undefined ? grpc.status.UNKNOWN : { pod_resources: pod };
      });
      const list = answer('List', () => ({ pod_resources: kubelet.pods }));
      server.addService(
        root.v1.PodResourcesLister.service,
        kubelet.get === 'absent' ? { List: list } : { Get: get, List: list },
      );
      await new Promise<void>((resolve, reject) => {
        server?.bindAsync(`unix://${socketPath}`, grpc.ServerCredentials.createInsecure(), (error) =>
          error ? reject(error) : resolve(),
        );
      });
    },
    stop: async () => {
      server?.forceShutdown();
      server = undefined;
    },
    remove: async () => {
      await kubelet.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
  await kubelet.start();
  return kubelet;
}
