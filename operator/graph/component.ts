import { sharedMemory } from '../../contract/dynamo-checkpoint.ts';
import type { DynamoGraphDeployment } from '../../contract/dynamo-graph-deployment.ts';
import { LABELS } from '../../contract/keys.ts';
import { legalName } from '../../contract/operator-names.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { SharedMemory } from '../../contract/worker-defaults.ts';
import { workerHash } from '../../contract/worker-hash.ts';
import type { Container, EnvVar, ObjectMeta, PodSpec } from '../../kube/objects.ts';
import { podParts } from './pod-parts.ts';
import { containerResources } from './resources.ts';

type Service = DynamoGraphDeployment['spec']['services'][string];

/** One service of a DynamoGraphDeployment. */
export interface Component {
  readonly graph: DynamoGraphDeployment;
  /** The key of `spec.services`. */
  readonly name: string;
  readonly service: Service;
}

/** A pod template with both of its halves. */
export interface ComponentTemplate {
  readonly metadata: ObjectMeta;
  readonly spec: PodSpec;
}

/** The container that `mainContainer` becomes. */
export const MAIN = 'main';
const DEFAULT_SHARED_MEMORY = '8Gi';
/** Types of components that serve a model. Where none is said, it is one that does. */
const WORKERS: readonly string[] = ['worker', 'prefill', 'decode'];

/** The services of a DynamoGraphDeployment in the order of their names. */
export function componentsOf(graph: DynamoGraphDeployment): readonly Component[] {
  const names = Object.keys(graph.spec.services).sort();
  return names.flatMap((name) => {
    const service = graph.spec.services[name];
    return service === undefined ? [] : [{ graph, name, service }];
  });
}

export function isWorker({ service: { componentType = '' } }: Component): boolean {
  return componentType === '' || WORKERS.includes(componentType);
}

/**
 * Which generation a worker is of: what its label says, else the hash of its template as it is written in the object. What this operator
 * adds to it does not count, so that a newer operator does not make all checkpoints anew. Throws ShapingError.
 */
export function generationOf(component: Component): string {
  return workerHash(writtenTemplate(component));
}

/** The pod of a service as the object says it, with nothing added. Throws ShapingError where it says none. */
export function writtenTemplate({ graph, name, service }: Component): ComponentTemplate {
  const {
    extraPodSpec = {},
    extraPodMetadata = {},
    envs,
  } = podParts({
    envs: graph.spec['envs'],
    extraPodMetadata: service['extraPodMetadata'],
    extraPodSpec: service.extraPodSpec,
  });
  const { mainContainer = {}, ...spec } = extraPodSpec;
  const { labels = {}, annotations = {} } = extraPodMetadata;
  const others = (spec['containers'] ?? []) as Container[];
  if (others.some((one) => one.name === MAIN))
    throw new ShapingError(`service ${name}: a container of extraPodSpec is called ${MAIN}; say it as mainContainer`);
  const image = mainContainer['image'];
  if (image === undefined || image === '')
    throw new ShapingError(`service ${name}: extraPodSpec.mainContainer has no image; say one`);
  // An empty field is null, which the definition lets through: it is not kept beside what is made of it.
  const { env: own, ...written } = mainContainer as unknown as Container;
  const env = mergedEnv([envs as EnvVar[] | undefined, service.envs as EnvVar[] | undefined, own]);
  const main: Container = {
    ...probesOf(service),
    ...written,
    name: MAIN,
    ...(env.length === 0 ? {} : { env }),
    ...(service.envFromSecret === undefined ? {} : { envFrom: withSecret(written.envFrom, service.envFromSecret) }),
    ...(written.resources === undefined ? containerResources(service.resources) : {}),
  };
  return {
    metadata: { labels: { ...service.labels, ...labels }, annotations: { ...service.annotations, ...annotations } },
    spec: { ...(spec as Partial<PodSpec>), containers: [main, ...others] },
  };
}

