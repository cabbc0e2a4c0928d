import { z } from 'zod';
import { SnapshotError } from '../errors.ts';
import { type LineSession, openSession } from './exec.ts';
import { copyingVerbs } from './native-copy.ts';
import { criuVerbs } from './native-criu.ts';
import { callVerb, type NativeOptions, type ProcessId, parseLine, targetArguments, type VerbCall } from './verb.ts';

export type { Captured } from './native-copy.ts';
export type { RestoreVerb } from './native-criu.ts';
export type { ProcessId } from './verb.ts';

/** What `pin` sees of a process: its PIDs from the host's namespace inwards, and the inodes of its namespaces. */
export interface ProcessFacts extends ProcessId {
  readonly nspid: readonly number[];
  readonly ns: Readonly<Record<'mnt' | 'pid' | 'net' | 'ipc' | 'uts' | 'cgroup' | 'user', number>>;
}

const facts = z.object({
  pid: z.number(),
  start: z.number(),
  nspid: z.array(z.number()),
  ns: z.object({
    mnt: z.number(),
    pid: z.number(),
    net: z.number(),
    ipc: z.number(),
    uts: z.number(),
    cgroup: z.number(),
    user: z.number(),
  }),
});
const looked = z.object({
  dir: z.boolean(),
  exists: z.boolean(),
  type: z.string().default(''),
  content: z.string().default(''),
});
const attached = z.object({ mountId: z.number(), fstype: z.string(), device: z.string(), readOnly: z.boolean() });
const probed = z.object({
  openat2: z.boolean(),
  pidfd: z.boolean(),
  openTree: z.boolean(),
  nosymfollow: z.boolean(),
  pidfdExitCode: z.boolean(),
  kernel: z.string(),
  capSysResource: z.boolean(),
});
const locked = z.object({ locked: z.boolean() });
const devices = z.object({
  dir: z.boolean(),
  devices: z.array(
    z.object({
      path: z.string(),
      type: z.enum(['char', 'block', 'file', 'directory', 'symlink', 'fifo', 'socket']),
      major: z.number().optional(),
      minor: z.number().optional(),
      /** Of a device that was to be opened: whether the container may. Null: not known. */
      usable: z.boolean().nullable().optional(),
      /** Why it could not be opened. */
      errno: z.string().optional(),
    }),
  ),
  /** Why devices that were to be opened were not tried. */
  untried: z.object({ message: z.string() }).optional(),
});
const ipcUsage = z.object({ shm: z.number(), sem: z.number(), msg: z.number() });
const seccomp = z.object({ mode: z.number(), filters: z.array(z.string()) });

const SIGNALS_AT_ONCE = 1_000;

/** Which device nodes of a container are asked for. */
interface DevicesRequest {
  readonly prefix: string;
  readonly majors: readonly number[];
  /** Devices of which it is asked whether the container may open them. */
  readonly opened: readonly { readonly major: number; readonly minor: number }[];
  /** Where the host's cgroups are. */
  readonly cgroupRoot: string;
}

export type Seccomp = z.infer<typeof seccomp>;
export type Native = ReturnType<typeof openNative>;

