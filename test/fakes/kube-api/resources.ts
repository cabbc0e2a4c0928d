/** A JSON object as it came over the wire. */
export type Json = Record<string, unknown>;

/** A value of a JSON object as messages show it; nothing is the empty text. */
export function textOf(value: unknown): string {
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** The metadata of a stored object; absent maps are absent, never empty. */
interface ObjectMeta {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly creationTimestamp: string;
  readonly generateName?: string;
  readonly generation?: number;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly ownerReferences?: readonly Json[];
}

/** A stored object. Never changed in place: each write stores a new one. */
export interface KubeObject {
  readonly kind: string;
  readonly apiVersion: string;
  readonly metadata: ObjectMeta;
  readonly spec?: Json;
  readonly status?: Json;
  readonly [field: string]: unknown;
}

/** What the API server knows about one kind of object. */
export interface Resource {
  readonly group: string;
  readonly plural: string;
  readonly kind: string;
  readonly hasStatus: boolean;
  /** A PUT of an absent object creates it. */
  readonly createsOnPut: boolean;
  /** A PUT must name the resourceVersion that it replaces. */
  readonly needsVersionOnPut: boolean;
  readonly hasGeneration: boolean;
  /** What the empty object of a BOOKMARK carries besides metadata. */
  readonly bookmark: Json;
  /** Further fields that a field selector may name, besides metadata.name and metadata.namespace. */
  readonly selectableFields: readonly string[];
}

export const RESOURCES = {
  pods: {
    group: '',
    plural: 'pods',
    kind: 'Pod',
    hasStatus: true,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: true,
    bookmark: { spec: { containers: null }, status: {} },
    selectableFields: ['spec.nodeName', 'spec.restartPolicy', 'status.phase', 'status.podIP'],
  },
  events: {
    group: '',
    plural: 'events',
    kind: 'Event',
    hasStatus: false,
    createsOnPut: true,
    needsVersionOnPut: false,
    hasGeneration: false,
    bookmark: {
      involvedObject: {},
      source: {},
      firstTimestamp: null,
      lastTimestamp: null,
      eventTime: null,
      reportingComponent: '',
      reportingInstance: '',
    },
    selectableFields: [
      'involvedObject.kind',
      'involvedObject.namespace',
      'involvedObject.name',
      'involvedObject.uid',
      'reason',
      'type',
    ],
  },
  jobs: {
    group: 'batch',
    plural: 'jobs',
    kind: 'Job',
    hasStatus: true,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: true,
    bookmark: { spec: { template: { metadata: {}, spec: { containers: null } } }, status: {} },
    selectableFields: ['status.successful'],
  },
  leases: {
    group: 'coordination.k8s.io',
    plural: 'leases',
    kind: 'Lease',
    hasStatus: false,
    createsOnPut: true,
    needsVersionOnPut: true,
    hasGeneration: false,
    bookmark: { spec: {} },
    selectableFields: [],
  },
  /** Without what a real server checks of their type and data. */
  secrets: {
    group: '',
    plural: 'secrets',
    kind: 'Secret',
    hasStatus: false,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: false,
    bookmark: {},
    selectableFields: ['type'],
  },
  daemonsets: {
    group: 'apps',
    plural: 'daemonsets',
    kind: 'DaemonSet',
    hasStatus: true,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: true,
    bookmark: {},
    selectableFields: [],
  },
  persistentvolumeclaims: {
    group: '',
    plural: 'persistentvolumeclaims',
    kind: 'PersistentVolumeClaim',
    hasStatus: true,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: false,
    bookmark: {},
    selectableFields: [],
  },
  configmaps: {
    group: '',
    plural: 'configmaps',
    kind: 'ConfigMap',
    hasStatus: false,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: false,
    bookmark: {},
    selectableFields: [],
  },
} as const satisfies Record<string, Resource>;

/** Events once more: another view of the same objects. */
const EVENTS_VIEW: Resource = { ...RESOURCES.events, group: 'events.k8s.io' };

/** The plural names of the resources that the fake serves. */
export type ResourceName = keyof typeof RESOURCES;

/** `v1`, `batch/v1`, … */
export const apiVersionOf = (resource: Resource) => (resource.group === '' ? 'v1' : `${resource.group}/v1`);
/** `pods`, `jobs.batch`: how messages name a resource. */
export const qualifiedPlural = ({ group, plural }: Resource) => (group === '' ? plural : `${plural}.${group}`);
/** `Pod`, `Job.batch`: how messages name a kind. */
export const qualifiedKind = ({ group, kind }: Resource) => (group === '' ? kind : `${kind}.${group}`);
/** Where the store keeps an object; also the order of a list. */
export const keyOf = ({ namespace, name }: { namespace: string; name: string }) => `${namespace}/${name}`;

/** The resource that a path names, and whether the path is one the server knows at all. */
export type Target =
  | { readonly known: false; readonly isGroupKnown: boolean }
  | {
      readonly known: true;
      readonly resource: Resource;
      readonly namespace: string;
      readonly name: string;
      readonly subresource: string;
    };

/** Reads `/api/v1/…` and `/apis/<group>/v1/…`; empty strings stand for parts that are absent. */
export function parsePath(pathname: string): Target {
  const parts = pathname.split('/').slice(1).map(decodeURIComponent);
  const [group, rest] =
    parts[0] === 'api' && parts[1] === 'v1'
      ? ['', parts.slice(2)]
      : [parts[0] === 'apis' && parts[2] === 'v1' ? (parts[1] ?? '-') : '-', parts.slice(3)];
  const ofGroup = [...Object.values(RESOURCES), EVENTS_VIEW].filter((resource) => resource.group === group);
  const [namespace, tail] = rest[0] === 'namespaces' && rest.length > 2 ? [rest[1] ?? '', rest.slice(2)] : ['', rest];
  const resource = ofGroup.find(({ plural }) => plural === tail[0]);
  const subresource = tail[2] ?? '';
  const isKnown = resource !== undefined && (subresource === '' || (subresource === 'status' && resource.hasStatus));
  if (!isKnown || tail.length > 3) return { known: false, isGroupKnown: ofGroup.length > 0 };
  return { known: true, resource, namespace, name: tail[1] ?? '', subresource };
}
