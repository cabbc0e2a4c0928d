import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { asSnapshotError, type Reason, SnapshotError } from '../errors.ts';
import {
  type ChosenDeletion,
  chooseDeletions,
  hasRules,
  isAbove,
  type RetentionRules,
  type VolumeSpace,
} from '../plan/retention.ts';
import { deleteArtifact } from '../store/deletion.ts';
import type { RecordKeys } from '../store/key.ts';
import type { Volume } from '../store/paths.ts';
import { lastUse } from '../store/readers.ts';
import { spaceOf } from '../store/space.ts';
import { type Survey, type SurveyedArtifact, surveyArtifacts } from '../store/survey.ts';
import { lastRound, noteRound, takeTurn } from '../store/turn.ts';

/** What retention tells the metrics. */
export interface RetentionMetrics {
  storageSeen(space: VolumeSpace): void;
  artifactsSeen(all: { readonly count: number; readonly bytes: number }): void;
  artifactCollected(reason: string, bytes: number): void;
  collectionFailed(): void;
}

export interface RetentionSetup {
  /** Asked at each round: the configuration may have been read again. */
  readonly rules: () => RetentionRules;
  readonly node: { readonly name: string; readonly bootId: string };
  readonly keys: RecordKeys;
  readonly log: Logger;
  readonly metrics: RetentionMetrics;
}

export interface CollectRequest {
  /** Nothing is done where an agent of any node did it less than this ago, and the volume is not above the high mark. Default: 0. */
  readonly notWithinMs?: number;
  /** What is about to be written: counts as used already. Default: 0. */
  readonly neededBytes?: number;
  readonly signal: AbortSignal;
}

/** `off`: no rule is on. `recent`: another round was made just before. `held`: another agent is at it. */
type Collected = 'off' | 'recent' | 'held' | 'done';

export interface RoomRequest {
  /** What the artifact will take at its largest, and what it will take in the end. */
  readonly peakBytes: number;
  readonly keptBytes: number;
  /** Whether artifacts may be deleted for it, as the rules say. False where nothing may be changed. */
  readonly mayCollect: boolean;
  readonly signal: AbortSignal;
}

export interface Retention {
  /** One round on a volume that is attached now. Throws what keeps the volume from being looked at. */
  collect(volume: Volume, request: CollectRequest): Promise<Collected>;
  /** Why there is no room for a new artifact, after what can be deleted for it has been; undefined where there is room. */
  roomProblem(volume: Volume, request: RoomRequest): Promise<Reason | undefined>;
}

/** A reader or writer of another node counts for much longer than its heartbeats need: its node may only have lost the storage for a while. */
const SILENT_MS = 600_000;
const MAX_ARTIFACTS = 10_000;
/** How long a checkpoint waits for room to be made. */
const MAKE_ROOM_MS = 30_000;
const TURN_POLL_MS = 250;
const SHOWN = 10;

/** Retention on the volumes of this agent. Nothing is done before it is asked. */
export function openRetention(setup: RetentionSetup): Retention {
  let saidUnreadable = '';
  const sayUnreadable = (survey: Survey) => {
    const shown = survey.unreadable.map(({ name, problem }) => `${name.id}/${name.version}: ${problem.code}`);
    if (shown.join() === saidUnreadable) return;
    saidUnreadable = shown.join();
    if (shown.length === 0) return;
    setup.log.warn(
      { count: shown.length, artifacts: shown.slice(0, SHOWN) },
      'artifacts that cannot be read are kept, whatever the rules say',
    );
  };
  const collect = (volume: Volume, request: CollectRequest) =>
    collectOnce(setup, volume, { ...request, sayUnreadable });
  return { collect, roomProblem: (volume, request) => roomProblem(setup, collect, volume, request) };
}

