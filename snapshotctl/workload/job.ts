import { ANNOTATIONS } from '../../contract/keys.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone } from '../../kube/error.ts';
import type { Job } from '../../kube/objects.ts';
import { kubePath } from '../../kube/paths.ts';
import { CommandError } from '../failure.ts';
import { oneLine } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';
import { asCommandError, withDoubt } from './asking.ts';
import { formatDuration } from './duration.ts';
import { askUntil, EXPLANATION_MS, type Progress } from './follower.ts';
import { agentsWord, jobPods, type NewsPlace } from './pod-news.ts';
import { podSummary } from './pod-state.ts';

const jobsPath = (namespace: string) => kubePath('apis', 'batch', 'v1', 'namespaces', namespace, 'jobs');

/** Creates a Job. Throws CommandError. */
export async function createJob(kube: KubeClient, namespace: string, job: Job, signal: AbortSignal): Promise<Job> {
  try {
    return await kube.request<Job>({ method: 'POST', path: jobsPath(namespace), body: job, signal });
  } catch (error) {
    const name = job.metadata?.name ?? '';
    if (!isConflict(error)) throw withDoubt(error, `job ${namespace}/${name}`);
    throw new CommandError(
      'failed',
      `checkpoint job ${namespace}/${name} already exists; look at it, then delete it: kubectl -n ${namespace} delete job ${name}`,
    );
  }
}

/** Deletes a Job with its pod, unless another one has its name by now. Throws CommandError. */
export async function deleteJob(kube: KubeClient, { metadata }: Job): Promise<void> {
  const { name = '', namespace = '', uid } = metadata ?? {};
  const path = `${jobsPath(namespace)}${kubePath(name)}`;
  const preconditions = uid === undefined ? {} : { preconditions: { uid } };
  const body = { propagationPolicy: 'Background', ...preconditions };
  await kube.request({ method: 'DELETE', path, body }).catch((error: unknown) => {
    if (!isGone(error) && !isConflict(error)) throw asCommandError(error);
  });
}

export interface JobFollowing extends NewsPlace {
  readonly terminal: Terminal;
  readonly progress: Progress;
  readonly timeoutMs: number;
}

/** Waits until the checkpoint of a Job is complete. Throws CommandError for any other end, with what is known of it. */
export async function followJob(following: JobFollowing, created: Job): Promise<void> {
  const { terminal, timeoutMs, progress } = following;
  const name = created.metadata?.name ?? '';
  const end = await askUntil({ terminal, timeoutMs }, async () => {
    const job = await readJob(following, created);
    const found = endOf(job);
    if (found === undefined && progress.isShown)
      await progress.tell(following, await jobPods(following, name).catch(() => []));
    return found;
  });
  const called = `job ${following.namespace}/${name}`;
  if (end === undefined)
    throw new CommandError(
      'timeout',
      `the checkpoint of ${called} is not complete after ${formatDuration(timeoutMs)}. ${await podsNow(following, name)}`,
    );
  if (!end.isComplete) throw new CommandError('failed', await explained(following, name, `${called} ${end.why}`));
}

async function readJob({ kube, namespace, signal }: JobFollowing, { metadata }: Job): Promise<Job> {
  const path = `${jobsPath(namespace)}${kubePath(metadata?.name ?? '')}`;
  const gone = new CommandError('failed', `checkpoint job ${namespace}/${metadata?.name ?? ''} was deleted meanwhile`);
  const job = await kube.request<Job>({ method: 'GET', path, signal }).catch((error: unknown) => {
    throw isGone(error) ? gone : error;
  });
  if (metadata?.uid !== undefined && job.metadata?.uid !== metadata.uid) throw gone;
  return job;
}

interface End {
  readonly isComplete: boolean;
  readonly why: string;
}

/** What the agent declared; a Job that ended without a word of it has no checkpoint. */
function endOf({ metadata, status }: Job): End | undefined {
  const declared = metadata?.annotations?.[ANNOTATIONS.checkpointStatus];
  if (declared === 'completed') return { isComplete: true, why: '' };
  const ended = status?.conditions?.find((one) => one.status === 'True' && /^(Complete|Failed)$/.test(one.type));
  if (ended?.type === 'Complete')
    return { isComplete: false, why: 'ended without a checkpoint: its containers exited before the agent made one' };
  if (ended !== undefined)
    return { isComplete: false, why: `failed: ${[ended.reason, ended.message].filter(Boolean).join(': ')}` };
  return declared === 'failed' ? { isComplete: false, why: 'was declared failed by the agent' } : undefined;
}

/** The agent's Event says most; it may come a moment later. */
async function explained(following: JobFollowing, job: string, what: string): Promise<string> {
  const look = async () => {
    const word = await agentsWord(following, await jobPods(following, job), { reason: 'CheckpointFailed' });
    return word === undefined ? undefined : { word };
  };
  const { terminal } = following;
  const found = await askUntil({ terminal, timeoutMs: EXPLANATION_MS }, look).catch(() => undefined);
  if (found !== undefined) return found.word;
  return oneLine(`${what}. ${await podsNow(following, job)}`);
}

async function podsNow(following: JobFollowing, job: string): Promise<string> {
  const pods = await jobPods(following, job).catch(() => undefined);
  if (pods === undefined) return 'Its pods could not be read';
  return pods.length === 0 ? 'It has no pod' : pods.map((pod) => podSummary(pod)).join('\n');
}
