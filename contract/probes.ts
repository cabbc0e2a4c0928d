import type { Container, Probe } from '../kube/objects.ts';
import { DEFAULT_CONTROL_DIR, SENTINELS } from './keys.ts';

/**
 * How long a restore pod may take until its restored process answers: the longest `restore.restoreTimeoutSeconds` that an agent can be
 * given. The agent ends a restore that takes too long; kubelet must not do so before, nor while a placeholder waits for its artifact.
 */
export const STARTUP_SECONDS = 86_400;

/** Passes while the worker says that it has loaded and is quiet: a source is checkpointed when it is ready. */
export function readyForSnapshotProbe(): Probe {
  return { exec: { command: ['cat', `${DEFAULT_CONTROL_DIR}/${SENTINELS.ready}`] }, periodSeconds: 1 };
}

/**
 * The probe that says when a restored container serves: the worker's own, asked once a second for as long as a restore may take. Until it
 * has passed, kubelet asks no other.
 */
export function restoredStartupProbe(container: Container, seconds: number): Probe {
  const own = container.startupProbe ?? container.livenessProbe ?? container.readinessProbe;
  const { failureThreshold = 0 } = container.startupProbe ?? {};
  return {
    ...(own ?? { exec: { command: ['sh', '-c', RESTORED_SCRIPT] }, timeoutSeconds: 5 }),
    initialDelaySeconds: 0,
    periodSeconds: 1,
    successThreshold: 1,
    failureThreshold: Math.max(seconds, failureThreshold),
  };
}

/** What a startup probe of ours leaves in the control directory, to compare times with. */
const MARK = '.startup-probe';

/**
 * For a worker without any probe. The sentinel alone will not do: a worker that removes it within the second is never seen, and one of an
 * earlier container may lie there. So it asks two things, which both stay true:
 *
 * - Is there a restored process? snapshot-standby says by its name that it stands for one; any other PID 1 stays stopped beside one that
 *   runs. With GPUs that is so before the restore is over.
 * - Is the sentinel there, or has it been? As long as there is no restored process the probe renews a mark; a directory that was written
 *   to after the last one has seen the sentinel come, and go. A mark of the same time is not newer, as some shells count in seconds: better
 *   early than never. One that was renewed when the process had just come is taken away.
 *
 * Only what a shell can do is used, and `rm`: images differ in what else they have.
 */
const RESTORED_SCRIPT = `cd ${DEFAULT_CONTROL_DIR} || exit 1
restored() {
  read -r name </proc/1/comm && [ "$name" = standby-armed ] && return 0
  read -r line </proc/1/stat || return 1
  set -- \${line##*) }
  [ "$1" = T ] || return 1
  for stat in /proc/[0-9]*/stat; do
    read -r line 2>/dev/null <"$stat" || continue
    set -- \${line##*) }
    case "$2 $1" in "1 T" | "1 t" | "1 Z" | "1 X") ;; "1 "*) return 0 ;; esac
  done
  return 1
}
if restored; then
  [ -e ${SENTINELS.restored} ] || [ ! ${MARK} -nt . ]
  exit
fi
echo >${MARK}
restored && rm -f ${MARK}
exit 1`;
