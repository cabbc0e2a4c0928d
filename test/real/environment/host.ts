import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const REPOSITORY = resolve(import.meta.dirname, '../../..');
/** What is made once and kept between runs; not in git. */
export const CACHE = resolve(REPOSITORY, '.cache');
export const AGENT_ROOT = resolve(CACHE, 'agent-root');

/** Runs a program of this machine to its end. Throws with its error output where it fails. */
export function host(argv: readonly [string, ...string[]], options: { timeoutMs?: number } = {}): Promise<string> {
  return new Promise((done, failed) => {
    execFile(
      // In a session of its own: a Ctrl-C on the terminal is for whoever cleans up, not for the programs that it cleans up with.
      'setsid',
      ['--wait', ...argv],
      { encoding: 'utf8', maxBuffer: 64 << 20, timeout: options.timeoutMs ?? 120_000, killSignal: 'SIGKILL' },
      (error, stdout, stderr) => {
        if (error) failed(new Error(`${argv.join(' ')} failed: ${stderr.trim() || error.message}`, { cause: error }));
        else done(stdout);
      },
    );
  });
}

/** Asks again and again until `ask` gives something; throws after `timeoutMs` with what was awaited and what `explain` adds. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  {
    timeoutMs = 20_000,
    everyMs = 50,
    explain,
  }: { timeoutMs?: number; everyMs?: number; explain?: () => Promise<string> | string } = {},
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > end)
      throw new Error(`waited ${timeoutMs / 1000} s in vain for ${what}${explain ? `\n${await explain()}` : ''}`);
    await sleep(everyMs);
  }
}
