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

/**
 * For a worker without any probe. The sentinel alone will not do: a worker that removes it within the second is never seen. What stays is
 * the restored process itself: snapshot-standby says that it stands for one (its name), and any other PID 1 stays stopped beside one that
 * runs. Only what a shell can do by itself is used, as images differ in what else they have.
 */
const RESTORED_SCRIPT = `[ -e ${DEFAULT_CONTROL_DIR}/${SENTINELS.restored} ] && exit 0
read -r name </proc/1/comm && [ "$name" = standby-armed ] && exit 0
read -r line </proc/1/stat || exit 1
set -- \${line##*) }
[ "$1" = T ] || exit 1
for stat in /proc/[0-9]*/stat; do
  read -r line 2>/dev/null <"$stat" || continue
  set -- \${line##*) }
  case "$2 $1" in "1 T" | "1 t" | "1 Z" | "1 X") ;; "1 "*) exit 0 ;; esac
done
exit 1`;
