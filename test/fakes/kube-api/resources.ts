import type { CustomSchema } from './crds.ts';

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
  /** Left out: v1. */
  readonly version?: string;
  readonly plural: string;
  readonly kind: string;
  readonly hasStatus: boolean;
  /** Its objects are in no namespace. */
  readonly isClusterScoped?: boolean;
  /** Of a custom resource. */
  readonly schema?: CustomSchema;
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
  deployments: {
    group: 'apps',
    plural: 'deployments',
    kind: 'Deployment',
    hasStatus: true,
    createsOnPut: false,
    needsVersionOnPut: false,
    hasGeneration: true,
    bookmark: { spec: { selector: null, template: { metadata: {}, spec: { containers: null } } }, status: {} },
    selectableFields: [],
  },
  mutatingwebhookconfigurations: {
    group: 'admissionregistration.k8s.io',
    plural: 'mutatingwebhookconfigurations',
    kind: 'MutatingWebhookConfiguration',
    isClusterScoped: true,
    hasStatus: false,
    createsOnPut: false,
    needsVersionOnPut: true,
    hasGeneration: true,
    bookmark: {},
    selectableFields: [],
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
  /** Nothing is reached through them, and they get no address. */
  services: {
    group: '',
    plural: 'services',
    kind: 'Service',
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

/** What every server has. */
export const BUILT_IN: readonly Resource[] = Object.values(RESOURCES);

/** The plural names of the resources that the fake serves, those of the shipped definitions among them. */
export type ResourceName = keyof typeof RESOURCES | 'dynamocheckpoints' | 'dynamographdeployments';

/** `v1`, `batch/v1`, … */
export const apiVersionOf = ({ group, version = 'v1' }: Resource) => (group === '' ? version : `${group}/${version}`);
/** `pods`, `jobs.batch`: how messages name a resource. */
export const qualifiedPlural = ({ group, plural }: Resource) => (group === '' ? plural : `${plural}.${group}`);
/** `Pod`, `Job.batch`: how messages name a kind. */
export const qualifiedKind = ({ group, kind }: Resource) => (group === '' ? kind : `${kind}.${group}`);
/** Where the store keeps an object; also the order of a list. */
export const keyOf = ({ namespace, name }: { namespace?: string | undefined; name: string }) =>
  `${namespace ?? ''}/${name}`;

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

/** Reads `/api/v1/…` and `/apis/<group>/<version>/…`; empty strings stand for parts that are absent. */
export function parsePath(pathname: string, served: readonly Resource[]): Target {
  const parts = pathname.split('/').slice(1).map(decodeURIComponent);
  const isCore = parts[0] === 'api';
  const [group, asked] = isCore ? ['', parts[1]] : [parts[0] === 'apis' ? (parts[1] ?? '-') : '-', parts[2]];
  const rest = parts.slice(isCore ? 2 : 3);
  const ofGroup = [...served, EVENTS_VIEW].filter(
    (resource) => resource.group === group && (resource.version ?? 'v1') === asked,
  );
  const [namespace, tail] = rest[0] === 'namespaces' && rest.length > 2 ? [rest[1] ?? '', rest.slice(2)] : ['', rest];
  const resource = ofGroup.find(({ plural }) => plural === tail[0]);
  const subresource = tail[2] ?? '';
  const subresources = ['', ...(resource?.hasStatus ? ['status'] : []), ...(resource?.kind === 'Pod' ? ['exec'] : [])];
  const isKnown = resource !== undefined && subresources.includes(subresource);
  if (!isKnown || tail.length > 3) return { known: false, isGroupKnown: ofGroup.length > 0 };
  return { known: true, resource, namespace, name: tail[1] ?? '', subresource };
}
