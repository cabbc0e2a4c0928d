import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION, LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import type { Cluster, Volume } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { IMAGES } from './environment/images.ts';
import type { ContainerRequest, Pod, PodRequest } from './environment/pod.ts';

/** What is to be checkpointed, and how its pod asks for it. */
export interface SourceRequest extends ContainerRequest {
  /** Checkpoint id; a new one without it. */
  readonly id?: string;
  readonly version?: string;
  readonly after?: 'resume' | 'stop';
  readonly existing?: 'adopt' | 'replace';
  readonly pod?: Partial<PodRequest>;
}

/** A container that is a checkpoint source. Targets are made after its request, so that they match. */
export interface Source {
  readonly id: string;
  readonly version: string;
  readonly pod: Pod;
  readonly container: Container;
  readonly request: SourceRequest;
}

/** A source whose checkpoint succeeded. */
export interface Checkpointed extends Source {
  /** The agent's last log line about the operation. */
  readonly end: JsonLine;
  /** The artifact's directory on this machine. */
  readonly artifact: string;
}

/** In what a target differs from its source. */
export type TargetRequest = Partial<ContainerRequest> & { readonly pod?: Partial<PodRequest> };

export interface Target {
  readonly pod: Pod;
  readonly container: Container;
}

export interface Restored extends Target {
  readonly end: JsonLine;
}

let made = 0;

/** A name that no other pod or checkpoint of this run has. */
export function freshName(stem: string): string {
  return `${stem}-${++made}`;
}

/** Label and annotations that make a pod a checkpoint source; a restore target without `source`. */
export function snapshotPod(
  wanted: { readonly id: string; readonly version?: string; readonly containers?: readonly string[] },
  source?: Pick<SourceRequest, 'after' | 'existing'>,
): { labels: Record<string, string>; annotations: Record<string, string> } {
  return {
    labels: { [LABELS.checkpointId]: wanted.id, ...(source && { [LABELS.checkpointSource]: 'true' }) },
    annotations: {
      [ANNOTATIONS.targetContainers]: (wanted.containers ?? ['main']).join(','),
      ...(wanted.version && { [ANNOTATIONS.artifactVersion]: wanted.version }),
      ...(source?.after && { [ANNOTATIONS.afterCheckpoint]: source.after }),
      ...(source?.existing && { [ANNOTATIONS.existingArtifact]: source.existing }),
    },
  };
}

/**
 * Starts a source and waits until its workload is set up. With a control directory (the default) the agent does nothing until
 * `markReady`; without one it checkpoints the container once it has been running for the agent's quiesceDelaySeconds.
 */
export async function runSource(cluster: Cluster, request: SourceRequest): Promise<Source> {
  const id = request.id ?? freshName('checkpoint');
  const version = request.version ?? DEFAULT_ARTIFACT_VERSION;
  const { labels, annotations } = snapshotPod({ id, version: request.version ?? '', ...named(request) }, request);
  const pod = await cluster.runPod({
    name: freshName('source'),
    ...request.pod,
    labels: { ...labels, ...request.pod?.labels },
    annotations: { ...annotations, ...request.pod?.annotations },
  });
  const container = await pod.run({ image: IMAGES.placeholder, ...request });
  await container.ready();
  return { id, version, pod, container, request };
}

function named(request: Partial<ContainerRequest>): { containers?: readonly string[] } {
  return request.name ? { containers: [request.name] } : {};
}

/** Says in the source's place that it may be checkpointed now. */
export async function markReady(container: Container): Promise<void> {
  await writeFile(join(controlDirectory(container), SENTINELS.ready), 'ready');
}

/** What lies in a container's control directory under this name. */
export function sentinel(container: Container, name: string): string {
  return readFileSync(join(controlDirectory(container), name), 'utf8');
}

export function controlDirectory(container: Container): string {
  if (container.controlDirectory === undefined) throw new Error(`container ${container.name} has no control directory`);
  return container.controlDirectory;
}

