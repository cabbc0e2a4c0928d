import { constants, existsSync, rmSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Cluster } from './cluster.ts';
import { eventually, host } from './host.ts';

type Action = 'dump' | 'restore';

/** Without a child of its own, so that whoever kills it has killed all of it. */
const CRIU = `#!/bin/sh
if [ -p /opt/gates/$1 ]; then
  : >/opt/gates/$1.reached
  read -r go </opt/gates/$1
fi
exec /usr/sbin/criu "$@"
`;

/** Holds CRIU before it does anything, until whoever runs it ends it. */
export class CriuGate {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async make(cluster: Cluster): Promise<CriuGate> {
    const directory = join(cluster.directory, 'gates');
    await mkdir(directory);
    await writeFile(join(directory, 'criu'), CRIU);
    await chmod(join(directory, 'criu'), 0o755);
    return new CriuGate(directory);
  }

  /** What an agent is started with so that its CRIU comes by here. */
  get agent() {
    return { config: { criu: { binaryPath: '/opt/gates/criu' } }, binds: [`${this.#directory}:/opt/gates`] };
  }

  /** From now on CRIU is held. */
  async hold(action: Action): Promise<void> {
    await host(['mkfifo', join(this.#directory, action)]);
  }

  async reached(action: Action): Promise<void> {
    const file = join(this.#directory, `${action}.reached`);
    await eventually(`that CRIU is at its ${action}`, () => existsSync(file) || undefined, { timeoutMs: 60_000 });
  }

  /** Lets the one go on that waits here, and holds no other. It may be gone: it ends with its container. */
  async release(action: Action): Promise<void> {
    const flag = constants.O_WRONLY | constants.O_NONBLOCK;
    await writeFile(join(this.#directory, action), 'go\n', { flag }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENXIO') throw error;
    });
    this.open();
  }

  /** From now on CRIU is not held. One that waits here waits on. */
  open(): void {
    for (const name of ['dump', 'restore'])
      for (const file of [name, `${name}.reached`]) rmSync(join(this.#directory, file), { force: true });
  }
}
