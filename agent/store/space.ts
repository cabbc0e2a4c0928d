import { statfs } from 'node:fs/promises';
import { SnapshotError } from '../errors.ts';
import { storageWork } from './failure.ts';
import type { Volume } from './paths.ts';

export interface Space {
  /** What an unprivileged writer may still use: reserved blocks and, where the storage tells, quotas are left out. */
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** How much room the volume has. */
export async function spaceOf(volume: Volume): Promise<Space> {
  const found = await storageWork(`look at the space of ${volume.root}`, () => statfs(volume.root));
  return { freeBytes: found.bavail * found.bsize, totalBytes: found.blocks * found.bsize };
}

/** Refuses with STORAGE_FULL and both values where the volume has less than `neededBytes`. */
export async function requireSpace(volume: Volume, neededBytes: number): Promise<Space> {
  const space = await spaceOf(volume);
  if (space.freeBytes >= neededBytes) return space;
  const [found, wanted] = [`${space.freeBytes} bytes`, `${neededBytes} bytes`];
  const message = `the volume has ${found} free, the artifact may need ${wanted}`;
  const advice = 'Free space on the volume or enlarge it.';
  throw new SnapshotError('STORAGE_FULL', message, {
    reasons: [{ code: 'STORAGE_FULL', message, found, wanted, advice }],
  });
}
