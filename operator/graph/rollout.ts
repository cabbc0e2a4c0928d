import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import { legalName } from '../../contract/operator-names.ts';
import { type Placeholder, restorePod } from '../../contract/restore-pod.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
import { withWorkerDefaults } from '../../contract/worker-defaults.ts';
import { canonicalHash } from '../../contract/worker-hash.ts';
import type { NewObject } from '../control/object-writer.ts';
import { MANAGER, ownerOf, withoutSwitches } from './automatic.ts';
import {
  type Component,
  type ComponentTemplate,
  componentLabels,
  componentTemplate,
  generationOf,
  isWorker,
  MAIN,
  selectorLabels,
  sharedMemoryOf,
  writtenTemplate,
} from './component.ts';
import { startedText } from './deployment.ts';
import type { Start, Started } from './start.ts';

/** Where the original's frontend listens. */
const FRONTEND_PORT = 8000;

/** How pods are shaped for a restore. */
export interface Shaping {
  /** Profile of the node that the source ran under; undefined leaves what the pod says. */
  readonly seccompProfile: string | undefined;
  readonly placeholder: Placeholder;
}

/** What the Deployment of a service should be. */
export interface Wish {
  readonly name: string;
  readonly replicas: number;
  /** Undefined: its workers were not started yet. */
  readonly started: Started | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** Undefined: the one that is there stays, and so does `basis`. */
  readonly template: ComponentTemplate | undefined;
  /** What the template was made of, as a hash: a newer operator may make more of it, and restarts no worker for that. */
  readonly basis: string | undefined;
}

/** The name of a service's Deployment: that of the original, where no other service of the object has the same. Pods cannot have dots in theirs. */
export function deploymentName({ graph, name }: Component): string {
  const lower = (text: string) => text.toLowerCase();
  const isOnlyOne = Object.keys(graph.spec.services).filter((one) => lower(one) === lower(name)).length === 1;
  return legalName(`${graph.metadata.name}-${isOnlyOne ? lower(name) : name}`.replaceAll('.', '_'));
}

/** The name of the Service of a frontend, which must begin with a letter. */
export function serviceName(deployment: string): string {
  return /^[a-z]/.test(deployment) ? deployment : legalName(`frontend-${deployment}`);
}

/** What is wanted of a service's Deployment. `storage`: needed to restore. Throws ShapingError. */
export function wishOf(component: Component, start: Start, shaping: Shaping, storage?: StorageSource): Wish {
  const { replicas = 1 } = component.service;
  const isHeld = start.kind === 'held';
  const labels = { ...component.service.labels, ...componentLabels(component), [LABELS.managedBy]: MANAGER };
  return {
    name: deploymentName(component),
    replicas: isHeld ? 0 : replicas,
    started: isHeld ? undefined : { generation: generationOf(component), as: isRestored(start) ? 'restored' : 'cold' },
    labels,
    template: start.kind === 'kept' ? undefined : startTemplate(component, start, shaping, storage),
    basis: start.kind === 'kept' ? undefined : basisOf(component, start, shaping, storage),
  };
}

function basisOf(component: Component, start: Start, shaping: Shaping, storage?: StorageSource): string {
  const { componentType, dynamoNamespace, checkpoint } = component.service;
  const sharedMemory = sharedMemoryOf(component);
  const { metadata, spec } = writtenTemplate(component);
  const { seccompProfile, placeholder } = shaping;
  const written = { ...metadata, annotations: withoutSwitches(metadata.annotations), spec };
  const { isEnabled, job } = { isEnabled: checkpoint?.enabled, job: checkpoint?.job?.targetContainerName };
  const how = start.kind === 'held' ? { kind: start.kind } : start;
  const restoring = start.kind === 'restored' ? { storage, seccompProfile, placeholder } : {};
  return canonicalHash({ written, componentType, dynamoNamespace, sharedMemory, isEnabled, job, how, restoring });
}

const isRestored = ({ kind }: Start) => kind === 'restored' || kind === 'kept';

function startTemplate(
  component: Component,
  start: Start,
  shaping: Shaping,
  storage?: StorageSource,
): ComponentTemplate {
  const { metadata, spec } = componentTemplate(component);
  const annotations = withoutSwitches(metadata.annotations);
  const plain = { metadata: { ...metadata, annotations }, spec };
  if (component.service.checkpoint?.enabled !== true || !isWorker(component)) return plain;
  const targets =
    start.kind === 'restored' ? start.targets : [component.service.checkpoint.job?.targetContainerName ?? MAIN];
  const worker = { ...plain, spec: withWorkerDefaults(spec, targets, sharedMemoryOf(component)) };
  if (start.kind === 'candidate') return candidate(worker, start);
  if (start.kind !== 'restored') return worker;
  if (storage === undefined) throw new ShapingError('where the artifacts are is not known');
  const { id: checkpointId, version } = start;
  const { seccompProfile, placeholder } = shaping;
  return restorePod(worker, { checkpointId, version, targets, storage, seccompProfile, placeholder });
}

function candidate(
  { metadata, spec }: ComponentTemplate,
  { checkpoint, policy }: Start & { kind: 'candidate' },
): ComponentTemplate {
  const stamps = {
    [ANNOTATIONS.restoreCandidate]: 'true',
    [ANNOTATIONS.checkpointName]: checkpoint,
    [ANNOTATIONS.startupPolicy]: policy,
  };
  return { metadata: { ...metadata, annotations: { ...metadata.annotations, ...stamps } }, spec };
}

/** The annotations that a wish leaves at the Deployment, for the next look at it. */
export function wishMarks(wish: Wish): Record<string, string | undefined> {
  const { started, basis } = wish;
  return {
    ...(basis === undefined ? {} : { [ANNOTATIONS.rolloutApplied]: basis }),
    [ANNOTATIONS.rolloutStarted]: started && startedText(started),
  };
}

/** The Deployment itself, as it is made. */
export function deploymentObject(component: Component, wish: Wish): NewObject {
  const { name, replicas, labels, template } = wish;
  const annotations = Object.fromEntries(Object.entries(wishMarks(wish)).filter(([, value]) => value !== undefined));
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: {
      name,
      namespace: component.graph.metadata.namespace,
      labels,
      annotations,
      ownerReferences: [ownerOf(component)],
    },
    spec: { replicas, selector: { matchLabels: selectorLabels(component) }, template },
  };
}

/** The Service by which a frontend is reached; undefined for other components. Throws ShapingError. */
export function serviceObject(component: Component): (NewObject & { readonly spec: object }) | undefined {
  if (component.service.componentType !== 'frontend') return undefined;
  const { ports = [] } = componentTemplate(component).spec.containers.find((one) => one.name === MAIN) ?? {};
  const port = (ports.find((one) => one.name === 'http') ?? ports[0])?.containerPort ?? FRONTEND_PORT;
  const labels = { ...componentLabels(component), [LABELS.managedBy]: MANAGER };
  const { namespace } = component.graph.metadata;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: serviceName(deploymentName(component)),
      namespace,
      labels,
      ownerReferences: [ownerOf(component)],
    },
    spec: {
      selector: selectorLabels(component),
      ports: [{ name: 'http', port, targetPort: port, protocol: 'TCP' }],
    },
  };
}

/** `status.state`, in the words of the original. */
export type GraphState = 'pending' | 'successful' | 'failed';
