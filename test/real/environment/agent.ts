import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { type CgroupMode, withCgroups } from './cgroups.ts';
import type { JsonLine } from './container.ts';
import { AGENT_ROOT, CACHE, eventually, host, REPOSITORY } from './host.ts';

const AGENT_ROOT_SCRIPT = resolve(import.meta.dirname, 'agent-root.sh');
const PRELOAD_SOURCE = resolve(REPOSITORY, 'test/preload/without-sys-resource.c');
/** Where the agent finds the preload, if it needs one. */
const PRELOAD_PATH = '/opt/snapshot-test/without-sys-resource.so';
const CAP_SYS_RESOURCE = 24n;

export type Tree = { readonly [key: string]: unknown };

/** What of the machine an agent environment shows, and where. */
export interface AgentPlace {
  /** The cluster's directory. */
  readonly directory: string;
  /** The container runtime: its socket, and the directory that holds the upper directories of the containers' roots. */
  readonly runtime: { readonly socketPath: string; readonly root: string };
  readonly podsDirectory: string;
  readonly cgroup: string;
  readonly cgroups: CgroupMode;
}

export interface AgentRequest {
  /** Merged over the environment's own configuration, key by key. */
  readonly config?: Tree;
  /** A volume at the base path: agentMount mode. Without it the mode is podMount. */
  readonly volume?: { readonly hostPath: string; readonly mountPath: string } | undefined;
  readonly env?: Readonly<Record<string, string>>;
  /** Further HOSTPATH:PATH mounts. */
  readonly binds?: readonly string[];
  /** State that outlives the agent; agents of the same name share it. */
  readonly stateName?: string;
}

/** Whether this machine withholds CAP_SYS_RESOURCE, without which CRIU cannot read the limits of other users' processes. */
export function lacksSysResource(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> CAP_SYS_RESOURCE) & 1n) === 0n;
}

async function preload(): Promise<string> {
  const key = createHash('sha256')
    .update(await readFile(PRELOAD_SOURCE))
    .digest('hex')
    .slice(0, 16);
  const library = join(CACHE, `without-sys-resource-${key}.so`);
  if (!existsSync(library)) {
    const unfinished = `${library}.${process.pid}`;
    await host(['gcc', '-shared', '-fPIC', '-O2', '-Wall', '-o', unfinished, PRELOAD_SOURCE]);
    await rename(unfinished, library);
  }
  return library;
}

/** Environment variables that CRIU needs on this machine, beyond what it needs on every machine. */
function criuEnvironment(): Record<string, string> {
  return lacksSysResource() ? { LD_PRELOAD: PRELOAD_PATH } : {};
}

let saidAloud = false;
function sayAloud(): void {
  if (saidAloud || !lacksSysResource()) return;
  saidAloud = true;
  process.stderr.write(
    'NOTE: this machine lacks CAP_SYS_RESOURCE. CRIU runs with test/preload, which answers refused reads of limits from /proc.\n',
  );
}

/** Both, and `over` where both have the same key. */
export function merged(base: Tree, over: Tree): Tree {
  const isTree = (value: unknown): value is Tree =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const old = result[key];
    result[key] = isTree(old) && isTree(value) ? merged(old, value) : value;
  }
  return result;
}

/** The command line that starts a program in a new agent environment, and the environment's directories. */
async function enterArguments(place: AgentPlace, request: AgentRequest, program: readonly string[]): Promise<string[]> {
  if (!existsSync(AGENT_ROOT)) throw new Error("the agent's root directory is not there: run 'make setup'");
  const agents = join(place.directory, 'agents');
  const state = join(agents, `state-${request.stateName ?? 'default'}`);
  const shared = sharedDirectory(place);
  await mkdir(state, { recursive: true, mode: 0o700 });
  await mkdir(shared, { recursive: true });
  await mkdir(join(agents, 'etc'), { recursive: true });
  const work = await mkdtemp(join(agents, 'root-'));
  const binds = [
    `${place.runtime.socketPath}:${place.runtime.socketPath}`,
    `${place.runtime.root}:${place.runtime.root}`,
    `${place.podsDirectory}:${place.podsDirectory}`,
    `${shared}:${shared}`,
    `${state}:/var/lib/snapshot-agent`,
    `${join(agents, 'etc')}:/etc/snapshot`,
    ...['dist', 'native/build', 'proto']
      .filter((name) => existsSync(join(REPOSITORY, name)))
      .map((name) => `${join(REPOSITORY, name)}:/opt/snapshot-agent/${name}`),
    ...(request.volume ? [`${request.volume.hostPath}:${request.volume.mountPath}`] : []),
    ...(lacksSysResource() ? [`${await preload()}:${PRELOAD_PATH}`] : []),
    ...(request.binds ?? []),
  ];
  const unshare = ['unshare', '--mount', '--uts', '--ipc', '--propagation', 'private', '--'];
  const entered = [AGENT_ROOT_SCRIPT, AGENT_ROOT, work, place.cgroup, ...binds, '--', ...program];
  return [...unshare, ...withCgroups(place.cgroups, entered)];
}

/** A directory with the same path on this machine and in every agent environment of the cluster, for sockets and such. */
export function sharedDirectory(place: AgentPlace): string {
  return join(place.directory, 'shared');
}

/** The command line of the agent's image, without the arguments that are given to it. */
function imageCommand(): string[] {
  const script = readFileSync(resolve(REPOSITORY, 'deploy/images/agent/install.sh'), 'utf8');
  const command = /^exec (.+) "\$@"$/m.exec(script)?.[1];
  if (command === undefined) throw new Error('deploy/images/agent/install.sh makes no command');
  return command.split(' ');
}

