/** Stages and publishes one artifact, and dies before the n-th call into the filesystem. */
import { publish } from '../../../agent/store/publish.ts';
import { makeStaging } from '../../../agent/store/staging.ts';
import { draft, KEYS, writeFiles } from '../../unit/store/volume.ts';
import { dieWithin } from './dying.ts';

const [root = '', mode = '', content = '', dieAt = ''] = process.argv.slice(2);

const calls = await dieWithin(Number(dieAt), async () => {
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
});
process.stdout.write(String(calls));