/** The pod of a service with what every pod of its kind is told: whose it is, in labels and variables. Throws ShapingError. */
export function componentTemplate(component: Component): ComponentTemplate {
  const { metadata, spec } = writtenTemplate(component);
  const labels = { ...metadata.labels, ...componentLabels(component) };
  const generation = isWorker(component) ? { [LABELS.workerHash]: generationOf(component) } : {};
  const containers = spec.containers.map((one) => (one.name === MAIN ? withIdentity(one, component) : one));
  return { metadata: { ...metadata, labels: { ...labels, ...generation } }, spec: { ...spec, containers } };
}

/** The tmpfs of a worker with a checkpoint: as for its checkpoint's Job, else for the service, else of the size that a DynamoCheckpoint has by default. */
export function sharedMemoryOf({ service }: Component): SharedMemory {
  const said = service.checkpoint?.job?.sharedMemory ?? service['sharedMemory'];
  return { size: DEFAULT_SHARED_MEMORY, ...sharedMemory.safeParse(said).data };
}

/** The labels by which the pods of a service are found. They never change: a Deployment's selector cannot. */
export function selectorLabels({ graph, name }: Component): Record<string, string> {
  return { [LABELS.graph]: legalName(graph.metadata.name), [LABELS.component]: labelValue(name) };
}

/** Labels of all that is made for a service. */
export function componentLabels(component: Component): Record<string, string> {
  const { componentType = '' } = component.service;
  return {
    ...selectorLabels(component),
    ...(componentType === '' ? {} : { [LABELS.componentType]: labelValue(componentType) }),
    [LABELS.dynamoNamespace]: labelValue(dynamoNamespace(component)),
  };
}

/** What it is called in the registry of workers; as the original has it. */
function dynamoNamespace({ graph: { metadata }, service }: Component): string {
  const said = service['dynamoNamespace'];
  return typeof said === 'string' && said !== '' ? said : `${metadata.namespace}-${metadata.name}`;
}

/** The text where it can be the value of a label, else one that stands for it. */
function labelValue(text: string): string {
  return /^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/.test(text) ? text : legalName(text);
}

/** Later lists win. The order is that of the first mention. */
function mergedEnv(lists: readonly (readonly EnvVar[] | undefined)[]): EnvVar[] {
  const merged = new Map<string, EnvVar>();
  for (const list of lists) for (const one of list ?? []) merged.set(one.name, one);
  return [...merged.values()];
}

function withSecret(envFrom: Container['envFrom'] = [], name: string): NonNullable<Container['envFrom']> {
  return [...envFrom, { secretRef: { name } }];
}

/** Probes can be said beside the container, too. */
function probesOf(service: Service): Partial<Container> {
  const names = ['livenessProbe', 'readinessProbe', 'startupProbe'] as const;
  return Object.fromEntries(names.flatMap((name) => (service[name] === undefined ? [] : [[name, service[name]]])));
}

/** Who the pod is: workers register by it, and restored ones take it over from the placeholder. What is said already stays. */
function withIdentity(container: Container, component: Component): Container {
  const { graph, name } = component;
  const field = (fieldPath: string) => ({ valueFrom: { fieldRef: { fieldPath } } });
  const identity: EnvVar[] = [
    { name: 'DYN_NAMESPACE', value: dynamoNamespace(component) },
    { name: 'DYN_COMPONENT', value: name },
    { name: 'DYN_PARENT_DGD_K8S_NAME', value: graph.metadata.name },
    { name: 'DYN_PARENT_DGD_K8S_NAMESPACE', value: graph.metadata.namespace },
    { name: 'POD_NAME', ...field('metadata.name') },
    { name: 'POD_NAMESPACE', ...field('metadata.namespace') },
    { name: 'POD_UID', ...field('metadata.uid') },
  ];
  const { env = [] } = container;
  const said = new Set(env.map((one) => one.name));
  return { ...container, env: [...env, ...identity.filter((one) => !said.has(one.name))] };
}
