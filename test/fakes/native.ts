import type { Native, ProcessId } from '../../agent/host/native.ts';

/** What was asked of the helper: the verb, and what matters of its arguments. */
type Asked = readonly [verb: string, ...unknown[]];

export interface FakeNative {
  readonly native: Native;
  readonly asked: Asked[];
  /** Verbs that fail from now on. */
  readonly failing: Map<string, unknown>;
  /** Ends a process that may be pinned: its raw wait status, or null where the kernel does not tell. */
  end(pid: number, status: number | null): void;
  /** Pins that are held now. */
  readonly held: Set<number>;
}

/** A helper without a kernel: it knows these processes, and whether containers have a control directory. */
export function fakeNative(options: {
  procRoot: string;
  processes?: readonly ProcessId[];
  hasControlDir?: boolean;
}): FakeNative {
  const { procRoot, processes = [], hasControlDir = true } = options;
  const asked: Asked[] = [];
  const failing = new Map<string, unknown>();
  const held = new Set<number>();
  const enders = new Map<number, ((status: number | null) => void)[]>();
  const note = async (...call: Asked) => {
    asked.push(call);
    if (failing.has(call[0])) throw failing.get(call[0]);
  };
  const native = {
    options: { procRoot, helperPath: '/none', deadlineMs: 1_000 },
    signal: async (signal: number, ids: readonly ProcessId[]) => {
      await note('signal', signal, ids.map(({ pid, start }) => `${pid}:${start}`).join(' '));
      return { sent: ids.length, gone: [] };
    },
    look: async (id: ProcessId, dir: string, name: string) => {
      await note('look', id.pid, `${dir}/${name}`);
      return { dir: hasControlDir, exists: false, type: '', content: '' };
    },
    put: (id: ProcessId, dir: string, name: string, content: string) => note('put', id.pid, `${dir}/${name}`, content),
    injectExit: (id: ProcessId, code: number) => note('inject-exit', id.pid, code),
    pin: async (pid: number, start?: number) => {
      await note('pin', pid, start);
      const known = processes.find((id) => id.pid === pid && (start === undefined || id.start === start));
      if (known === undefined) throw new Error(`no process ${pid}`);
      held.add(pid);
      const ended = new Promise<string[]>((resolve) => {
        const enter = (status: number | null) => resolve([JSON.stringify({ exited: pid, status })]);
        enders.set(pid, [...(enders.get(pid) ?? []), enter]);
      });
      const ask = async (line: string) => {
        await note('ask', pid, line);
        return line === 'check' ? '{"alive":true}' : '{"signalled":true}';
      };
      return {
        facts: { ...known, nspid: [pid, 1], ns: {} },
        session: { ask, ended, stop: () => void held.delete(pid) },
      };
    },
  };
  return {
    native: native as unknown as Native,
    asked,
    failing,
    held,
    end: (pid, status) => {
      for (const enter of enders.get(pid) ?? []) enter(status);
    },
  };
}
