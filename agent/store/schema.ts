import { z } from 'zod';
import { idProblem } from '../../contract/ids.ts';
import { RECORD_FILE } from './paths.ts';

/** What this agent writes and reads. */
export const FORMAT_VERSION = 1 as const;
/** A reader older than a record's `minReader` must not use the artifact. The first did not know CUDA. */
export const READER_VERSION = 2 as const;
const CUDA_READER = 2 as const;

/** The oldest reader that can do with a record. */
export function minReaderOf({ cuda }: { readonly cuda?: unknown }): number {
  return cuda === undefined ? 1 : CUDA_READER;
}

export const MAX_FILES = 20_000;
export const MAX_DEPTH = 4;
/** The one file without a digest here: its blocks are authenticated one by one, by the tags in the bulk index. */
export const BULK_PAGES = 'memory/bulk.pages';

const COMPONENT = /^(?!\.{1,2}$)[A-Za-z0-9_.,:@+=-]{1,200}$/;

/** Why `path` cannot be the path of an artifact's file, relative to the artifact, or undefined. */
export function filePathProblem(path: string): string | undefined {
  const parts = path.split('/');
  if (parts.length > MAX_DEPTH) return `lies deeper than ${MAX_DEPTH} levels`;
  if (path === RECORD_FILE) return 'is the record itself';
  return parts.every((part) => COMPONENT.test(part))
    ? undefined
    : 'has an empty, dotted, overlong or oddly spelt component';
}

// A lone surrogate would come back from the file as another character.
const text = (max: number) =>
  z
    .string()
    .max(max)
    .refine((value) => Buffer.from(value).toString() === value, 'is not valid Unicode');
const id = z.string().refine((value) => idProblem(value) === undefined, 'is not an id');
const count = z.int().nonnegative();
const seconds = z.number().nonnegative();
const list = <T extends z.ZodType>(item: T, max: number) => z.array(item).max(max);

const fileEntry = z.strictObject({
  path: z.string().refine((path) => filePathProblem(path) === undefined, 'is not a path inside an artifact'),
  size: count,
  /** Empty for the bulk pages, and only for them. */
  sha256: z.string().regex(/^(?:[0-9a-f]{64})?$/),
});

const files = list(fileEntry, MAX_FILES)
  .refine((entries) => new Set(entries.map((entry) => entry.path)).size === entries.length, 'names a file twice')
  .refine(
    (entries) => entries.every((entry) => (entry.sha256 === '') === (entry.path === BULK_PAGES)),
    'lacks a digest',
  );

const cudaPart = z.strictObject({
  /** Version of the kernel driver, and of its programming interface (13000 for CUDA 13.0). */
  driver: text(64),
  driverApi: count,
  /** Files by the name of libcuda that the processes have mapped. */
  libraries: list(text(4096), 64),
  /** All that the container saw, in the order of their ordinals inside it. Null: the driver did not tell. */
  gpus: list(
    z.strictObject({
      uuid: text(128),
      model: text(256),
      memoryBytes: count,
      freeBytes: count,
      /** Device memory that the processes held there. */
      usedBytes: count,
      mig: z.boolean().nullable(),
      mps: z.boolean().nullable(),
      virtualization: text(64).nullable(),
    }),
    256,
  ),
  /** Who said which GPUs the container was given; `visible`: nobody, it is what it saw. */
  given: z.enum(['dra', 'podResources', 'visible']),
  /** What of the container's environment says in which order CUDA counts GPUs. Null: not set. */
  visibleDevices: text(4096).nullable(),
  deviceOrder: text(64).nullable(),
  /** The CUDA processes, by their PIDs inside the container. */
  processes: list(z.strictObject({ pid: z.int().positive(), deviceBytes: count }), 65_536),
  /** Whether the driver restored them at the source after the dump. */
  proven: z.boolean(),
  /** Whether the tree was started by `cuda-checkpoint --launch-job`. */
  launchJob: z.boolean(),
});

/** The completion record, without its signature. Field names are part of the artifact format: docs and readers depend on them. */
export const recordSchema = z.strictObject({
  formatVersion: z.literal(FORMAT_VERSION),
  minReader: z.int().min(1).max(READER_VERSION),
  checkpointId: id,
  version: id,
  operationId: id,
  traceId: text(64),
  createdAt: z.iso.datetime(),
  agent: z.strictObject({ version: text(128) }),
  source: z.strictObject({
    node: text(253),
    namespace: text(253),
    pod: text(253),
    podUid: text(128),
    container: text(253),
    containerId: text(256),
    podIps: list(text(64), 16),
    image: text(2048),
    imageId: text(2048),
  }),
  platform: z.strictObject({
    arch: text(32),
    kernel: text(256),
    criu: text(64),
    cpu: z.strictObject({ vendor: text(64), family: count, model: count, features: list(text(64), 1024) }),
    cgroupVersion: z.union([z.literal(1), z.literal(2)]),
  }),
  /** Absent where no process of the container used CUDA. With it the record asks for a reader that restores CUDA state. */
  cuda: z.exactOptional(cudaPart),
  process: z.strictObject({
    count,
    threads: count,
    stdio: z.tuple([text(4096), text(4096), text(4096)]),
    tty: z.exactOptional(text(4096)),
    controlDir: z.exactOptional(text(4096)),
    rootState: text(32),
  }),
  mounts: list(z.strictObject({ mountPoint: text(4096), fstype: text(64) }), 10_000),
  namespaces: z.strictObject({ ipc: z.enum(['shared', 'private']), netInode: count }),
  memory: z.strictObject({ limitBytes: count.nullable(), residentBytes: count }),
  sizes: z.strictObject({ criuBytes: count, bulkBytes: count, zeroBytes: count, rootfsBytes: count, shmBytes: count }),
  bulk: z.strictObject({ blocks: count, bytes: count, salt: z.string().regex(/^[0-9a-f]{64}$/) }).nullable(),
  files,
  criu: z.strictObject({ args: list(text(4096), 1024) }),
  timings: list(z.strictObject({ step: text(128), seconds }), 1024),
  pauseSeconds: seconds,
});

export type ArtifactRecord = z.infer<typeof recordSchema>;
export type FileEntry = ArtifactRecord['files'][number];
