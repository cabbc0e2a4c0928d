import { z } from 'zod';

/*
 * The objects of dynamic resource allocation (DRA) as far as they say which GPU a container got, and what follows from them. Pure.
 * A pod names claims, a claim says which devices were allocated to it, and a resource slice describes the devices of a node.
 */

/** The DRA driver of whole GPUs and of MIG instances. */
export const GPU_DRIVER = 'gpu.nvidia.com';

const container = z.object({
  name: z.string(),
  securityContext: z.object({ privileged: z.boolean().default(false) }).default({ privileged: false }),
  resources: z
    .object({ claims: z.array(z.object({ name: z.string(), request: z.string().default('') })).default([]) })
    .default({ claims: [] }),
});

export const podObject = z.object({
  metadata: z.object({ uid: z.string() }),
  spec: z.object({
    containers: z.array(container).default([]),
    initContainers: z.array(container).default([]),
    resourceClaims: z.array(z.object({ name: z.string(), resourceClaimName: z.string().optional() })).default([]),
  }),
  status: z
    .object({
      resourceClaimStatuses: z
        .array(z.object({ name: z.string(), resourceClaimName: z.string().optional() }))
        .default([]),
      /** Of the claim that the scheduler made for extended resources, such as `nvidia.com/gpu`, that DRA serves. */
      extendedResourceClaimStatus: z
        .object({
          resourceClaimName: z.string(),
          requestMappings: z.array(z.object({ containerName: z.string(), requestName: z.string() })).default([]),
        })
        .optional(),
    })
    .default({ resourceClaimStatuses: [] }),
});

export const claimObject = z.object({
  status: z
    .object({
      allocation: z
        .object({
          devices: z
            .object({
              results: z
                .array(z.object({ request: z.string(), driver: z.string(), pool: z.string(), device: z.string() }))
                .default([]),
            })
            .default({ results: [] }),
        })
        .optional(),
      reservedFor: z
        .array(z.object({ resource: z.string(), apiGroup: z.string().default(''), uid: z.string() }))
        .default([]),
    })
    .default({ reservedFor: [] }),
});

const attributes = z.record(z.string(), z.object({ string: z.string().optional() })).default({});
const device = z.object({
  name: z.string(),
  attributes,
  /** Where v1beta1 has them. */
  basic: z.object({ attributes }).optional(),
});

export const sliceList = z.object({
  metadata: z.object({ continue: z.string().default('') }).default({ continue: '' }),
  items: z.array(
    z.object({
      spec: z.object({
        driver: z.string(),
        nodeName: z.string().default(''),
        pool: z.object({ name: z.string(), generation: z.number(), resourceSliceCount: z.number().default(0) }),
        devices: z.array(device).nullish(),
      }),
    }),
  ),
});

export type Pod = z.infer<typeof podObject>;
export type Claim = z.infer<typeof claimObject>;
export type Slice = z.infer<typeof sliceList>['items'][number];
type Container = z.infer<typeof container>;

/** A claim that a container refers to; with requests, it gets only the devices of these. */
export interface ClaimReference {
  readonly claim: string;
  /** Empty: all. */
  readonly request: string;
}

/** A device, by the names that make it unique for a driver. */
export interface AllocatedDevice {
  readonly claim: string;
  readonly pool: string;
  readonly device: string;
}

/** What a slice says of a device. */
export interface DescribedDevice {
  readonly uuid: string;
  /** `gpu`, `mig`, `vfio`; empty where it is not said. */
  readonly type: string;
}

/** Why the objects do not say which GPUs a container got. */
export class DraProblem extends Error {}

export function containerOf(pod: Pod, name: string): Container {
  const found = [...pod.spec.containers, ...pod.spec.initContainers].find((one) => one.name === name);
  if (found === undefined) throw new DraProblem(`the pod has no container ${name}`);
  return found;
}

