import { z } from 'zod';
import { type RunResult, runToFiles } from './exec.ts';
import { type LongVerb, type NativeOptions, type ProcessId, parseLine, targetArguments } from './verb.ts';

const restored = z.object({ pid: z.number(), start: z.number(), inner: z.number() });

export interface RestoreVerb {
  readonly cgroupRoot: string;
  readonly rootAt: string;
  readonly pidfile: string;
  readonly privateIpc: boolean;
  readonly fds: readonly { readonly fd: number; readonly source: 'net' | 'stdin' | 'stdout' | 'stderr' | 'tty' }[];
  readonly argv: readonly string[];
  readonly env: Record<string, string>;
  readonly logPrefix: string;
}

/** The verbs that run CRIU in another process's namespaces. */
export function criuVerbs(options: NativeOptions) {
  const at = (id: ProcessId) => targetArguments(options, id);
  return {
    /** Joins namespaces of the process and executes a program there; output to files. */
    dump: (
      id: ProcessId,
      request: {
        join: readonly string[];
        argv: readonly string[];
        env: Record<string, string>;
        logPrefix: string;
      } & LongVerb,
    ): Promise<RunResult> =>
      runToFiles({
        argv: [
          options.helperPath,
          'dump',
          ...at(id),
          ...(request.join.length > 0 ? ['--join', request.join.join(',')] : []),
          '--',
          ...request.argv,
        ],
        env: request.env,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
        stdoutFile: `${request.logPrefix}.out`,
        stderrFile: `${request.logPrefix}.err`,
      }),

    /** Runs CRIU's restore from inside the placeholder's namespaces; `stdout` of the result holds the restored root. */
    restore: (id: ProcessId, request: RestoreVerb & LongVerb): Promise<RunResult> =>
      runToFiles({
        argv: [
          options.helperPath,
          'restore',
          ...at(id),
          '--cgroup-root',
          request.cgroupRoot,
          '--root-at',
          request.rootAt,
          '--pidfile',
          request.pidfile,
          ...(request.privateIpc ? ['--private-ipc', '1'] : []),
          ...request.fds.flatMap(({ fd, source }) => ['--fd', `${fd}=${source}`]),
          '--',
          ...request.argv,
        ],
        env: request.env,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
        stdoutFile: `${request.logPrefix}.out`,
        stderrFile: `${request.logPrefix}.err`,
      }),
    parseRestored: (line: string) => restored.parse(parseLine(line.trim().split('\n').at(-1) ?? '')),
  };
}
