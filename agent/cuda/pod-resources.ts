import { access } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { z } from 'zod';
import { SnapshotError } from '../errors.ts';

const CALL_DEADLINE_MS = 10_000;
/** What kubelet's own clients take. A node of 500 pods has a twentieth of it. */
const MAX_MESSAGE_BYTES = 16 << 20;

const containerResources = z.object({
  name: z.string(),
  devices: z.array(z.object({ resource_name: z.string(), device_ids: z.array(z.string()) })),
  dynamic_resources: z.array(
    z.object({
      claim_name: z.string(),
      claim_namespace: z.string(),
      claim_resources: z.array(
        z.object({
          cdi_devices: z.array(z.object({ name: z.string() })),
          driver_name: z.string(),
          pool_name: z.string(),
          device_name: z.string(),
        }),
      ),
    }),
  ),
});
const podResources = z.object({
  name: z.string(),
  namespace: z.string(),
  containers: z.array(containerResources),
});
const getAnswer = z.object({ pod_resources: podResources.nullable() });
const listAnswer = z.object({ pod_resources: z.array(podResources) });

/** The ids of one resource that a device plugin gave to a container. */
interface PluginDevices {
  readonly resource: string;
  readonly ids: readonly string[];
}

/** A device that a DRA driver gave to a container. */
interface ClaimedDevice {
  readonly claim: string;
  readonly driver: string;
  readonly pool: string;
  /** Empty where kubelet does not tell. */
  readonly device: string;
  readonly cdi: readonly string[];
}

/** What kubelet says that a container was given. */
export interface ContainerDevices {
  readonly plugin: readonly PluginDevices[];
  readonly claimed: readonly ClaimedDevice[];
}

interface ContainerName {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
}

/** Kubelet's PodResources service. */
export interface PodResources {
  readonly socketPath: string;
  /** Whether there is a socket at all: a node without kubelet has none. */
  isThere(): Promise<boolean>;
  /**
   * What a container was given; undefined where kubelet does not know it. Kubelet knows pods by name alone: a pod that was just replaced
   * by another of its name is told apart by what it sees of its devices, if at all. Throws KUBELET_UNAVAILABLE.
   */
  devicesOf(name: ContainerName): Promise<ContainerDevices | undefined>;
  close(): void;
}

type Call = 'Get' | 'List';
type Unary = (request: object, options: grpc.CallOptions, done: (error: unknown, answer: unknown) => void) => void;
type Client = grpc.Client & Readonly<Record<Call, Unary>>;

/** Opens a client on kubelet's unix socket. Connecting happens at the first call. */
export function openPodResources(socketPath: string, { deadlineMs = CALL_DEADLINE_MS } = {}): PodResources {
  const client = connect(socketPath);
  const ask = async <T>(name: Call, request: object, shape: z.ZodType<T>): Promise<T> => {
    const answer = await new Promise<unknown>((resolve, reject) => {
      client[name](request, { deadline: Date.now() + deadlineMs }, (error, value) =>
        error ? reject(error) : resolve(value),
      );
    });
    return shape.parse(answer);
  };
  const pod = async ({ namespace, pod: name }: ContainerName) => {
    try {
      return (await ask('Get', { pod_name: name, pod_namespace: namespace }, getAnswer)).pod_resources ?? undefined;
    } catch (error) {
      if (!isWithoutGet(error)) throw error;
      const all = (await ask('List', {}, listAnswer)).pod_resources;
      return all.find((one) => one.namespace === namespace && one.name === name);
    }
  };
  return {
    socketPath,
    isThere: () =>
      access(socketPath).then(
        () => true,
        () => false,
      ),
    devicesOf: async (wanted) => {
      const found = await pod(wanted).catch((cause: unknown) => {
        throw kubeletFailure(socketPath, cause);
      });
      const container = found?.containers.find(({ name }) => name === wanted.container);
      return container === undefined ? undefined : devicesIn(container);
    },
    close: () => client.close(),
  };
}

function connect(socketPath: string): Client {
  const definition = loadSync(fileURLToPath(new URL('../../proto/podresources.proto', import.meta.url)), {
    keepCase: true,
    defaults: true,
  });
  const root = grpc.loadPackageDefinition(definition) as unknown as {
    v1: { PodResourcesLister: grpc.ServiceClientConstructor };
  };
  return new root.v1.PodResourcesLister(`unix://${socketPath}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    // By itself gRPC tries again after up to two minutes: too long for a kubelet that was restarted.
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': 2_000,
  }) as unknown as Client;
}

/** An older kubelet lacks the call. One whose feature gate is off answers UNKNOWN, and so does one that does not find the pod. */
function isWithoutGet(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return code === grpc.status.UNIMPLEMENTED || code === grpc.status.UNKNOWN;
}

function devicesIn(container: z.infer<typeof containerResources>): ContainerDevices {
  return {
    plugin: container.devices.map((one) => ({ resource: one.resource_name, ids: one.device_ids })),
    claimed: container.dynamic_resources.flatMap(({ claim_name: claim, claim_resources: resources }) =>
      resources.map((one) => ({
        claim,
        driver: one.driver_name,
        pool: one.pool_name,
        device: one.device_name,
        cdi: one.cdi_devices.map(({ name }) => name),
      })),
    ),
  };
}

function kubeletFailure(socketPath: string, cause: unknown): SnapshotError {
  const { details } = cause as { details?: string };
  const why = cause instanceof z.ZodError ? `not understood: ${z.prettifyError(cause)}` : (details ?? String(cause));
  return new SnapshotError('KUBELET_UNAVAILABLE', `PodResources of kubelet on ${socketPath}: ${why}`, { cause });
}
