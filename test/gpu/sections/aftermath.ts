import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { eventually } from '../../real/environment/host.ts';
import type { Stand } from '../bench.ts';
import type { RuncContainer } from '../harness/container.ts';
import type { DriverTool, ProcessState } from '../harness/driver-tool.ts';
import { STANDBY } from '../harness/node.ts';

/** How long an agent may take to end what it cannot bring back. */
const SETTLE_MS = 60_000;

/** What became of a container and its CUDA processes, in words. */
export interface Aftermath {
  readonly container: 'ended' | 'waits' | 'runs';
  readonly states: string;
}

/** Waits until no process of the container is locked or half restored; throws where that does not come to be. */
export async function settled(container: RuncContainer, driver: DriverTool): Promise<Aftermath> {
  let last: readonly ProcessState[] = [];
  await eventually(
    `no process of ${container.pod.name} to be left locked`,
    async () => {
      if (container.exitCode !== undefined) {
        last = [];
        return true;
      }
      last = await driver.states(container);
      // One whose first process has ended is about to end.
      return existsSync(`/proc/${container.pid}/exe`) && last.every(({ state }) => state === 'running')
        ? true
        : undefined;
    },
    { timeoutMs: SETTLE_MS, everyMs: 100, explain: () => JSON.stringify(last) },
  );
  const states = last.map(({ state }) => state).join(' ') || 'none';
  if (container.exitCode !== undefined) return { container: 'ended', states };
  return { container: waits(container) ? 'waits' : 'runs', states };
}

/** Waits for the end of a container that was lost, or whose workload was killed. Until then it may look like one that runs. */
export async function ended(container: RuncContainer): Promise<Aftermath> {
  const hasEnded = () => (container.exitCode === undefined ? undefined : true);
  await eventually(`container ${container.pod.name} to end`, hasEnded, { timeoutMs: SETTLE_MS, everyMs: 100 });
  return { container: 'ended', states: 'none' };
}

/** Whether a container is a placeholder that nothing was restored into. */
export function waits(container: RuncContainer): boolean {
  return container.spec.process.args[0] === STANDBY && container.restoredPid() === undefined;
}

/** The worker goes on with everything it had. */
export async function requireIntact(container: RuncContainer): Promise<void> {
  const from = container.output().length;
  await container.waitForOutput('a tick', (line) => 'tick' in line, { from });
  assert.equal((await container.check())['check'], 'ok');
}

/** Nothing that can be restored lies under this id. */
export async function requireNoArtifact({ operations }: Stand, id: string): Promise<void> {
  const answer = await operations.client
    .ask('GetCheckpoint', { checkpoint_id: id, version: '1' })
    .catch(() => undefined);
  assert.ok(answer === undefined || answer.complete === false, `an artifact ${id} was published as good`);
}