async function collectOnce(
  setup: RetentionSetup,
  volume: Volume,
  request: CollectRequest & { readonly sayUnreadable: (survey: Survey) => void },
): Promise<Collected> {
  const { metrics, node } = setup;
  const rules = setup.rules();
  const space = await spaceOf(volume);
  metrics.storageSeen(space);
  if (!hasRules(rules)) return 'off';
  const { notWithinMs = 0, neededBytes = 0 } = request;
  const isPressed = rules.highPercent > 0 && isAbove(without(space, neededBytes), rules.highPercent);
  const recent = isPressed ? undefined : await lastRound(volume, notWithinMs);
  if (recent !== undefined) {
    metrics.artifactsSeen(recent);
    return 'recent';
  }
  const turn = await takeTurn(volume, { node: node.name, bootId: node.bootId, operationId: `collect-${randomUUID()}` });
  if (turn === undefined) return 'held';
  try {
    await collectInTurn(setup, volume, request);
    return 'done';
  } finally {
    await turn.remove().catch((err: unknown) => setup.log.warn({ err }, 'the turn to collect stays marked'));
  }
}

async function collectInTurn(
  setup: RetentionSetup,
  volume: Volume,
  request: CollectRequest & { readonly sayUnreadable: (survey: Survey) => void },
): Promise<void> {
  const { keys, log, metrics } = setup;
  const { signal, neededBytes = 0 } = request;
  const survey = await surveyArtifacts(volume, { keys, silentAfterMs: SILENT_MS, limit: MAX_ARTIFACTS, signal });
  request.sayUnreadable(survey);
  if (survey.more) log.warn({ limit: MAX_ARTIFACTS }, 'the volume has more artifacts than one round looks at');
  // Asked after the survey: what another agent deletes meanwhile must not make this one delete more.
  const space = without(await spaceOf(volume), neededBytes);
  const rules = setup.rules();
  const chosen = chooseDeletions(survey.artifacts, rules, survey.nowMs, space);
  const isStuck = rules.highPercent > 0 && isAbove(space, rules.highPercent) && chosen.length === 0;
  if (isStuck)
    log.warn({ ...space, highPercent: rules.highPercent }, 'nothing can be deleted to get below the high mark');
  const left = new Set(survey.artifacts);
  for (const deletion of chosen) {
    if (signal.aborted) break;
    if (await collectOne(setup, volume, { deletion, neededBytes, signal })) left.delete(deletion.artifact);
  }
  const round = { count: left.size, bytes: [...left].reduce((sum, { bytes }) => sum + bytes, 0) };
  metrics.artifactsSeen(round);
  if (chosen.length > 0) metrics.storageSeen(await spaceOf(volume));
  if (!signal.aborted) await noteRound(volume, round);
}

interface OneDeletion {
  readonly deletion: ChosenDeletion<SurveyedArtifact>;
  readonly neededBytes: number;
  readonly signal: AbortSignal;
}

/** Deletes one artifact if it is still as it was when it was chosen. Whether it is gone. */
async function collectOne(setup: RetentionSetup, volume: Volume, request: OneDeletion): Promise<boolean> {
  const { keys, log, metrics } = setup;
  const { artifact, reason } = request.deletion;
  const { id, version, namespace, bytes, operationId: madeBy } = artifact;
  const line = {
    checkpointId: id,
    version,
    namespace,
    bytes,
    reason,
    lastUsedAt: new Date(artifact.lastUsedMs).toISOString(),
  };
  try {
    if (!(await isStillDue(setup, volume, request))) return false;
    const operationId = `collect-${randomUUID()}`;
    const how = { waitMs: 0, silentAfterMs: SILENT_MS, signal: request.signal };
    await deleteArtifact(volume, { id, version, keys, madeBy, operationId, ...how });
    log.info(line, 'artifact collected');
    metrics.artifactCollected(reason, bytes);
    return true;
  } catch (thrown) {
    const err = asSnapshotError(thrown);
    // Another node collected it, or somebody came to read or replace it.
    if (err.code === 'ARTIFACT_NOT_FOUND') return true;
    if (err.code === 'ARTIFACT_BUSY') {
      log.info({ ...line, why: err.message }, 'artifact is in use and stays');
      return false;
    }
    log.error({ ...line, err }, 'artifact cannot be collected');
    metrics.collectionFailed();
    return false;
  }
}

/** A restore may have come and gone since, and others may have made the room that was missing. */
async function isStillDue(setup: RetentionSetup, volume: Volume, request: OneDeletion): Promise<boolean> {
  const { artifact, reason } = request.deletion;
  if (((await lastUse(volume, artifact)) ?? 0) > artifact.lastUsedMs) return false;
  if (reason !== 'watermark') return true;
  return isAbove(without(await spaceOf(volume), request.neededBytes), setup.rules().lowPercent);
}

