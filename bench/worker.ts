import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { ANNOTATIONS, LABELS } from '../contract/keys.ts';
import type { Agent } from '../test/real/environment/agent.ts';
import type { Container, JsonLine } from '../test/real/environment/container.ts';

/** The command of the worker with this much random memory. */
export function workerCommand(mebibytes: number): string[] {
  const source = readFileSync(resolve(import.meta.dirname, 'worker.py'), 'utf8');
  return ['/usr/bin/python3', '-u', '-c', source, `${mebibytes}`];
}

/** Labels and annotations of a pod whose container `main` is to be checkpointed. */
export function sourceKeys(checkpointId: string, after: 'resume' | 'stop') {
  return {
    labels: { [LABELS.checkpointSource]: 'true', [LABELS.checkpointId]: checkpointId },
    annotations: { [ANNOTATIONS.targetContainers]: 'main', [ANNOTATIONS.afterCheckpoint]: after },
  };
}

/** Labels and annotations of a pod whose container `main` is to be restored into. */
export function targetKeys(checkpointId: string) {
  return {
    labels: { [LABELS.restoreTarget]: 'true', [LABELS.checkpointId]: checkpointId },
    annotations: { [ANNOTATIONS.targetContainers]: 'main' },
  };
}

/** The numbers that a worker printed into its container's log. */
export function counters(container: Container): number[] {
  return container.output().flatMap(({ counter }) => (typeof counter === 'number' ? [counter] : []));
}

/** How an operation of the agent ended, from its log. */
export interface Ended {
  /** When the agent said so, milliseconds since the epoch. */
  readonly atMs: number;
  readonly seconds: number;
  readonly steps: Readonly<Record<string, number>>;
  readonly line: JsonLine;
}

/** Waits for the end of the operation on a container; throws what the agent says where it failed. */
export async function operationEnd(agent: Agent, container: Container, timeoutMs = 120_000): Promise<Ended> {
  const line = await agent.waitForLog(
    `the end of the operation on ${container.name}`,
    ({ msg, containerId }) =>
      containerId === container.id && (msg === 'operation succeeded' || msg === 'operation failed'),
    { timeoutMs },
  );
  if (line['msg'] === 'operation failed')
    throw new Error(`${line['operation']} failed in step ${line['step']}: ${line['code']}: ${line['problem']}`);
  const steps = (line['steps'] ?? {}) as Record<string, number>;
  return { atMs: Date.parse(String(line['time'])), seconds: Number(line['seconds']), steps, line };
}
