import { z } from 'zod';
import type { KubeClient } from '../../kube/client.ts';
import { isGone, KubeError } from '../../kube/error.ts';
import { kubePath } from '../../kube/paths.ts';
import { SnapshotError } from '../errors.ts';
import {
  type AllocatedDevice,
  type Claim,
  claimObject,
  claimReferences,
  containerOf,
  DraProblem,
  describeDevice,
  GPU_DRIVER,
  gpusOfClaim,
  type Pod,
  podObject,
  type Slice,
  sliceList,
} from './dra-objects.ts';
import { migReason } from './gpu-rules.ts';
import { isGpuUuid } from './gpus.ts';

const CALL_TIMEOUT_MS = 10_000;
/** Of resource.k8s.io, newest first. They differ in where a slice keeps the attributes of a device. */
const VERSIONS = ['v1', 'v1beta2', 'v1beta1'] as const;
const PAGE = 100;
/** A node has a handful of slices; a list without end is not followed. */
const MAX_SLICES = 1_000;

export interface PodPlace {
  readonly namespace: string;
  readonly pod: string;
  readonly uid: string;
  readonly container: string;
  readonly nodeName: string;
}

/** What the Kubernetes API says of a container's GPUs. */
export interface PodGpus {
  /** It may open every device of the node, whatever it was given. */
  readonly isPrivileged: boolean;
  /** UUIDs of the GPUs that its claims give it. Undefined where it refers to no claim: then DRA says nothing. */
  readonly claimed: readonly string[] | undefined;
}

/**
 * Reads which GPUs a container got by DRA: its pod, the claims that it refers to, the slices of the driver on this node. Once it refers
 * to a claim, whatever is unclear is an error: GPU_IDENTITY, POD_GONE, or KUBERNETES_UNAVAILABLE where the API does not answer.
 */
export async function readPodGpus(client: KubeClient, place: PodPlace, signal?: AbortSignal): Promise<PodGpus> {
  try {
    const pod = await readPod(client, place, signal);
    const { privileged } = containerOf(pod, place.container).securityContext;
    const references = claimReferences(pod, place.container);
    if (references.length === 0) return { isPrivileged: privileged, claimed: undefined };
    const { version, slices } = await readSlices(client, place.nodeName, signal);
    const allocated: AllocatedDevice[] = [];
    for (const reference of references) {
      const claim = await readClaim(client, { ...place, version, claim: reference.claim }, signal);
      allocated.push(...gpusOfClaim(claim, reference, place.uid));
    }
    // A container may refer to one claim several times, and to one device by several requests.
    const claimed = [...new Set(allocated.map((device) => uuidOf(slices, device)))];
    return { isPrivileged: privileged, claimed };
  } catch (error) {
    throw failure(place, error);
  }
}

async function readPod(client: KubeClient, place: PodPlace, signal: AbortSignal | undefined): Promise<Pod> {
  const path = kubePath('api', 'v1', 'namespaces', place.namespace, 'pods', place.pod);
  const pod = await get(client, { path, shape: podObject, signal }).catch((error: unknown) => {
    throw isGone(error) ? gone(place) : error;
  });
  if (pod.metadata.uid !== place.uid) throw gone(place);
  return pod;
}

const gone = ({ namespace, pod, uid }: PodPlace) =>
  new SnapshotError('POD_GONE', `pod ${namespace}/${pod} with uid ${uid} is not there any more`);

/** The slices of the GPU driver on this node, in the newest version that the API serves. */
async function readSlices(
  client: KubeClient,
  nodeName: string,
  signal: AbortSignal | undefined,
): Promise<{ readonly version: string; readonly slices: readonly Slice[] }> {
  const fieldSelector = `spec.driver=${GPU_DRIVER},spec.nodeName=${nodeName}`;
  for (const version of VERSIONS) {
    const slices: Slice[] = [];
    try {
      for (let token = ''; slices.length <= MAX_SLICES; ) {
        const query = { fieldSelector, limit: PAGE, ...(token === '' ? {} : { continue: token }) };
        const path = kubePath('apis', 'resource.k8s.io', version, 'resourceslices');
        const page = await get(client, { path, query, shape: sliceList, signal });
        slices.push(...page.items);
        token = page.metadata.continue;
        if (token === '') return { version, slices };
      }
    } catch (error) {
      // A list is always there, but for a version that is not served.
      if (!isGone(error)) throw error;
      continue;
    }
    throw new DraProblem(`this node has more than ${MAX_SLICES} resource slices of ${GPU_DRIVER}`);
  }
  throw new DraProblem(`the API serves none of the versions ${VERSIONS.join(', ')} of resource.k8s.io`);
}

async function readClaim(
  client: KubeClient,
  { namespace, version, claim }: PodPlace & { readonly version: string; readonly claim: string },
  signal: AbortSignal | undefined,
): Promise<Claim> {
  const path = kubePath('apis', 'resource.k8s.io', version, 'namespaces', namespace, 'resourceclaims', claim);
  return await get(client, { path, shape: claimObject, signal }).catch((error: unknown) => {
    throw isGone(error) ? new DraProblem(`claim ${claim} is not there`) : error;
  });
}

function uuidOf(slices: readonly Slice[], device: AllocatedDevice): string {
  const { uuid, type } = describeDevice(slices, device);
  const what = `device ${device.device} of claim ${device.claim}`;
  if (type === 'mig' || uuid.startsWith('MIG-'))
    throw new SnapshotError('GPU_IDENTITY', `${what} is a MIG instance`, { reasons: [migReason(`${what}: ${uuid}`)] });
  if (type !== '' && type !== 'gpu') throw new DraProblem(`${what} is of type ${type}, and no GPU`);
  if (!isGpuUuid(uuid)) throw new DraProblem(`${what} has no UUID of a GPU: ${JSON.stringify(uuid)}`);
  return uuid;
}

interface Get<T> {
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number>>;
  readonly shape: z.ZodType<T>;
  readonly signal: AbortSignal | undefined;
}

async function get<T>(client: KubeClient, { path, query = {}, shape, signal }: Get<T>): Promise<T> {
  const answer = await client.request({ method: 'GET', path, query, timeoutMs: CALL_TIMEOUT_MS, signal });
  const parsed = shape.safeParse(answer);
  if (parsed.success) return parsed.data;
  throw new KubeError(`GET ${path}: the answer is not understood: ${z.prettifyError(parsed.error)}`, {
    reason: 'Malformed',
  });
}

function failure({ namespace, pod, container }: PodPlace, error: unknown): unknown {
  const whose = `the GPUs of container ${container} of pod ${namespace}/${pod}`;
  if (error instanceof DraProblem)
    return new SnapshotError('GPU_IDENTITY', `${whose} cannot be told: ${error.message}`, { cause: error });
  if (error instanceof KubeError)
    return new SnapshotError('KUBERNETES_UNAVAILABLE', `${whose} cannot be told: ${error.message}`, { cause: error });
  return error;
}