const without = (space: VolumeSpace, bytes: number): VolumeSpace => ({ ...space, freeBytes: space.freeBytes - bytes });

async function roomProblem(
  setup: RetentionSetup,
  collect: Retention['collect'],
  volume: Volume,
  request: RoomRequest,
): Promise<Reason | undefined> {
  const { signal } = request;
  const space = await spaceOf(volume);
  let problem = shortage(setup.rules(), space, request);
  if (problem === undefined || !request.mayCollect || !hasRules(setup.rules())) return problem;
  const deadline = AbortSignal.timeout(MAKE_ROOM_MS);
  const either = AbortSignal.any([signal, deadline]);
  const neededBytes = demandOf(setup.rules(), space, request);
  for (;;) {
    const found = await collect(volume, { neededBytes, signal: either }).catch((err: unknown): Collected => {
      if (!either.aborted) setup.log.warn({ err }, 'no room can be made on the volume');
      return 'off';
    });
    problem = shortage(setup.rules(), await spaceOf(volume), request);
    if (problem === undefined || found !== 'held') break;
    // Another agent is at it: what it deletes may be enough.
    await sleep(TURN_POLL_MS, undefined, { signal: either }).catch(() => undefined);
    if (either.aborted) break;
  }
  if (signal.aborted) throw new SnapshotError('CANCELLED', 'making room on the volume was cancelled');
  return problem;
}

/** What counts as used already, so that what keeps the volume below the high mark leaves room for the artifact at its largest, too. */
function demandOf({ highPercent }: RetentionRules, { totalBytes }: VolumeSpace, request: RoomRequest): number {
  const aboveMarkBytes = Math.floor((totalBytes * (100 - highPercent)) / 100);
  return Math.max(request.keptBytes, request.peakBytes - aboveMarkBytes);
}

function shortage(
  { highPercent }: RetentionRules,
  space: VolumeSpace,
  { peakBytes, keptBytes }: RoomRequest,
): Reason | undefined {
  const found = `${space.freeBytes} of ${space.totalBytes} bytes free`;
  const advice = 'Delete artifacts that are not needed, or enlarge the volume.';
  if (space.freeBytes < peakBytes)
    return {
      code: 'VOLUME_SPACE',
      message: 'the volume has too little free space for the images',
      found,
      wanted: `${peakBytes} bytes free`,
      advice,
    };
  if (highPercent <= 0 || !isAbove(without(space, keptBytes), highPercent)) return undefined;
  return {
    code: 'VOLUME_WATERMARK',
    message: 'the checkpoint would fill the volume beyond the high mark',
    found,
    wanted: `${keptBytes} bytes more with at most ${highPercent}% in use (retention.highPercent)`,
    advice,
  };
}

export interface RetentionLoop {
  readonly intervalMs: () => number;
  /** Attaches the agent's own volume for as long as the work takes. */
  readonly onVolume: (work: (volume: Volume) => Promise<void>) => Promise<void>;
  readonly signal: AbortSignal;
}

/** The first round begins within this time after the start: agents that start together do not begin together. */
const FIRST_WITHIN_MS = 60_000;

/**
 * Collects on the agent's own volume again and again until the signal; resolves then. Rounds are jittered, and of all nodes one makes
 * each. In podMount mode there is no volume without a pod: there `collect` is called by the operations that have one.
 */
export async function runRetention(retention: Retention, setup: RetentionSetup, loop: RetentionLoop): Promise<void> {
  const { signal } = loop;
  const round = async () => {
    const notWithinMs = loop.intervalMs() / 2;
    await loop.onVolume(async (volume) => void (await retention.collect(volume, { notWithinMs, signal })));
  };
  let delayMs = Math.random() * Math.min(FIRST_WITHIN_MS, loop.intervalMs());
  for (;;) {
    await sleep(delayMs, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    await round().catch((err: unknown) => {
      if (signal.aborted) return;
      setup.log.warn({ err }, 'the volume cannot be collected');
      setup.metrics.collectionFailed();
    });
    delayMs = loop.intervalMs() * (0.75 + Math.random() / 2);
  }
}