/** The agent's line about the end of an operation on this container, whatever the end was. */
export async function operationEnd(
  agent: Agent,
  operation: 'checkpoint' | 'restore',
  container: Container,
  { timeoutMs = 60_000, from = 0 }: { timeoutMs?: number; from?: number } = {},
): Promise<JsonLine> {
  return agent.waitForLog(
    `the end of the ${operation} of container ${container.name}`,
    (line) =>
      line['operation'] === operation &&
      line['containerId'] === container.id &&
      (line['msg'] === 'operation succeeded' || line['msg'] === 'operation failed'),
    { timeoutMs, from },
  );
}

/** Throws with all that the agent said about it where an operation did not succeed. */
export function requireSuccess(agent: Agent, end: JsonLine, container: Container): JsonLine {
  if (end['msg'] === 'operation succeeded') return end;
  const lines = agent.logs().filter((line) => line['operationId'] === end['operationId']);
  const output = container.logs().slice(-10);
  throw new Error(
    [
      `${end['operation']} failed in step ${end['step']}: ${end['problem']}`,
      ...lines.map((line) => JSON.stringify(line)),
      ...output.map(({ stream, text }) => `${stream}: ${text}`),
    ].join('\n'),
  );
}

/** Where an artifact lies on this machine. */
export function artifactPath(
  volume: Volume,
  { id, version }: { readonly id: string; readonly version: string },
): string {
  return join(volume.hostPath, id, 'versions', version);
}

/** The record of an artifact, as it lies there. */
export function readRecord(artifact: string): Record<string, unknown> {
  return parse(readFileSync(join(artifact, 'manifest.yaml'), 'utf8')) as Record<string, unknown>;
}

/** Runs a source, has it checkpointed as soon as its workload is set up, and waits for the artifact. */
export async function checkpointed(cluster: Cluster, agent: Agent, request: SourceRequest): Promise<Checkpointed> {
  const source = await runSource(cluster, request);
  if (source.container.controlDirectory !== undefined) await markReady(source.container);
  return finished(cluster, agent, source);
}

/** Waits for the checkpoint of a source that was started before. */
export async function finished(cluster: Cluster, agent: Agent, source: Source): Promise<Checkpointed> {
  const end = requireSuccess(agent, await operationEnd(agent, 'checkpoint', source.container), source.container);
  return { ...source, end, artifact: artifactPath(cluster.volume, source) };
}

/** Starts a pod with a placeholder that is like the source in all that must match, but for what `over` changes. */
export async function runTarget(
  cluster: Cluster,
  source: Pick<Source, 'id' | 'version' | 'request'>,
  over: TargetRequest = {},
): Promise<Target> {
  const { pod: sourcePod, command: _command, args: _args, id: _id, version, ...like } = source.request;
  const { pod: ownPod, ...own } = over;
  const wanted = { ...like, ...own };
  const { labels, annotations } = snapshotPod({ id: source.id, version: version ?? '', ...named(wanted) });
  const pod = await cluster.runPod({
    name: freshName('target'),
    ...(sourcePod?.hostNetwork === undefined ? {} : { hostNetwork: sourcePod.hostNetwork }),
    ...ownPod,
    labels: { ...labels, ...ownPod?.labels },
    annotations: { ...annotations, ...ownPod?.annotations },
  });
  return { pod, container: await pod.runPlaceholder(wanted) };
}

/** Restores an artifact into a new pod, and waits until that is done. */
export async function restored(
  cluster: Cluster,
  agent: Agent,
  source: Pick<Source, 'id' | 'version' | 'request'>,
  over: TargetRequest = {},
): Promise<Restored> {
  const target = await runTarget(cluster, source, over);
  const end = requireSuccess(agent, await operationEnd(agent, 'restore', target.container), target.container);
  return { ...target, end };
}
