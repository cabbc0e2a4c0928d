import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CgroupMode, withCgroups } from '../../real/environment/cgroups.ts';
import { eventually, host } from '../../real/environment/host.ts';
import type { OciSpec } from './spec.ts';

/** Where runc keeps its state, and which cgroups it sees. */
export interface RuncPlace {
  readonly stateDirectory: string;
  readonly cgroups: CgroupMode;
}

/**
 * A container under a runc that stays in the foreground: it gives the container pipes for its output, copies these to files, and ends
 * with the container's exit code, as a container runtime's shim would.
 */
export class RuncProcess {
  readonly pid: number;
  readonly startedAtNs: bigint;
  readonly #id: string;
  readonly #place: RuncPlace;
  readonly #child: ChildProcess;

  private constructor(place: RuncPlace, id: string, child: ChildProcess, pid: number) {
    this.#place = place;
    this.#id = id;
    this.#child = child;
    this.pid = pid;
    this.startedAtNs = BigInt(Date.now()) * 1_000_000n;
  }

  static async start(
    place: RuncPlace,
    { id, bundle, spec, log }: { id: string; bundle: string; spec: OciSpec; log: { stdout: string; stderr: string } },
  ): Promise<RuncProcess> {
    await mkdir(bundle, { recursive: true });
    await writeFile(join(bundle, 'config.json'), JSON.stringify(spec));
    const pidFile = join(bundle, 'pid');
    const [command, ...args] = runc(place, 'run', '--bundle', bundle, '--pid-file', pidFile, id);
    const [out, err] = [openSync(log.stdout, 'a'), openSync(log.stderr, 'a')];
    const child = spawn(command, args, { stdio: ['ignore', out, err], detached: true });
    closeSync(out);
    closeSync(err);
    await once(child, 'spawn');
    const explain = () => readFileSync(log.stderr, 'utf8').slice(-2_000);
    const pid = await eventually(
      `container ${id} to start`,
      () => {
        if (existsSync(pidFile)) return Number(readFileSync(pidFile, 'utf8')) || undefined;
        if (child.exitCode !== null) throw new Error(`runc ended with ${child.exitCode} before ${id}: ${explain()}`);
        return undefined;
      },
      { explain, everyMs: 5 },
    );
    return new RuncProcess(place, id, child, pid);
  }

  /** The container's exit code as runc passes it on; undefined while it runs. */
  get exitCode(): number | undefined {
    const { exitCode, signalCode } = this.#child;
    return exitCode ?? (signalCode === null ? undefined : 255);
  }

  /** Ends the container with all its processes. */
  async kill(): Promise<void> {
    if (this.exitCode !== undefined) return;
    await host(runc(this.#place, 'kill', this.#id, 'KILL')).catch(() => undefined);
    await eventually(`container ${this.#id} to end`, () => (this.exitCode === undefined ? undefined : true), {
      timeoutMs: 60_000,
    });
  }
}

function runc({ stateDirectory, cgroups }: RuncPlace, ...args: readonly string[]): [string, ...string[]] {
  const [command = '', ...rest] = withCgroups(cgroups, ['runc', '--root', stateDirectory, ...args]);
  return [command, ...rest];
}
