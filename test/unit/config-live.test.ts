import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../agent/config.ts';
import { isLive, LIVE_KEYS, leavesOf, mergeLive } from '../../agent/config-live.ts';
import { ORIGINAL_KEYS } from '../../agent/config-original.ts';

const LEAST = 'storage: { basePath: /checkpoints }\n';
const ENV = { NODE_NAME: 'node-a' };
const ttl = (seconds: number) => `retention: { ttlSeconds: ${seconds} }\n`;

/** Everything that waits for a restart. A new key of the schema must be put here, or into the table of live keys. */
const RESTART_KEYS = [
  'nodeName',
  'runtime.type',
  'runtime.socketPath',
  'storage.type',
  'storage.accessMode',
  'storage.basePath',
  'storage.key.file',
  'storage.key.acceptedDirectory',
  'storage.key.create',
  'storage.key.previousFiles',
  'host.procRoot',
  'host.cgroupRoot',
  'paths.stateDir',
  'paths.runDir',
  'paths.helper',
  'watch.source',
  'watch.pollMilliseconds',
  'watch.resyncSeconds',
  'kubernetes.kubeconfig',
  'kubernetes.namespace',
  'kubernetes.staleSeconds',
  'kubernetes.leaseSeconds',
  'http.address',
  'tracing.endpoint',
  'api.socketPath',
  'api.listen',
  'api.tls.certificateFile',
  'api.tls.keyFile',
  'api.tls.clientCaFile',
  'api.reflection',
  'api.limits.maxMessageBytes',
  'api.limits.maxConnections',
  'api.limits.maxConcurrentCalls',
  'api.limits.maxConcurrentCallsPerCaller',
  'api.limits.maxStreams',
  'api.limits.maxStreamsPerCaller',
  'api.limits.callsPerSecond',
  'api.limits.burst',
  'api.limits.maxCallMs',
  'api.closeGraceSeconds',
  'cuda.environment',
  'cuda.idleSeconds',
  'cuda.libcuda',
  'cuda.libnvml',
  'cuda.maxWorkers',
  'cuda.podResourcesSocket',
  'cuda.startSeconds',
  'cuda.worker',
  'memory.threads',
  'memory.workBytes',
  'criu.binaryPath',
  'criu.environment',
  'limits.parallelOperations',
];

const defaults = parseConfig(LEAST, ENV);
/** Every key of the schema. Those without a default are not in what it makes of an empty file; an environment is one key. */
const schemaKeys = [
  ...leavesOf(defaults).keys(),
  ...['criu.environment', 'cuda.environment', 'restore.nsRestorePath'],
  ...Object.keys(ORIGINAL_KEYS).map((key) => `criu.${key}`),
];

describe('the table of live keys', () => {
  it('leaves to a restart exactly the keys that are listed here', () => {
    expect(schemaKeys.filter((key) => !isLive(key)).sort()).toEqual([...RESTART_KEYS].sort());
  });

  it.each(Object.keys(LIVE_KEYS))('names something that exists: %s', (prefix) => {
    expect(schemaKeys.filter((key) => isLive(key, { [prefix]: '' }))).not.toEqual([]);
  });

  it('is what docs/configuration.md says of every key', () => {
    const page = readFileSync(join(import.meta.dirname, '../../docs/configuration.md'), 'utf8');
    const section = page.split(/^## /m).find((text) => text.startsWith('Keys\n')) ?? '';
    const said = [...section.matchAll(/^\| `([^`]+)` \|[^|]*\|([^|]*)\|/gm)].map(([, key, mark]) => [
      key,
      mark?.trim(),
    ]);
    const documented = schemaKeys.filter((key) => !(key.replace('criu.', '') in ORIGINAL_KEYS));
    expect(Object.fromEntries(said)).toEqual(
      Object.fromEntries(documented.map((key) => [key, isLive(key) ? 'live' : 'restart'])),
    );
  });
});

describe('the running configuration with the live part of another', () => {
  const running = parseConfig(`${LEAST}retention: { highPercent: 80, lowPercent: 70 }`, ENV);

  it('is what the whole file would have been, for the live keys, and unchanged for the others', () => {
    const wanted = parseConfig(
      `${LEAST}watch: { pollMilliseconds: 50 }\nrestore: { nsRestorePath: /x }\n${ttl(5)}`,
      ENV,
    );
    const merged = mergeLive(running, wanted);
    expect(merged.config).toEqual({ ...running, retention: wanted.retention, restore: wanted.restore });
    expect(merged.waiting.map(({ key }) => key)).toEqual(['watch.pollMilliseconds']);
  });

  it('loses a key that the other does not have any more', () => {
    const before = parseConfig(`${LEAST}restore: { nsRestorePath: /x }\ncriu: { shellJob: true }`, ENV);
    expect(mergeLive(before, running).config).toEqual(running);
  });

  it('is refused where keys that must agree are torn apart: the live one would contradict the other', () => {
    const wanted = parseConfig(`${LEAST}retention: { highPercent: 95, lowPercent: 90 }`, ENV);
    const live = { 'retention.lowPercent': 'for this test' };
    expect(() => mergeLive(running, wanted, live)).toThrow(/retention\.lowPercent/);
  });

  it('leaves both configurations as they were', () => {
    const wanted = parseConfig(`${LEAST}${ttl(5)}`, ENV);
    const copies = structuredClone([running, wanted]);
    mergeLive(running, wanted);
    expect([running, wanted]).toEqual(copies);
  });
});
