import type { Json, KubeObject } from './resources.ts';
import { timestamp } from './writes.ts';

/** What a test says about one container of a pod. */
export interface ContainerFact {
  readonly name: string;
  readonly state: 'waiting' | 'running' | 'terminated';
  /** The runtime's id, without `containerd://`. A container that waits for its first start has none. */
  readonly id?: string;
  /** Default: a running container is ready. */
  readonly isReady?: boolean;
  /** False while a startup probe has not passed; default: a running container has started. */
  readonly isStarted?: boolean;
  readonly exitCode?: number;
  /** Why it waits or ended; the default is what a kubelet says most often. */
  readonly reason?: string;
  readonly message?: string;
  readonly restartCount?: number;
  /** How the run before this one ended. */
  readonly last?: { readonly id: string; readonly exitCode: number; readonly reason?: string };
  /** RFC 3339 in whole seconds; the default is now. */
  readonly startedAt?: string;
  readonly finishedAt?: string;
}

/** What a test says about a pod. */
export interface PodFacts {
  /** By the name of the container, init containers too; those without a fact still wait. */
  readonly containers: ReadonlyMap<string, ContainerFact>;
  readonly hasSandbox: boolean;
  readonly podIp: string;
  readonly hostIp: string;
  /** False: the containers have ended, but the kubelet has not set the phase yet, as it does for about a second. */
  readonly isSettled: boolean;
}

interface Named {
  readonly name: string;
  readonly image?: string;
}

interface Condition extends Json {
  readonly type: string;
  readonly status: 'True' | 'False';
}

const IMAGE_ID = 'sha256:71854d70435f15ee83563776c2ee1d08f0e6bc7afad7011f390d44a51db37ee8';

/** The status that a kubelet writes for these facts. Conditions that others wrote stay, and so do times of what did not change. */
export function podStatus(pod: KubeObject, facts: PodFacts): Json {
  const { spec = {}, status = {}, metadata } = pod;
  const containers = (spec['containers'] ?? []) as Named[];
  const inits = (spec['initContainers'] ?? []) as Named[];
  const factOf = ({ name }: Named): ContainerFact => facts.containers.get(name) ?? { name, state: 'waiting' };
  const waitReason = inits.length > 0 ? 'PodInitializing' : 'ContainerCreating';
  const show = (container: Named) => containerStatus(container, factOf(container), waitReason);
  const life = lifeOf(pod, containers.map(factOf), facts.isSettled);
  const initFacts = inits.map(factOf);
  const hasIp = [...initFacts, ...containers.map(factOf)].some(({ id }) => id !== undefined);
  const conditions = ownConditions(pod, { life, facts, initFacts, containers: containers.map(factOf) });
  return {
    ...status,
    observedGeneration: metadata.generation ?? 1,
    phase: life.phase,
    conditions: mergedConditions((status['conditions'] ?? []) as Json[], conditions, metadata.generation ?? 1),
    hostIP: facts.hostIp,
    hostIPs: [{ ip: facts.hostIp }],
    ...(hasIp ? { podIP: facts.podIp, podIPs: [{ ip: facts.podIp }] } : {}),
    startTime: status['startTime'] ?? timestamp(),
    ...(inits.length > 0 ? { initContainerStatuses: inits.map(show).map(initReady) } : {}),
    containerStatuses: containers.map(show),
    qosClass: status['qosClass'] ?? 'BestEffort',
    resources: status['resources'] ?? {},
  };
}

function containerStatus({ name, image = '' }: Named, fact: ContainerFact, waitReason: string): Json {
  const { state, id, restartCount = 0, last, isReady = true, isStarted = true } = fact;
  const isRunning = state === 'running';
  const lastState = last === undefined ? {} : { terminated: terminated({ ...fact, state: 'terminated', ...last }) };
  return {
    name,
    state: { [state]: stateOf(fact, waitReason) },
    lastState,
    ready: isRunning && isStarted && isReady,
    restartCount,
    image,
    imageID: id === undefined ? '' : IMAGE_ID,
    ...(id === undefined ? {} : { containerID: `containerd://${id}` }),
    started: isRunning && isStarted,
    ...(id === undefined ? {} : { resources: {}, user: { linux: { uid: 0, gid: 0, supplementalGroups: [0] } } }),
  };
}

/** An init container is ready when it has ended well. */
function initReady(shown: Json): Json {
  const { terminated: end } = shown['state'] as { terminated?: { exitCode: number } };
  return { ...shown, ready: end?.exitCode === 0 };
}

function stateOf(fact: ContainerFact, waitReason: string): Json {
  const { state, reason = waitReason, message, startedAt = timestamp() } = fact;
  if (state === 'running') return { startedAt };
  if (state === 'terminated') return terminated(fact);
  return { reason, ...(message === undefined ? {} : { message }) };
}

