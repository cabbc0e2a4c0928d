import { z } from 'zod';
import { callVerb, type LongVerb, type NativeOptions, type ProcessId, targetArguments, type VerbCall } from './verb.ts';

const captured = z.object({
  entries: z.number(),
  bytes: z.number(),
  removed: z.number().default(0),
  opaque: z.number().default(0),
  skipped: z.number(),
});
const written = z.object({ blocks: z.number(), bytes: z.number(), zeroBytes: z.number(), keptBytes: z.number() });
const filled = z.object({ blocks: z.number(), bytes: z.number() });

export type Captured = z.infer<typeof captured>;

const excludes = (patterns: readonly string[]) => patterns.flatMap((pattern) => ['--exclude', pattern]);

/** The verbs that move files and memory. */
export function copyingVerbs(options: NativeOptions) {
  const at = (id: ProcessId) => targetArguments(options, id);
  const verb = <T>(request: VerbCall<T>) => callVerb(options, request);
  return {
    captureUpper: (request: { upper: string; tar: string; removed: string; exclude: readonly string[] } & LongVerb) =>
      verb({
        verb: 'capture',
        args: [
          '--upper',
          request.upper,
          '--tar',
          request.tar,
          '--removed',
          request.removed,
          ...excludes(request.exclude),
        ],
        shape: captured,
        code: 'ROOTFS_FAILED',
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),
    captureMount: (id: ProcessId, request: { mount: string; tar: string; removed: string } & LongVerb) =>
      verb({
        verb: 'capture',
        args: [...at(id), '--mount', request.mount, '--tar', request.tar, '--removed', request.removed],
        shape: captured,
        code: 'ROOTFS_FAILED',
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),
    apply: (
      id: ProcessId,
      request: { mount: string; tar: string; removed?: string; keep: readonly string[] } & LongVerb,
    ) =>
      verb({
        verb: 'apply',
        args: [
          ...at(id),
          '--mount',
          request.mount,
          '--tar',
          request.tar,
          ...(request.removed === undefined ? [] : ['--removed', request.removed]),
          ...request.keep.flatMap((path) => ['--keep', path]),
        ],
        shape: z.object({ entries: z.number(), removed: z.number(), skipped: z.number() }),
        code: 'ROOTFS_FAILED',
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),

    bulkWrite: (request: { plan: string; bulk: string; index: string; key: Uint8Array; threads: number } & LongVerb) =>
      verb({
        verb: 'bulk-write',
        args: [
          '--plan',
          request.plan,
          '--bulk',
          request.bulk,
          '--index',
          request.index,
          '--key-fd',
          '3',
          '--threads',
          `${request.threads}`,
        ],
        shape: written,
        code: 'STORAGE_FAILED',
        secret: request.key,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),
    bulkFill: (
      request: {
        bulk: string;
        index: string;
        key: Uint8Array;
        threads: number;
        processes: ReadonlyMap<number, ProcessId> | 'verify-only';
        onProgress?: (bytes: number) => void;
      } & LongVerb,
    ) =>
      verb({
        verb: 'bulk-fill',
        args: [
          '--bulk',
          request.bulk,
          '--index',
          request.index,
          '--key-fd',
          '3',
          '--threads',
          `${request.threads}`,
          ...(request.processes === 'verify-only'
            ? ['--verify-only', '1']
            : [...request.processes].map(([inner, id]) => `${inner}=${id.pid}:${id.start}`)),
        ],
        shape: filled,
        code: 'FILL_FAILED',
        secret: request.key,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
        onLine: (text) => {
          const done = /"done":(\d+)/.exec(text)?.[1];
          if (done !== undefined) request.onProgress?.(Number(done));
        },
      }),
    prefetch: (files: readonly string[], threads: number, limits: LongVerb) =>
      verb({
        verb: 'prefetch',
        args: ['--threads', `${threads}`, ...files],
        shape: z.object({ bytes: z.number() }),
        code: 'STORAGE_FAILED',
        ...limits,
      }),
  };
}
