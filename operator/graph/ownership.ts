import type { DynamoGraphDeployment } from '../../contract/dynamo-graph-deployment.ts';
import { LABELS } from '../../contract/keys.ts';
import { MANAGER } from './automatic.ts';
import { type Deployment, isOfRollout } from './deployment.ts';

/** Who makes Deployments of a DynamoGraphDeployment. */
export type RolloutOwner =
  | { readonly isOurs: true }
  /** `againMs`: when to look again. */
  | { readonly isOurs: false; readonly reason: RolloutOff; readonly message: string; readonly againMs?: number };

type RolloutOff = 'SwitchedOff' | 'OtherController' | 'LookingForController';

export interface OwnershipFacts {
  readonly graph: DynamoGraphDeployment;
  /** Those of its namespace, itself among them: who controls one controls all. */
  readonly neighbours: Iterable<DynamoGraphDeployment>;
  /** The Deployments of its namespace. */
  readonly deployments: readonly Deployment[];
  /** `graph.rollout` of the configuration. */
  readonly mode: 'auto' | 'on' | 'off';
  /** How long another controller has to show itself at a new object. */
  readonly settleMs: number;
  readonly now: Date;
}

/** People, and what applies what people write. They write no status, but may edit one. */
const PEOPLE = /^kubectl/;
/** What deletions put onto an object. */
const OF_DELETION = new Set(['foregroundDeletion', 'orphan']);

/** Whether the plain rollout is for this object. Pure. */
export function rolloutOwner({ graph, neighbours, deployments, mode, settleMs, now }: OwnershipFacts): RolloutOwner {
  if (mode === 'on') return { isOurs: true };
  if (mode === 'off') return { isOurs: false, reason: 'SwitchedOff', message: 'graph.rollout of the operator is off' };
  const sign = otherController(graph, neighbours, deployments);
  const { uid, creationTimestamp = '' } = graph.metadata;
  const isStarted = deployments.some(({ metadata }) => isOfRollout(metadata, uid));
  if (sign !== undefined) {
    const left = isStarted
      ? '. The Deployments that were made before stay as they are: delete them where the other controller has its own'
      : '';
    const message = `another controller rolls this out: ${sign}${left}. To have it done here all the same, set graph.rollout of the operator to on`;
    return { isOurs: false, reason: 'OtherController', message };
  }
  const ageMs = now.getTime() - Date.parse(creationTimestamp);
  const againMs = settleMs - ageMs;
  if (isStarted || !(againMs > 0)) return { isOurs: true };
  const message = 'the object is new: whether another controller takes it is waited for';
  return { isOurs: false, reason: 'LookingForController', message, againMs };
}

/** By what one can tell that another controller has objects of this kind; undefined where nothing tells. */
function otherController(
  graph: DynamoGraphDeployment,
  neighbours: Iterable<DynamoGraphDeployment>,
  deployments: readonly Deployment[],
): string | undefined {
  for (const each of [graph, ...neighbours]) {
    const sign = signOn(each);
    if (sign !== undefined) return sign;
  }
  const { name, uid } = graph.metadata;
  const isOfGraph = ({ labels, ownerReferences = [] }: Deployment['metadata']) =>
    labels?.[LABELS.graph] === name || ownerReferences.some((owner) => owner.uid === uid);
  const child = deployments.find(
    ({ metadata }) => isOfGraph(metadata) && metadata.labels?.[LABELS.managedBy] !== MANAGER,
  );
  return child && `Deployment ${child.metadata.name} is of it, and was not made here`;
}

function signOn({ metadata }: DynamoGraphDeployment): string | undefined {
  const finalizer = metadata.finalizers?.find((one) => !OF_DELETION.has(one));
  if (finalizer !== undefined) return `finalizer ${finalizer} holds ${metadata.name}`;
  const writer = fieldManagers(metadata['managedFields']).find(
    ({ manager = '', subresource }) => subresource === 'status' && manager !== MANAGER && !PEOPLE.test(manager),
  );
  return writer && `${writer.manager} writes the status of ${metadata.name}`;
}

interface FieldManager {
  readonly manager?: string;
  readonly subresource?: string;
}

function fieldManagers(fields: unknown): readonly FieldManager[] {
  return Array.isArray(fields)
    ? fields.filter((one): one is FieldManager => typeof one === 'object' && one !== null)
    : [];
}
