import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Cluster } from './environment/cluster.ts';
import { eventually, REPOSITORY } from './environment/host.ts';

/**
 * In place of the native helper: holds any verb up while `gates/helper` names the step that the journal is in, and, optionally, the
 * verb. It ends with the agent, as the helper does.
 */
const HELPER = `#!/bin/sh
gate=/opt/faults/gates/helper
if [ "$1" != pin ] && [ -e $gate ]; then
  read -r token step verb <$gate
  last=$(grep '"state":"step"' /var/lib/snapshot-agent/journal.jsonl | tail -n 1)
  case $last in
  *"\\"step\\":\\"$step\\""*)
    if [ -z "$verb" ] || [ "$verb" = "$1" ]; then
      echo "$token $1" >$gate.reached
      while [ -e $gate ]; do
        [ -d /proc/$PPID ] || exit 1
        sleep 0.02
      done
    fi
    ;;
  esac
fi
exec /opt/faults/snapshot-helper "$@"
`;

/**
 * In place of CRIU: waits at the FIFO `gates/criu-ACTION`, or fails with the log in `gates/criu-ACTION.fails`. Without a child of
 * its own, so that whoever kills it has killed all of it.
 */
const CRIU = `#!/bin/sh
gate=/opt/faults/gates/criu-$1
if [ -e $gate.fails ]; then
  previous=
  for word in "$@"; do
    case $previous in
    --work-dir) work=$word ;;
    --log-file) log=$word ;;
    esac
    previous=$word
  done
  while IFS= read -r line; do echo "$line"; done <$gate.fails >"$work/$log"
  exit 1
fi
if [ -p $gate ]; then
  : >$gate.reached
  read -r go <$gate
fi
exec /usr/sbin/criu "$@"
`;

type Gate = 'helper' | 'criu-dump' | 'criu-restore';

/** Places at which the programs that an agent starts can be held up, or made to fail. */
export class Gates {
  /** Where an agent must have the programs; merged over its configuration. */
  readonly config = { criu: { binaryPath: '/opt/faults/criu' }, paths: { helper: '/opt/faults/helper' } };
  readonly binds: readonly string[];
  readonly #directory: string;
  /** Tells the helper that is held now from one that an earlier hold let go at the last moment. */
  #holds = 0;

  private constructor(faults: string) {
    this.binds = [`${faults}:/opt/faults`];
    this.#directory = join(faults, 'gates');
  }

  static async make(cluster: Cluster): Promise<Gates> {
    const faults = join(cluster.directory, 'faults');
    await mkdir(join(faults, 'gates'), { recursive: true });
    await writeFile(join(faults, 'helper'), HELPER);
    await writeFile(join(faults, 'criu'), CRIU);
    await copyFile(resolve(REPOSITORY, 'native/build/snapshot-helper'), join(faults, 'snapshot-helper'));
    for (const name of ['helper', 'criu', 'snapshot-helper']) await chmod(join(faults, name), 0o755);
    return new Gates(faults);
  }

  /** From now on verbs of the helper wait in this step. */
  holdHelper(step: string, verb = ''): void {
    this.#holds += 1;
    const path = join(this.#directory, 'helper');
    writeFileSync(`${path}.new`, `${this.#holds} ${step} ${verb}\n`);
    renameSync(`${path}.new`, path);
  }

  /** From now on CRIU waits before it does anything. */
  holdCriu(action: 'dump' | 'restore'): void {
    rmSync(join(this.#directory, `criu-${action}.reached`), { force: true });
    execFileSync('mkfifo', [join(this.#directory, `criu-${action}`)]);
  }

  /** From now on CRIU fails, with this as its log. */
  failCriu(action: 'dump' | 'restore', log: string): void {
    writeFileSync(join(this.#directory, `criu-${action}.fails`), `${log}\n`);
  }

  /** Whether something is held up there. */
  isReached(gate: Gate): boolean {
    return gate === 'helper' ? this.heldVerb !== undefined : existsSync(join(this.#directory, `${gate}.reached`));
  }

  async reached(gate: Gate, explain?: () => string): Promise<void> {
    await eventually(`${gate} to be held`, () => (this.isReached(gate) ? true : undefined), {
      timeoutMs: 60_000,
      ...(explain && { explain }),
    });
  }

  /** The verb of the helper that is held up. */
  get heldVerb(): string | undefined {
    const path = join(this.#directory, 'helper.reached');
    const [token, verb] = existsSync(path) ? readFileSync(path, 'utf8').split(/\s/) : [];
    return token === `${this.#holds}` ? verb : undefined;
  }

  /** Lets everything go on. */
  openAll(): void {
    for (const name of readdirSync(this.#directory)) {
      // A CRIU that waits at its FIFO goes on; where none waits, opening it fails and nobody needs it.
      if (/^criu-\w+$/.test(name)) release(join(this.#directory, name));
      rmSync(join(this.#directory, name), { force: true });
    }
  }
}

function release(fifo: string): void {
  try {
    const end = openSync(fifo, 'r+');
    writeSync(end, 'go\n');
    // Kept open until the reader has it: a FIFO forgets what is in it when nobody holds it.
    setTimeout(() => closeSync(end), 2000);
  } catch {
    // It is gone.
  }
}
