import { readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import {
  type CollectRequest,
  openRetention,
  type RetentionMetrics,
  type RoomRequest,
} from '../../../agent/operations/retention.ts';
import type { RetentionRules } from '../../../agent/plan/retention.ts';
import type { Volume } from '../../../agent/store/paths.ts';
import { holdReader } from '../../../agent/store/readers.ts';
import { artifactState } from '../../../agent/store/verify.ts';
import { memoryLog } from '../../fakes/log.ts';
import { FILES, KEYS, type Made, makeArtifact, makeVolume } from '../../unit/store/volume.ts';

const OFF: RetentionRules = {
  ttlSeconds: 0,
  maxArtifactsPerNamespace: 0,
  maxBytesPerNamespace: 0,
  highPercent: 0,
  lowPercent: 0,
  minAgeSeconds: 0,
};
export const HOUR = 3_600;
/** Of an artifact that `makeArtifact` makes. */
export const SIZE = Object.values(FILES).join('').length;
export const EXPIRED = { ttlSeconds: HOUR };

export const sourceIn = (namespace: string) => ({
  node: 'node-a',
  namespace,
  pod: 'worker-0',
  podUid: 'uid',
  container: 'main',
  containerId: 'abc',
  podIps: [],
  image: '',
  imageId: '',
});

export const elsewhere = (operationId: string) => ({ node: 'node-b', bootId: 'boot-b', operationId });

export async function age(path: string, seconds: number): Promise<void> {
  const then = Date.now() / 1000 - seconds;
  await utimes(path, then, then);
}

/** A volume for each test, and what is done on it. */
export function freshVolume() {
  let current: Awaited<ReturnType<typeof makeVolume>>;
  beforeEach(async () => {
    current = await makeVolume();
  });
  afterEach(() => current.remove());
  const volume: Volume = {
    get root() {
      return current.root;
    },
  };
  /** Retention as one node's agent has it, and all that it said. */
  function agent(rules: Partial<RetentionRules>, node = 'node-a') {
    const said: unknown[][] = [];
    const note =
      (name: string) =>
      (...values: unknown[]) =>
        void said.push([name, ...values]);
    const metrics: RetentionMetrics = {
      storageSeen: note('storage'),
      artifactsSeen: note('artifacts'),
      artifactCollected: note('collected'),
      collectionFailed: note('failed'),
    };
    const { log, lines, said: logged } = memoryLog();
    const boot = { name: node, bootId: `boot-${node}` };
    const setup = { rules: () => ({ ...OFF, ...rules }), node: boot, keys: KEYS, log, metrics };
    const retention = openRetention(setup);
    const { signal } = new AbortController();
    return {
      setup,
      retention,
      lines,
      logged,
      collect: (request: Partial<CollectRequest> = {}, on: Volume = volume) =>
        retention.collect(on, { signal, ...request }),
      room: (request: Partial<RoomRequest>, on: Volume = volume) =>
        retention.roomProblem(on, { signal, peakBytes: 0, keptBytes: 0, mayCollect: true, ...request }),
      told: (name: string) => said.filter(([first]) => first === name).map(([, ...values]) => values),
    };
  }

  const at = (path: string) => join(volume.root, path);

  /** An artifact that was made so many hours ago. */
  async function madeAgo(hours: number, made: Made = {}, on: Volume = volume): Promise<void> {
    const { directory } = await makeArtifact(on, made);
    await age(join(directory, 'manifest.yaml'), hours * HOUR);
  }

  async function stateOf(version = '1', id = 'ckpt', on: Volume = volume): Promise<string> {
    return (await artifactState(on, { id, version, keys: KEYS })).state;
  }

  /** What lies on the volume, without what agents leave for each other. */
  const onVolume = async () => (await readdir(volume.root)).filter((name) => name !== '.snapshot-agent');

  async function restoreOf(id: string, isUse = true): Promise<void> {
    const hold = await holdReader(volume, { id, version: '1', operation: elsewhere('restore-1'), isUse });
    await hold.stop();
  }

  return { volume, agent, at, madeAgo, stateOf, onVolume, restoreOf };
}
