import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { keyFromBytes, type RecordKeys } from '../../../agent/store/key.ts';
import type { Volume } from '../../../agent/store/paths.ts';
import type { PublishRequest, RecordDraft } from '../../../agent/store/publish.ts';
import { publish } from '../../../agent/store/publish.ts';
import { makeStaging } from '../../../agent/store/staging.ts';

const current = keyFromBytes(Buffer.alloc(32, 7));
export const KEYS: RecordKeys = { current, accepted: [current] };
export const otherKey = keyFromBytes(Buffer.alloc(32, 9));

/** A directory that plays an attached volume, and what removes it. */
export async function makeVolume(): Promise<Volume & { remove(): Promise<void> }> {
  const root = await mkdtemp(join(tmpdir(), 'store-'));
  return { root, remove: () => rm(root, { recursive: true, force: true }) };
}

export function draft(changes: Partial<RecordDraft> = {}): RecordDraft {
  return {
    operationId: 'op-1',
    traceId: 'trace-1',
    createdAt: '2026-01-02T03:04:05.678Z',
    agent: { version: '0.1.0' },
    source: {
      node: 'node-a',
      namespace: 'team',
      pod: 'worker-0',
      podUid: 'uid',
      container: 'main',
      containerId: 'abc',
      podIps: ['10.0.0.1'],
      image: 'registry/worker:1',
      imageId: 'sha256:1',
    },
    platform: {
      arch: 'x86_64',
      kernel: '6.12.0',
      criu: '4.2',
      cpu: { vendor: 'GenuineIntel', family: 6, model: 143, features: ['avx2', 'amx_tile'] },
      cgroupVersion: 2,
    },
    process: { count: 3, threads: 40, stdio: ['pipe:[1]', 'pipe:[2]', '/dev/null'], rootState: 'S' },
    mounts: [{ mountPoint: '/models', fstype: 'nfs4' }],
    namespaces: { ipc: 'shared', netInode: 4026531840 },
    memory: { limitBytes: null, residentBytes: 4096 },
    sizes: { criuBytes: 1, bulkBytes: 2, zeroBytes: 3, rootfsBytes: 4, shmBytes: 0 },
    bulk: { blocks: 1, bytes: 5, salt: 'ab'.repeat(32) },
    criu: { args: ['--ghost-limit=1'] },
    timings: [{ step: 'criu-dump', seconds: 0.25 }],
    pauseSeconds: 1.5,
    ...changes,
  };
}

export const FILES: Readonly<Record<string, string>> = {
  'criu/core-1.img': 'core',
  'criu/pages-1.img': 'pages'.repeat(1000),
  'memory/bulk.pages': 'bulk!',
  'memory/bulk.index': '1 4096 5 0 00',
  'rootfs/diff.tar': '',
};

export async function writeFiles(
  directory: string,
  files: Readonly<Record<string, string | Buffer>> = FILES,
): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(directory, path)), { recursive: true });
    await writeFile(join(directory, path), content);
  }
}

export interface Made {
  readonly id?: string;
  readonly version?: string;
  readonly operationId?: string;
  readonly mode?: PublishRequest['mode'];
  readonly files?: Readonly<Record<string, string | Buffer>>;
  readonly record?: Partial<RecordDraft>;
  readonly keys?: RecordKeys;
}

/** Stages and publishes an artifact as an operation does. */
export async function makeArtifact(volume: Volume, made: Made = {}) {
  const { id = 'ckpt', version = '1', operationId = 'op-1', mode = 'new', keys = KEYS } = made;
  const operation = { node: 'node-a', bootId: 'boot-a', operationId };
  const staging = await makeStaging({ volume, id, version, operation });
  try {
    await writeFiles(staging.path, made.files);
    return await publish({ volume, id, version, staging, record: draft({ operationId, ...made.record }), keys, mode });
  } finally {
    await staging.discard();
  }
}

/** What a sweep at the next start of the agent on this node is asked. */
export const NEXT_START = { node: 'node-a', bootId: 'boot-a', liveOperations: new Set<string>() };