/** The verbs of snapshot-helper (docs/native.md), typed. Nothing is started before the first call. */
export function openNative(options: NativeOptions) {
  const at = (id: ProcessId) => targetArguments(options, id);
  const verb = <T>(request: VerbCall<T>) => callVerb(options, request);

  return {
    options,
    probe: () => verb({ verb: 'probe', args: [], shape: probed, code: 'CAPABILITY_MISSING' }),

    /** Opens a session that holds a pidfd on the process until it is stopped. */
    pin: async (pid: number, start?: number): Promise<{ facts: ProcessFacts; session: LineSession }> => {
      const argv = [options.helperPath, 'pin', '--pid', `${pid}`, '--proc', options.procRoot];
      if (start !== undefined) argv.push('--start', `${start}`);
      try {
        const { first, session } = await openSession(argv, (line) => line.startsWith('{"exited"'));
        return { facts: facts.parse(parseLine(first)), session };
      } catch (cause) {
        throw new SnapshotError('CONTAINER_GONE', `process ${pid} cannot be pinned: ${String(cause)}`, { cause });
      }
    },

    /** Holds an exclusive lock on a file until the session is stopped, or this process ends. Undefined where another holds it. */
    lock: async (file: string): Promise<LineSession | undefined> => {
      const argv = [options.helperPath, 'lock', '--file', file];
      try {
        const { first, session } = await openSession(argv, () => false);
        return locked.parse(parseLine(first)).locked ? session : undefined;
      } catch (cause) {
        throw new SnapshotError('INTERNAL', `no lock on ${file}: ${String(cause)}`, { cause });
      }
    },

    signal: async (signal: number, processes: readonly ProcessId[]): Promise<void> => {
      // A command line has its limits, and a container may have very many processes.
      for (let at = 0; at < processes.length; at += SIGNALS_AT_ONCE)
        await verb({
          verb: 'signal',
          args: [
            '--sig',
            `${signal}`,
            ...processes.slice(at, at + SIGNALS_AT_ONCE).map((id) => `${id.pid}:${id.start}`),
          ],
          shape: z.object({ sent: z.number(), gone: z.array(z.number()) }),
          code: 'INTERNAL',
        });
    },

    privateTmpfs: (dir: string, bytes: number) =>
      verb({ verb: 'private-tmpfs', args: ['--at', dir, '--size', `${bytes}`], shape: z.unknown(), code: 'INTERNAL' }),

    attach: (request: { path: string; at: string; inside?: ProcessId | undefined; create?: boolean }) =>
      verb({
        verb: 'attach',
        args: [
          '--path',
          request.path,
          '--at',
          request.at,
          ...(request.inside ? at(request.inside) : []),
          ...(request.create ? ['--create', '1'] : []),
        ],
        shape: attached,
        code: 'STORAGE_NOT_ATTACHED',
      }),
    detach: (dir: string) => verb({ verb: 'detach', args: ['--at', dir], shape: z.unknown(), code: 'INTERNAL' }),

    put: (id: ProcessId, dir: string, name: string, content: string) =>
      verb({
        verb: 'put',
        args: [...at(id), '--dir', dir, '--name', name],
        shape: z.unknown(),
        code: 'CONTROL_DIR_UNSAFE',
        input: content,
      }),
    look: (id: ProcessId, dir: string, name: string) =>
      verb({
        verb: 'look',
        args: [...at(id), '--dir', dir, '--name', name],
        shape: looked,
        code: 'CONTROL_DIR_UNSAFE',
      }),
    remove: (id: ProcessId, dir: string, name: string) =>
      verb({
        verb: 'remove',
        args: [...at(id), '--dir', dir, '--name', name],
        shape: z.object({ removed: z.boolean() }),
        code: 'CONTROL_DIR_UNSAFE',
      }),

    /**
     * Character devices of these majors in a directory of the container, and what there has a name with this prefix. Those to be opened are
     * opened and closed, by a process that is in the container's cgroups while it does so.
     */
    devices: (id: ProcessId, dir: string, { prefix, majors, opened, cgroupRoot }: DevicesRequest) =>
      verb({
        verb: 'devices',
        args: [
          ...[...at(id), '--dir', dir, '--prefix', prefix, '--cgroup-root', cgroupRoot],
          ...majors.flatMap((major) => ['--major', `${major}`]),
          ...opened.flatMap(({ major, minor }) => ['--open', `${major}:${minor}`]),
        ],
        shape: devices,
        code: 'GPU_IDENTITY',
      }),

    /** Mounts device nodes of a container at the same places in the mount namespace of another process. */
    graft: (id: ProcessId, { into, paths }: { into: ProcessId; paths: readonly string[] }) =>
      verb({
        verb: 'graft',
        args: [...at(id), '--into', `${into.pid}:${into.start}`, ...paths],
        shape: z.object({ grafted: z.number() }),
        code: 'RESTORE_FAILED',
      }),

    ipcUsage: (id: ProcessId) => verb({ verb: 'ipc-usage', args: at(id), shape: ipcUsage, code: 'INTERNAL' }),
    seccomp: (id: ProcessId) => verb({ verb: 'seccomp', args: at(id), shape: seccomp, code: 'INTERNAL' }),
    /** Fails with CAPABILITY_MISSING where the process waits with a mask of its own, for signals it handles. */
    blockSignal: (id: ProcessId, signal: number) =>
      verb({ verb: 'block-signal', args: [...at(id), '--sig', `${signal}`], shape: z.unknown(), code: 'INTERNAL' }),
    injectExit: (id: ProcessId, code: number) =>
      verb({ verb: 'inject-exit', args: [...at(id), '--code', `${code}`], shape: z.unknown(), code: 'INTERNAL' }),
    arm: (id: ProcessId, innerPid: number) =>
      verb({
        verb: 'arm',
        args: [...at(id), '--inner', `${innerPid}`],
        shape: z.object({ armed: z.boolean() }),
        code: 'INTERNAL',
      }),

    ...copyingVerbs(options),
    ...criuVerbs(options),
  };
}
