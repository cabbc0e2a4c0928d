import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProcessId } from '../host/native.ts';
import { writeDurable } from '../store/files.ts';
import type { RecordDraft } from '../store/publish.ts';
import type { Finalized } from './finalize.ts';

/**
 * A checkpoint that stops its container has nobody to ask again once CRIU ended the workload. What is needed to finish it is
 * written down, with the agent's own state and not on the volume, before CRIU may go on: images in, artifact out.
 */
export interface Pending {
  readonly operationId: string;
  readonly id: string;
  readonly version: string;
  readonly mode: 'new' | 'replace';
  /** The root of the tree that CRIU was about to end. */
  readonly root: ProcessId;
  /** The staging directory, relative to the volume. */
  readonly staging: string;
  readonly draft: Omit<RecordDraft, 'sizes' | 'bulk' | 'timings'>;
  readonly rootfsBytes: number;
  readonly shmBytes: number;
  /** There once the images have their final form. */
  readonly finalized?: Finalized;
}

const directoryOf = (stateDir: string) => join(stateDir, 'pending');
const fileOf = (stateDir: string, operationId: string) => join(directoryOf(stateDir), `${operationId}.json`);

export async function savePending(stateDir: string, pending: Pending): Promise<void> {
  await mkdir(directoryOf(stateDir), { recursive: true, mode: 0o700 });
  await writeDurable(fileOf(stateDir, pending.operationId), JSON.stringify(pending));
}

export async function dropPending(stateDir: string, operationId: string): Promise<void> {
  await rm(fileOf(stateDir, operationId), { force: true });
}

/** What earlier runs left to be finished. The directory is the agent's own; `unreadable` is told of files that are damaged. */
export async function readPending(
  stateDir: string,
  unreadable: (file: string, err: unknown) => void,
): Promise<Pending[]> {
  const names = await readdir(directoryOf(stateDir)).catch(() => []);
  const found: Pending[] = [];
  for (const name of names.filter((one) => one.endsWith('.json')))
    try {
      found.push(JSON.parse(await readFile(join(directoryOf(stateDir), name), 'utf8')) as Pending);
    } catch (error) {
      unreadable(name, error);
    }
  return found;
}
