/**
 * Stages and publishes one artifact, and kills itself with SIGKILL before the n-th call into the filesystem. The calls are counted by
 * wrapping node:fs/promises from outside: the store knows nothing of this.
 */
import { writeSync } from 'node:fs';
import fsp, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { publish } from '../../../agent/store/publish.ts';
import { makeStaging } from '../../../agent/store/staging.ts';
import { draft, KEYS, writeFiles } from '../../unit/store/volume.ts';

const [root = '', mode = '', content = '', dieAt = ''] = process.argv.slice(2);
let calls = 0;
let isCounting = false;

type Call = (...args: unknown[]) => unknown;

function wrap(owner: Record<string, unknown>, name: string): void {
  const original = owner[name] as Call;
  owner[name] = function counted(this: unknown, ...args: unknown[]) {
    if (isCounting) {
      calls += 1;
      if (calls === Number(dieAt)) {
        if (name === 'writeFile') tear(this as FileHandle, args[0] as string | Buffer);
        process.kill(process.pid, 'SIGKILL');
      }
    }
    return original.apply(this, args);
  };
}

/** A death in a write leaves half of it. */
function tear(file: FileHandle, content: string | Buffer): void {
  const bytes = Buffer.from(content);
  writeSync(file.fd, bytes.subarray(0, bytes.length / 2));
}

const probe = await fsp.open('/dev/null');
const handle = Object.getPrototypeOf(probe) as Record<string, unknown>;
await probe.close();
for (const name of ['open', 'mkdir', 'rename', 'unlink', 'rmdir', 'lstat', 'opendir'])
  wrap(fsp as unknown as Record<string, unknown>, name);
for (const name of ['write', 'writeFile', 'read', 'readFile', 'sync', 'datasync', 'stat', 'close']) wrap(handle, name);
syncBuiltinESMExports();

isCounting = true;
const volume = { root };
const operation = { node: 'node-a', bootId: 'boot-a', operationId: `op-${content}` };
const staging = await makeStaging({ volume, id: 'ckpt', version: '1', operation });
await writeFiles(staging.path, { 'criu/core-1.img': content, 'memory/bulk.pages': content });
await publish({
  volume,
  id: 'ckpt',
  version: '1',
  staging,
  record: draft({ operationId: operation.operationId, traceId: content }),
  keys: KEYS,
  mode: mode === 'replace' ? 'replace' : 'new',
});
isCounting = false;
process.stdout.write(String(calls));
