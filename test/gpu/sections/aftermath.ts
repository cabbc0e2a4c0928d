import assert from 'node:assert/strict';
import { eventually } from '../../real/environment/host.ts';
import type { Stand } from '../bench.ts';
import type { RuncContainer } from '../harness/container.ts';
import type { DriverTool, ProcessState } from '../harness/driver-tool.ts';

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
      last = container.exitCode === undefined ? await driver.states(container) : [];
      return last.every(({ state }) => state === 'running') ? true : undefined;
    },
    { timeoutMs: SETTLE_MS, everyMs: 100, explain: () => JSON.stringify(last) },
  );
  const states = last.map(({ state }) => state).join(' ') || 'none';
  if (container.exitCode !== undefined) return { container: 'ended', states };
  return { container: isPlaceholder(container) ? 'waits' : 'runs', states };
}

/** A container whose first process is all there is waits to be restored into. */
function isPlaceholder(container: RuncContainer): boolean {
  return container.workloadPid() === container.pid && container.spec.process.args[0]?.endsWith('standby') === true;
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
