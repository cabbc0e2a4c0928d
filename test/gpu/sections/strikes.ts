import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { processes } from '../../real/environment/processes.ts';
import type { RuncContainer } from '../harness/container.ts';
import { type Finished, requireSuccess } from '../harness/operations.ts';
import type { Row } from '../report.ts';
import { type Aftermath, ended, requireIntact, requireNoArtifact, settled, waits } from './aftermath.ts';
import type { Arena } from './faults.ts';

/** Steps in which there is nothing yet that a kill could harm, and what is no step. */
const LEFT_OUT = new Set(['resolve', 'pin', 'attach', 'unaccounted']);
/** Steps of a restore in which there is no worker yet. */
const WITHOUT_WORKER = new Set(['verify', 'prefetch', 'images', 'halt', 'rootfs']);

/** What fails here leaves an artifact that is good: the worker was to be told, and is gone. */
const AFTER_PUBLISH = new Set(['announce', 'release']);

type Victim = 'snapshot-cuda' | 'worker';

/** Kills the agent's CUDA workers, then the workload, in each step that a checkpoint and a restore have here. */
export async function strikeEverywhere(arena: Arena, outcomes: Row[]): Promise<void> {
  const { bench, stand, newWorker, goodId } = arena;
  const sample = await newWorker('strikes-sample');
  const checkpoint = requireSuccess(
    await stand.operations.checkpoint(sample, { id: 'strikes-sample', after: 'resume' }),
    stand.agent,
  );
  await sample.remove();
  const place = await bench.runPlaceholder(stand, { name: 'strikes-place' });
  const restore = requireSuccess(await stand.operations.restore(place, { id: goodId }), stand.agent);
  await place.remove();
  for (const victim of ['snapshot-cuda', 'worker'] as const) {
    for (const step of stepsOf(checkpoint))
      await bench.report.check(`${victim} killed in step ${step} of a checkpoint`, () =>
        strikeCheckpoint(arena, { victim, step }, outcomes),
      );
    for (const step of stepsOf(restore).filter((name) => victim !== 'worker' || !WITHOUT_WORKER.has(name)))
      await bench.report.check(`${victim} killed in step ${step} of a restore`, () =>
        strikeRestore(arena, { victim, step }, outcomes),
      );
  }
}

const stepsOf = ({ steps }: Finished) => steps.map(({ step }) => step).filter((step) => !LEFT_OUT.has(step));

interface Strike {
  readonly victim: Victim;
  readonly step: string;
}

/**
 * Kills once the operation says that it is in the step, and once there is somebody to kill. Says afterwards how many it hit: none where
 * the step was over before that.
 */
function striker({ stand }: Arena, { victim, step }: Strike, container: RuncContainer) {
  let now = '';
  let hits = 0;
  const victims = () =>
    victim === 'worker'
      ? workload(container)
      : processes()
          .filter(({ parent, command, state }) => parent === stand.agent.pid && isCudaWorker(command) && state !== 'Z')
          .map(({ pid }) => pid);
  const strike = async () => {
    while (now === step && hits === 0) {
      const pids = victims();
      for (const pid of pids) kill(pid);
      hits = pids.length;
      await sleep(2);
    }
  };
  return {
    onStep: (next: string) => {
      const isNew = next !== now;
      now = next;
      if (isNew && next === step) void strike();
    },
    over: () => {
      now = '';
      return hits;
    },
  };
}

const isCudaWorker = (command: string) => command.includes('snapshot-cuda');

/** The workload's first process, where there is one: a placeholder that waits is none. */
function workload(container: RuncContainer): number[] {
  return container.exitCode !== undefined || waits(container) ? [] : [container.workloadPid()];
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended meanwhile.
  }
}

/** What the strike left. A container ends with its workload, whatever the operation came to; until then it may look as if it ran. */
const aftermath = (arena: Arena, { victim }: Strike, hits: number, container: RuncContainer): Promise<Aftermath> =>
  victim === 'worker' && hits > 0 ? ended(container) : settled(container, arena.driver);

let made = 0;

async function strikeCheckpoint(arena: Arena, strike: Strike, outcomes: Row[]): Promise<void> {
  const { stand, newWorker } = arena;
  const name = `strike-${++made}`;
  const worker = await newWorker(name);
  const { onStep, over } = striker(arena, strike, worker);
  const taken = await stand.operations.checkpoint(worker, { id: name, after: 'resume', onStep });
  const hits = over();
  const { container, states } = await aftermath(arena, strike, hits, worker);
  note(outcomes, { strike, kind: 'checkpoint', hits, finished: taken, container, states });
  if (!taken.succeeded && !AFTER_PUBLISH.has(taken.failedStep)) await requireNoArtifact(stand, name);
  if (strike.victim === 'snapshot-cuda' || hits === 0) {
    assert.equal(container, 'runs', taken.problem);
    await requireIntact(worker);
    requireSuccess(await stand.operations.checkpoint(worker, { id: `${name}-again`, after: 'resume' }), stand.agent);
  }
  await worker.remove();
}

async function strikeRestore(arena: Arena, strike: Strike, outcomes: Row[]): Promise<void> {
  const { bench, stand, goodId } = arena;
  const target = await bench.runPlaceholder(stand, { name: `strike-${++made}` });
  const { onStep, over } = striker(arena, strike, target);
  const done = await stand.operations.restore(target, { id: goodId, onStep });
  const hits = over();
  const { container, states } = await aftermath(arena, strike, hits, target);
  note(outcomes, { strike, kind: 'restore', hits, finished: done, container, states });
  // It came back whole, or it is over: never something in between.
  if (container === 'runs') {
    assert.ok(done.succeeded, done.problem);
    await requireIntact(target);
  } else assert.ok(!done.succeeded || strike.victim === 'worker', `succeeded, and the container ${container}`);
  await target.remove();
}

interface Noted {
  readonly strike: Strike;
  readonly kind: string;
  readonly hits: number;
  readonly finished: Finished;
  readonly container: string;
  readonly states: string;
}

function note(outcomes: Row[], { strike, kind, hits, finished, container, states }: Noted): void {
  const fault = `${strike.victim} killed in ${kind}, ${strike.step}`;
  const { state, code, failedStep } = finished;
  outcomes.push({ fault, killed: hits, operation: state, 'failed in': failedStep, code, container, states });
}
