import { SCOPED_ANNOTATIONS } from '../../contract/keys.ts';
import { isGone } from '../../kube/error.ts';
import type { Pod } from '../../kube/objects.ts';
import { kubePath } from '../../kube/paths.ts';
import { CommandError } from '../failure.ts';
import type { Terminal } from '../terminal.ts';
import { formatDuration } from './duration.ts';
import { askUntil, EXPLANATION_MS, type Progress } from './follower.ts';
import { agentsWord, type NewsPlace } from './pod-news.ts';
import { containerId, podSummary } from './pod-state.ts';

/** What a pod says of the restore of one of its containers. */
export interface Attempt {
  readonly container: string;
  readonly status: string;
  /** The runtime's id of the container that this is about. */
  readonly containerId: string;
}

export const podPath = (namespace: string, name: string) =>
  kubePath('api', 'v1', 'namespaces', namespace, 'pods', name);

/** What the pod says of the restores of these containers, whichever of their runs it is about. */
export function attemptsOf({ metadata }: Pod, targets: readonly string[]): Attempt[] {
  const { annotations = {} } = metadata ?? {};
  return targets.flatMap((container) => {
    const status = annotations[SCOPED_ANNOTATIONS.restoreStatus + container];
    const id = annotations[SCOPED_ANNOTATIONS.restoreContainerId + container];
    return status === undefined || id === undefined ? [] : [{ container, status, containerId: id }];
  });
}

/** Attempts of the containers that run now: the agent restores into each container once. */
export function currentAttempts(pod: Pod, targets: readonly string[]): Attempt[] {
  return attemptsOf(pod, targets).filter((attempt) => attempt.containerId === containerId(pod, attempt.container));
}

export interface RestoreFollowing extends NewsPlace {
  readonly terminal: Terminal;
  readonly progress: Progress;
  readonly timeoutMs: number;
  readonly targets: readonly string[];
  /** Attempts that are not the one that was asked for. */
  readonly earlier: readonly Attempt[];
}

/** Waits until every target container is restored. Throws CommandError for any other end, with what is known of it. */
export async function followRestore(following: RestoreFollowing, asked: Pod): Promise<void> {
  const { terminal, timeoutMs, namespace, progress } = following;
  let last = asked;
  const end = await askUntil({ terminal, timeoutMs }, async () => {
    last = await readPod(following, asked);
    await progress.tell(following, [last]);
    return endOf(last, following);
  });
  const name = asked.metadata?.name ?? '';
  if (end === undefined)
    throw new CommandError(
      'timeout',
      `the restore into pod ${namespace}/${name} is not complete after ${formatDuration(timeoutMs)}; it goes on. ${podSummary(last)}`,
    );
  if (end.failed !== undefined) throw await failure(following, last, end.failed);
  if (end.ended)
    throw new CommandError('failed', `pod ${namespace}/${name} ended before it was restored. ${podSummary(last)}`);
}

async function readPod({ kube, namespace, signal }: RestoreFollowing, { metadata }: Pod): Promise<Pod> {
  const name = metadata?.name ?? '';
  const gone = new CommandError('failed', `pod ${namespace}/${name} was deleted meanwhile`);
  const pod = await kube
    .request<Pod>({ method: 'GET', path: podPath(namespace, name), signal })
    .catch((error: unknown) => {
      throw isGone(error) ? gone : error;
    });
  if (metadata?.uid !== undefined && pod.metadata?.uid !== metadata.uid) throw gone;
  return pod;
}

interface End {
  readonly failed?: Attempt;
  readonly ended?: boolean;
}

function endOf(pod: Pod, { targets, earlier }: RestoreFollowing): End | undefined {
  const isEarlier = (attempt: Attempt) => earlier.some((each) => each.containerId === attempt.containerId);
  const attempts = attemptsOf(pod, targets).filter((attempt) => !isEarlier(attempt));
  const failed = attempts.find(({ status }) => status === 'failed');
  if (failed !== undefined) return { failed };
  if (attempts.filter(({ status }) => status === 'completed').length === targets.length) return {};
  return /^(Succeeded|Failed)$/.test(pod.status?.phase ?? '') ? { ended: true } : undefined;
}

/** The agent's Event says most; it may come a moment later. */
async function failure(following: RestoreFollowing, pod: Pod, { container }: Attempt): Promise<CommandError> {
  const { terminal, namespace } = following;
  const look = async () => {
    const word = await agentsWord(following, [pod], { reason: 'RestoreFailed', container });
    return word === undefined ? undefined : { word };
  };
  const found = await askUntil({ terminal, timeoutMs: EXPLANATION_MS }, look).catch(() => undefined);
  const name = pod.metadata?.name ?? '';
  const what = `the restore into container ${container} of pod ${namespace}/${name} failed`;
  const isRefused = found?.word.includes('RESTORE_REFUSED') === true;
  return new CommandError(
    isRefused ? 'refused' : 'failed',
    found === undefined ? `${what}. ${podSummary(pod)}` : found.word,
  );
}
