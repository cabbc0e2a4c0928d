import { basePathProblem } from '../../contract/storage-volume.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone, KubeError } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';

const CLAIMS = { group: '', version: 'v1', plural: 'persistentvolumeclaims' };
const LABELS = {
  'app.kubernetes.io/name': 'dynamo',
  'app.kubernetes.io/component': 'checkpoint-storage',
  'app.kubernetes.io/managed-by': 'dynamo-operator',
};

/** `checkpoint.storage.pvc` of the configuration: the claim that the pods of each namespace bring. */
export interface ClaimConfig {
  readonly pvcName: string;
  /** Absolute. */
  readonly basePath: string;
  /** Make the claim where it is missing. */
  readonly create: boolean;
  /** A quantity of Kubernetes; needed with `create`. */
  readonly size?: string | undefined;
  /** Blank: that of the cluster. */
  readonly storageClassName?: string | undefined;
  /** Blank: ReadWriteMany. */
  readonly accessMode?: string | undefined;
}

const ACCESS_MODES = ['ReadWriteMany', 'ReadWriteOnce'];
const QUANTITY = /^[+]?(\d+(?:\.\d*)?|\.\d+)([KMGTPE]i|[kMGTPE]|[eE][+-]?\d+)?$/;

/** Says why no claim can be made or verified of this configuration, or undefined. */
export function claimProblem({
  pvcName,
  basePath,
  create,
  size = '',
  accessMode = '',
}: ClaimConfig): string | undefined {
  if (pvcName === '' || basePath === '')
    return 'checkpoint.storage.pvc.pvcName and checkpoint.storage.pvc.basePath are both required once either is set';
  const path = basePathProblem(basePath);
  if (path !== undefined) return `checkpoint.storage.pvc.basePath ${basePath} ${path}`;
  if (!create) return undefined;
  const amount = QUANTITY.exec(size)?.[1];
  if (amount === undefined || Number(amount) <= 0)
    return `checkpoint.storage.pvc.size "${size}" is no size above 0; it is required when checkpoint.storage.pvc.create is true`;
  if (accessMode !== '' && !ACCESS_MODES.includes(accessMode))
    return `checkpoint.storage.pvc.accessMode "${accessMode}" is not one of ${ACCESS_MODES.join(', ')}`;
  return undefined;
}

/** Makes the claim of a namespace, or verifies that it is there. Returns what is wrong, or undefined. Throws KubeError. */
export async function ensureClaim(
  client: KubeClient,
  { namespace, config }: { readonly namespace: string; readonly config: ClaimConfig },
  signal: AbortSignal,
): Promise<string | undefined> {
  const { pvcName, create } = config;
  const claim = await findClaim(client, { namespace, name: pvcName }, signal);
  if (claim?.metadata?.deletionTimestamp !== undefined)
    return `checkpoint storage PVC ${namespace}/${pvcName} is being deleted`;
  if (claim !== undefined) return undefined;
  if (!create)
    return `checkpoint storage PVC ${namespace}/${pvcName} does not exist and checkpoint.storage.pvc.create is false`;
  const body = claimObject(namespace, config);
  try {
    await client.request({ method: 'POST', path: resourcePath(CLAIMS, namespace), body, signal });
  } catch (error) {
    if (isConflict(error)) return undefined;
    // What the server refuses of it is for people, and is not mended by trying again at once.
    if (!(error instanceof KubeError) || ![400, 403, 422].includes(error.status)) throw error;
    return `checkpoint storage PVC ${namespace}/${pvcName} cannot be created: ${error.message}`;
  }
  return undefined;
}

/** Without an owner: it has the artifacts of all checkpoints of its namespace. */
function claimObject(namespace: string, { pvcName, size, storageClassName = '', accessMode = '' }: ClaimConfig) {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: pvcName, namespace, labels: LABELS },
    spec: {
      accessModes: [accessMode === '' ? 'ReadWriteMany' : accessMode],
      volumeMode: 'Filesystem',
      resources: { requests: { storage: size } },
      ...(storageClassName === '' ? {} : { storageClassName }),
    },
  };
}

interface Claim {
  readonly metadata?: { readonly deletionTimestamp?: string };
}

async function findClaim(
  client: KubeClient,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  signal: AbortSignal,
): Promise<Claim | undefined> {
  try {
    return await client.request<Claim>({ method: 'GET', path: resourcePath(CLAIMS, namespace, name), signal });
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
