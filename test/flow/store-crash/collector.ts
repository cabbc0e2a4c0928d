/** Collects what is due on a volume, and dies before the n-th call into the filesystem. */
import { pino } from 'pino';
import { openRetention } from '../../../agent/operations/retention.ts';
import { KEYS } from '../../unit/store/volume.ts';
import { dieWithin } from './dying.ts';

const [root = '', dieAt = ''] = process.argv.slice(2);
const ignore = () => undefined;

const calls = await dieWithin(Number(dieAt), async () => {
  const retention = openRetention({
    rules: () => ({
      ttlSeconds: 60,
      maxArtifactsPerNamespace: 0,
      maxBytesPerNamespace: 0,
      highPercent: 0,
      lowPercent: 0,
      minAgeSeconds: 0,
    }),
    node: { name: 'node-a', bootId: 'boot-a' },
    keys: KEYS,
    log: pino({ level: 'silent' }),
    metrics: { storageSeen: ignore, artifactsSeen: ignore, artifactCollected: ignore, collectionFailed: ignore },
  });
  await retention.collect({ root }, { signal: new AbortController().signal });
});
process.stdout.write(String(calls));