/** The claims that a container refers to, by their names in the API. Throws DraProblem where one has no name there. */
export function claimReferences(pod: Pod, name: string): ClaimReference[] {
  const own = containerOf(pod, name).resources.claims.flatMap(({ name: local, request }) => {
    const claim = claimName(pod, local);
    return claim === undefined ? [] : [{ claim, request }];
  });
  const extended = pod.status.extendedResourceClaimStatus;
  const mapped = extended?.requestMappings.filter(({ containerName }) => containerName === name) ?? [];
  return [...own, ...mapped.map(({ requestName: request }) => ({ claim: extended?.resourceClaimName ?? '', request }))];
}

/** The name of a claim in the API, or undefined where the template needed none to be made. */
function claimName({ spec, status }: Pod, local: string): string | undefined {
  const entry = spec.resourceClaims.find(({ name }) => name === local);
  if (entry === undefined) throw new DraProblem(`the pod does not define the claim ${local} that its container names`);
  if (entry.resourceClaimName !== undefined) return entry.resourceClaimName;
  const made = status.resourceClaimStatuses.find(({ name }) => name === local);
  if (made === undefined) throw new DraProblem(`the status of the pod does not name the claim made for ${local}`);
  return made.resourceClaimName;
}

/** The GPUs that a claim gives to who refers to it. Throws DraProblem where it was allocated to nobody, or to another pod. */
export function gpusOfClaim({ status }: Claim, reference: ClaimReference, podUid: string): AllocatedDevice[] {
  const { claim, request } = reference;
  if (status.allocation === undefined) throw new DraProblem(`claim ${claim} is not allocated`);
  // A claim may also be reserved for what is no pod, such as a group of them.
  const pods = status.reservedFor.filter(({ resource, apiGroup }) => apiGroup === '' && resource === 'pods');
  const isOurs = pods.some(({ uid }) => uid === podUid) || pods.length < status.reservedFor.length;
  if (!isOurs) throw new DraProblem(`claim ${claim} is not reserved for this pod`);
  return status.allocation.devices.results
    .filter(({ driver }) => driver === GPU_DRIVER)
    .filter((result) => request === '' || isOfRequest(result.request, request))
    .map(({ pool, device: name }) => ({ claim, pool, device: name }));
}

/** A request may list alternatives; the result then names the one that was chosen: `request/alternative`. */
function isOfRequest(result: string, request: string): boolean {
  return result === request || result.startsWith(`${request}/`);
}

/** Describes an allocated device by the slices of its driver on this node. Throws DraProblem where they do not tell. */
export function describeDevice(
  slices: readonly Slice[],
  { claim, pool, device: name }: AllocatedDevice,
): DescribedDevice {
  const what = `device ${name} of pool ${pool}, allocated to claim ${claim}`;
  const ofPool = slices.filter(({ spec }) => spec.driver === GPU_DRIVER && spec.pool.name === pool);
  // A driver that changes a pool publishes it anew under the next generation, and what is older does not count.
  const newest = Math.max(...ofPool.map(({ spec }) => spec.pool.generation));
  const current = ofPool.filter(({ spec }) => spec.pool.generation === newest);
  const found = current.flatMap(({ spec }) => spec.devices ?? []).filter((one) => one.name === name);
  if (found.length > 1) throw new DraProblem(`${what}, is published ${found.length} times`);
  const [one] = found;
  if (one === undefined) {
    const wanted = current[0]?.spec.pool.resourceSliceCount ?? 0;
    const why = current.length < wanted ? ` (${current.length} of ${wanted} slices of its pool are published)` : '';
    throw new DraProblem(`${what}, is in no resource slice of this node${why}`);
  }
  const said = { ...one.basic?.attributes, ...one.attributes };
  const text = (attribute: string) => (said[attribute] ?? said[`${GPU_DRIVER}/${attribute}`])?.string ?? '';
  return { uuid: text('uuid'), type: text('type') };
}
