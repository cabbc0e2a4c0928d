/**
 * Lets a process kill itself with SIGKILL before its n-th call into the filesystem. The calls are counted by wrapping node:fs/promises
 * from outside: the store knows nothing of this.
 */
import { writeSync } from 'node:fs';
import fsp, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

type Call = (...args: unknown[]) => unknown;

/** Runs `work`, and dies before its call number `dieAt`. Says how many calls there were where it lives. */
export async function dieWithin(dieAt: number, work: () => Promise<unknown>): Promise<number> {
  let calls = 0;
  let isCounting = false;
  const wrap = (owner: Record<string, unknown>, name: string) => {
    const original = owner[name] as Call;
    owner[name] = function counted(this: unknown, ...args: unknown[]) {
      if (isCounting) {
        calls += 1;
        if (calls === dieAt) {
          if (name === 'writeFile' || name === 'appendFile') tear(this as FileHandle, args[0] as string | Buffer);
          process.kill(process.pid, 'SIGKILL');
        }
      }
      return original.apply(this, args);
    };
  };
  const probe = await fsp.open('/dev/null');
  const handle = Object.getPrototypeOf(probe) as Record<string, unknown>;
  await probe.close();
  for (const name of ['open', 'mkdir', 'rename', 'unlink', 'rmdir', 'lstat', 'opendir'])
    wrap(fsp as unknown as Record<string, unknown>, name);
  for (const name of ['write', 'writeFile', 'appendFile', 'read', 'readFile', 'sync', 'datasync', 'stat', 'close'])
    wrap(handle, name);
  syncBuiltinESMExports();
  isCounting = true;
  await work();
  isCounting = false;
  return calls;
}

/** A death in a write leaves half of it. */
function tear(file: FileHandle, content: string | Buffer): void {
  const bytes = Buffer.from(content);
  writeSync(file.fd, bytes.subarray(0, bytes.length / 2));
}
