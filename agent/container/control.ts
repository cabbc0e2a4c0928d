import { readFile } from 'node:fs/promises';
import { CONTROL_DIR_ENV, DEFAULT_CONTROL_DIR, SENTINELS, STANDBY_ENV } from '../../contract/keys.ts';
import type { Native, ProcessId } from '../host/native.ts';

/** Where a container's control directory is, by the environment it was started with. */
export function controlDir(env: readonly string[]): { readonly path: string; readonly declared: boolean } {
  const entry = env.find((line) => line.startsWith(`${CONTROL_DIR_ENV}=`));
  const path = entry?.slice(CONTROL_DIR_ENV.length + 1).replace(/\/+$/, '') ?? '';
  return path.startsWith('/') ? { path, declared: true } : { path: DEFAULT_CONTROL_DIR, declared: false };
}

/**
 * Where a file of the control directory lies on the host, by the container's mounts; undefined where nothing is mounted there. Good for
 * being watched, so that nobody has to ask again and again; what it says is read through the container's own root.
 */
export function hostFile(
  running: { readonly env: readonly string[]; readonly mounts: readonly { destination: string; source: string }[] },
  name: string,
): string | undefined {
  const { path } = controlDir(running.env);
  const mount = running.mounts.find(({ destination, source }) => destination === path && source.startsWith('/'));
  return mount === undefined ? undefined : `${mount.source}/${name}`;
}

/** What the control directory says about a source's readiness. */
export async function readiness(
  native: Native,
  process: ProcessId,
  env: readonly string[],
): Promise<'ready' | 'not-ready' | 'no-control-dir'> {
  const { path, declared } = controlDir(env);
  const seen = await native.look(process, path, SENTINELS.ready);
  if (seen.exists) return 'ready';
  return seen.dir || declared ? 'not-ready' : 'no-control-dir';
}

/**
 * Whether a placeholder has told the restored worker who the new pod is, or need not: one that was not told to stand by, or that has gone
 * over to sleeping, as a standby entrypoint does once it has written the file. Halted before, it could never write it.
 */
export async function hasContext(native: Native, process: ProcessId, env: readonly string[]): Promise<boolean> {
  const { path, declared } = controlDir(env);
  if (!declared || !env.includes(`${STANDBY_ENV}=1`)) return true;
  if ((await native.look(process, path, SENTINELS.context)).exists) return true;
  const comm = await readFile(`${native.options.procRoot}/${process.pid}/comm`, 'utf8').catch(() => '');
  return comm.trim() === 'sleep';
}

/** The text of `restore-complete`: the line `done` for readers that know the old contract, then what was restored. */
export function restoreCompleteText(operationId: string, artifact: string): string {
  return `done\noperation=${operationId}\nartifact=${artifact}\n`;
}
