import type { Logger } from 'pino';
import { type ArtifactName, artifactDir, hasDirectory, type Volume } from '../store/paths.ts';

const LOOK_EVERY_MS = 1_000;

/** Says when an artifact has come, so that those who wait for it need hardly look themselves. They do so now and then all the same. */
export interface ArtifactHints {
  /** The key waits for this artifact of the agent's own volume; undefined: it does not wait any more. Never throws. */
  awaited(key: string, artifact: ArtifactName | undefined): void;
  /** Ends the looking. */
  close(): void;
}

export interface ArtifactHintsInput {
  /** Attaches the agent's own volume for as long as `work` takes. */
  readonly onVolume: (work: (volume: Volume) => Promise<void>) => Promise<void>;
  readonly lookAgain: (key: string) => void;
  readonly log: Logger;
  readonly everyMs?: number;
}

/**
 * One look at the volume serves all who wait: a look of their own would start several processes each, to pin their container and to
 * attach the volume. No look, no process, while nobody waits.
 */
export function newArtifactHints({
  onVolume,
  lookAgain,
  log,
  everyMs = LOOK_EVERY_MS,
}: ArtifactHintsInput): ArtifactHints {
  const waits = new Map<string, ArtifactName>();
  let timer: NodeJS.Timeout | undefined;
  let isLooking = false;
  let isClosed = false;

  const look = async () => {
    isLooking = true;
    await onVolume(async (volume) => {
      for (const [key, artifact] of waits) {
        // Whatever is wrong with it, the look of the operation itself says.
        const isThere = await hasDirectory(volume.root, artifactDir(volume, artifact)).catch(() => true);
        if (!isThere || waits.get(key) !== artifact) continue;
        waits.delete(key);
        lookAgain(key);
      }
    }).catch((err: unknown) => log.debug({ err }, 'nobody can look for the artifacts that are waited for'));
    isLooking = false;
    startClock();
  };
  const startClock = () => {
    if (isClosed || isLooking || waits.size === 0 || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      if (waits.size > 0) void look();
    }, everyMs);
    timer.unref();
  };

  return {
    awaited: (key, artifact) => {
      if (artifact === undefined) waits.delete(key);
      else waits.set(key, artifact);
      startClock();
    },
    close: () => {
      isClosed = true;
      waits.clear();
      clearTimeout(timer);
    },
  };
}