function terminated({
  id = '',
  exitCode = 0,
  reason,
  startedAt = timestamp(),
  finishedAt = timestamp(),
}: ContainerFact): Json {
  const word = reason ?? (exitCode === 0 ? 'Completed' : 'Error');
  return { exitCode, reason: word, startedAt, finishedAt, containerID: `containerd://${id}` };
}

interface Life {
  readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed';
  /** How all containers ended for good, if they did. */
  readonly ending: 'PodCompleted' | 'PodFailed' | undefined;
}

function lifeOf({ spec, metadata }: KubeObject, facts: readonly ContainerFact[], isSettled: boolean): Life {
  const policy = spec?.['restartPolicy'] ?? 'Always';
  const isDeleted = metadata.deletionTimestamp !== undefined;
  const isOver = ({ state, exitCode = 0 }: ContainerFact) =>
    state === 'terminated' && (isDeleted || policy === 'Never' || (policy === 'OnFailure' && exitCode === 0));
  const hasBegun = facts.every(({ id }) => id !== undefined);
  if (facts.length === 0 || !facts.every(isOver)) return { phase: hasBegun ? 'Running' : 'Pending', ending: undefined };
  const isGood = facts.every(({ exitCode = 0 }) => exitCode === 0);
  const phase = isSettled ? (isGood ? 'Succeeded' : 'Failed') : 'Running';
  return { phase, ending: isGood ? 'PodCompleted' : 'PodFailed' };
}

interface Seen {
  readonly life: Life;
  readonly facts: PodFacts;
  readonly initFacts: readonly ContainerFact[];
  readonly containers: readonly ContainerFact[];
}

/** The five conditions that are the kubelet's, in its order. */
function ownConditions(pod: KubeObject, { life, facts, initFacts, containers }: Seen): Condition[] {
  const isOver = life.ending !== undefined && facts.isSettled;
  const incomplete = initFacts.filter(({ state, exitCode = 0 }) => state !== 'terminated' || exitCode !== 0);
  const unready = containers.filter(
    ({ state, isReady = true, isStarted = true }) => state !== 'running' || !isReady || !isStarted,
  );
  const notReady = { reason: 'ContainersNotReady', message: `containers with unready status: ${listOf(unready)}` };
  const why = life.ending === undefined ? notReady : { reason: life.ending };
  const ready = (type: string, gate?: Json): Condition =>
    unready.length > 0
      ? { type, status: 'False', ...why }
      : { type, status: gate === undefined ? 'True' : 'False', ...gate };
  const initMessage = `containers with incomplete status: ${listOf(incomplete)}`;
  return [
    { type: 'PodReadyToStartContainers', status: facts.hasSandbox && !isOver ? 'True' : 'False' },
    incomplete.length > 0
      ? { type: 'Initialized', status: 'False', reason: 'ContainersNotInitialized', message: initMessage }
      : { type: 'Initialized', status: 'True', ...(life.ending === 'PodCompleted' ? { reason: life.ending } : {}) },
    ready('Ready', closedGate(pod)),
    ready('ContainersReady'),
    { type: 'PodScheduled', status: 'True' },
  ];
}

const listOf = (facts: readonly ContainerFact[]) => `[${facts.map(({ name }) => name).join(' ')}]`;

/** The first readiness gate that keeps the pod from being ready, in the words of a kubelet. */
function closedGate({ spec, status }: KubeObject): Json | undefined {
  const conditions = (status?.['conditions'] ?? []) as Json[];
  for (const { conditionType } of (spec?.['readinessGates'] ?? []) as Json[]) {
    const found = conditions.find(({ type }) => type === conditionType);
    if (found?.['status'] === 'True') continue;
    const absent = `corresponding condition of pod readiness gate "${String(conditionType)}" does not exist.`;
    const closed = `the status of pod readiness gate "${String(conditionType)}" is not "True", but ${String(found?.['status'])}`;
    return { reason: 'ReadinessGatesNotReady', message: found === undefined ? absent : closed };
  }
  return undefined;
}

/** The kubelet changes its own conditions in place and adds those that are gone; the others it keeps. */
function mergedConditions(old: readonly Json[], own: readonly Condition[], observedGeneration: number): Json[] {
  const dated = own.map(({ type, status, ...why }) => {
    const before = old.find((condition) => condition['type'] === type);
    const lastTransitionTime = before?.['status'] === status ? before['lastTransitionTime'] : timestamp();
    return { type, observedGeneration, status, lastProbeTime: null, lastTransitionTime, ...why };
  });
  const kept = old.map((condition) => dated.find(({ type }) => type === condition['type']) ?? condition);
  return [...kept, ...dated.filter(({ type }) => !old.some((condition) => condition['type'] === type))];
}