const CLEAN_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', LANG: 'C.UTF-8' };

/** Runs a program to its end in a new agent environment. It gets what CRIU needs on this machine in CRIU_LD_PRELOAD. */
export async function enter(
  place: AgentPlace,
  program: readonly [string, ...string[]],
  request: AgentRequest & { readonly timeoutMs?: number; readonly stdin?: string } = {},
): Promise<{ exitCode: number | null; stdout: string; stderr: string }> {
  sayAloud();
  const [command = '', ...args] = await enterArguments(place, request, program);
  const env = { ...CLEAN_ENV, CRIU_LD_PRELOAD: criuEnvironment()['LD_PRELOAD'] ?? '', ...request.env };
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => undefined).end(request.stdin ?? '');
  const timer = setTimeout(() => process.kill(-(child.pid ?? 0), 'SIGKILL'), request.timeoutMs ?? 60_000);
  // Not `close`: what the program leaves behind may keep the pipes open.
  const [exitCode] = (await once(child, 'exit')) as [number | null];
  clearTimeout(timer);
  child.stdout.destroy();
  child.stderr.destroy();
  return { exitCode, stdout, stderr };
}

/** The agent, as built, in an environment of its own. */
export class Agent {
  /** JSON lines that it logged, over all its starts. */
  readonly logFile: string;
  /** Same path on this machine and for the agent. */
  readonly sharedDirectory: string;
  readonly #place: AgentPlace;
  readonly #request: AgentRequest;
  #child: ChildProcess | undefined;

  constructor(place: AgentPlace, request: AgentRequest) {
    this.#place = place;
    this.#request = request;
    this.sharedDirectory = sharedDirectory(place);
    this.logFile = join(place.directory, 'agents', `${request.stateName ?? 'default'}.log`);
  }

  /** The configuration that it is started with. */
  config(): Tree {
    const base = {
      nodeName: 'test-node',
      logLevel: 'debug',
      runtime: { type: 'containerd', socketPath: this.#place.runtime.socketPath },
      storage: {
        accessMode: this.#request.volume ? 'agentMount' : 'podMount',
        basePath: this.#request.volume?.mountPath ?? '/checkpoints',
        key: { create: true },
      },
      checkpoint: { quiesceDelaySeconds: 1 },
      criu: { environment: criuEnvironment() },
      http: { address: '127.0.0.1:0' },
      api: { socketPath: this.apiSocket },
    };
    return merged(base, this.#request.config ?? {});
  }

  /** Where it serves gRPC: a path that is the same on this machine. */
  get apiSocket(): string {
    return join(this.sharedDirectory, `api-${this.#request.stateName ?? 'default'}`, 'agent.sock');
  }

  get pid(): number {
    if (!this.running || this.#child?.pid === undefined) throw new Error('the agent is not running');
    return this.#child.pid;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start(): Promise<this> {
    if (this.running) throw new Error('the agent is running already');
    sayAloud();
    const configName = `${this.#request.stateName ?? 'default'}.yaml`;
    const program = [...imageCommand(), '--config', `/etc/snapshot/${configName}`];
    const [command = '', ...args] = await enterArguments(this.#place, this.#request, program);
    await writeFile(join(this.#place.directory, 'agents/etc', configName), stringify(this.config()));
    const out = openSync(this.logFile, 'a');
    // The process keeps its PID through every step of the way into the environment, so this child is the agent.
    this.#child = spawn(command, args, {
      env: { ...CLEAN_ENV, ...this.#request.env },
      stdio: ['ignore', out, out],
      detached: true,
    });
    closeSync(out);
    await once(this.#child, 'spawn');
    return this;
  }

  /** Everything it wrote, one entry for each line; what is no JSON stands under `text`. */
  logs(): JsonLine[] {
    if (!existsSync(this.logFile)) return [];
    const lines = readFileSync(this.logFile, 'utf8')
      .split('\n')
      .filter((line) => line !== '');
    return lines.map((text) => {
      try {
        return JSON.parse(text) as JsonLine;
      } catch {
        return { text };
      }
    });
  }

  /** The first log line, from line `from` on, for which `wanted` holds. Fails at once where the agent ended. */
  async waitForLog(
    what: string,
    wanted: (line: JsonLine) => boolean,
    { timeoutMs = 30_000, from = 0 }: { timeoutMs?: number; from?: number } = {},
  ): Promise<JsonLine> {
    const explain = () =>
      `the agent's last lines:\n${this.logs()
        .slice(-20)
        .map((line) => JSON.stringify(line))
        .join('\n')}`;
    return eventually(
      `${what} in the agent's log`,
      () => {
        const running = this.running;
        const found = this.logs().slice(from).find(wanted);
        if (!found && !running)
          throw new Error(
            `the agent ended (${this.#child?.exitCode ?? this.#child?.signalCode}) before ${what}\n${explain()}`,
          );
        return found;
      },
      { timeoutMs, explain },
    );
  }

  /** Ends it with a signal and waits: SIGTERM to stop it, SIGKILL to see what it makes of its state when it starts again. */
  async end(
    signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM',
    timeoutMs = 20_000,
  ): Promise<{ exitCode: number | null; signal: string | null }> {
    const child = this.#child;
    if (!child) return { exitCode: null, signal: null };
    if (this.running) {
      child.kill(signal);
      await eventually('the agent to end', () => (this.running ? undefined : true), {
        timeoutMs,
        explain: () =>
          this.logs()
            .slice(-20)
            .map((line) => JSON.stringify(line))
            .join('\n'),
      });
    }
    return { exitCode: child.exitCode, signal: child.signalCode };
  }

  async restart(signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<this> {
    await this.end(signal);
    return this.start();
  }
}
