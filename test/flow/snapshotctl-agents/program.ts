import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';

const ROOT = resolve(import.meta.dirname, '../../..');

/** How a run of the program ended, and what it wrote. */
interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** A run that goes on. */
interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  /** Resolves once what it has written so far, on both streams, fits. */
  until(pattern: RegExp): Promise<string>;
  /** Types or pipes something in. */
  write(text: string): void;
}

interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Columns of a terminal to run it in; then all that it shows is `out`. Undefined: pipes. */
  readonly terminal?: number;
}

/** The program as it is built, in a directory of its own beside proto/ as `dist/` is. */
export interface Program {
  readonly file: string;
  start(args: readonly string[], options?: RunOptions): Running;
  run(args: readonly string[], options?: RunOptions): Promise<Ended>;
  remove(): Promise<void>;
}

/** Bundles snapshotctl for the tests of one file. */
export async function makeProgram(): Promise<Program> {
  await mkdir(join(ROOT, '.cache'), { recursive: true });
  const directory = await mkdtemp(join(ROOT, '.cache/snapshotctl-'));
  const file = join(directory, 'snapshotctl.mjs');
  await build({
    entryPoints: [join(ROOT, 'snapshotctl/main.ts')],
    outfile: file,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    logLevel: 'warning',
    banner: { js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);" },
  });
  return programAt(file, () => rm(directory, { recursive: true, force: true }));
}

/** One that is built already. */
export function programAt(file: string, remove: () => Promise<void> = () => Promise.resolve()): Program {
  const start = (args: readonly string[], options?: RunOptions) => startProgram(file, args, options);
  return {
    file,
    start,
    run: async (args, options) => {
      const running = start(args, options);
      running.child.stdin?.end();
      return await running.ended;
    },
    remove,
  };
}

/** Without what the machine's own settings would change. */
function environment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { KUBECONFIG: _, NO_COLOR: __, ...own } = process.env;
  return { ...own, TERM: 'xterm', HOME: '/nonexistent', ...env };
}

function startProgram(file: string, args: readonly string[], { env = {}, terminal }: RunOptions = {}): Running {
  const command = [process.execPath, file, ...args];
  const line = command.map((part) => `'${part.replaceAll("'", "'\\''")}'`).join(' ');
  const child =
    terminal === undefined
      ? spawn(command[0] ?? '', command.slice(1), { env: environment(env), stdio: 'pipe' })
      : spawn('script', ['-qefc', `stty cols ${terminal} rows 40; exec ${line}`, '/dev/null'], {
          env: environment(env),
          stdio: 'pipe',
        });
  const waiting = new Set<() => void>();
  let [out, err] = ['', ''];
  const ring = () => {
    for (const look of waiting) look();
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
    ring();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
    ring();
  });
  child.stdin.on('error', () => undefined);
  const ended = new Promise<Ended>((settle, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      settle({ code, out, err });
      ring();
    });
  });
  return {
    child,
    ended,
    until: (pattern) =>
      new Promise((settle, reject) => {
        const look = () => {
          if (pattern.test(out + err)) settle(out + err);
          else if (child.exitCode === null) return;
          else reject(new Error(`it ended without ${pattern}: ${out}${err}`));
          waiting.delete(look);
        };
        waiting.add(look);
        look();
      }),
    write: (text) => void child.stdin.write(text),
  };
}

const STEERING = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*[A-Za-z]`, 'g');

/** What a person sees in the end: what was taken away or written over is gone. */
export function seen(output: string): string {
  return output
    .split(/\r?\n/)
    .map((line) => line.slice(line.lastIndexOf('\r') + 1).replace(STEERING, ''))
    .join('\n');
}
