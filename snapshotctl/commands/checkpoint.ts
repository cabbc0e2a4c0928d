import { Command, Option } from 'commander';
import { checkpointJob } from '../../contract/checkpoint-job.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { checkpointLocation, manualCheckpointId, podCheckpointJobName } from '../../contract/names.ts';
import { agreedTargets } from '../../contract/targets.ts';
import type { Job } from '../../kube/objects.ts';
import { type Cluster, type ClusterFlags, openCluster, requireObjectName, withClusterFlags } from '../cluster.ts';
import { CommandError } from '../failure.ts';
import { keyValueLines, type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import type { Terminal } from '../terminal.ts';
import { asCommandError } from '../workload/asking.ts';
import {
  newSeccompOption,
  newTimeoutOption,
  requireCheckpointId,
  requireNoArguments,
  requireTimeout,
  seccompProfileOf,
} from '../workload/flags.ts';
import { Progress } from '../workload/follower.ts';
import { createJob, deleteJob, followJob } from '../workload/job.ts';
import { type PodManifest, readPodManifest } from '../workload/manifest.ts';
import { findStorage, type StorageFlags, withStorageFlags } from '../workload/storage.ts';

interface CheckpointFlags extends ClusterFlags, StorageFlags, OutputFlags {
  readonly manifest?: string;
  readonly container?: string;
  readonly checkpointId?: string;
  readonly seccompProfile: string;
  readonly cudaCheckpointWrap?: boolean;
  readonly disableCudaCheckpointJobFile?: boolean;
  /** In milliseconds. */
  readonly timeout: number;
  readonly cleanup?: boolean;
}

/** `snapshotctl checkpoint`: runs the pod of a manifest once, in a Job, and waits until the agent has checkpointed it. */
export function checkpointCommand(terminal: Terminal): Command {
  const command = new Command('checkpoint')
    .description('Start the pod of a manifest in a Job, checkpoint one of its containers, and wait for that')
    .usage('[options]')
    .argument('[words...]')
    .addOption(new Option('--manifest <file>', 'the pod, as YAML or JSON; required'))
    .addOption(new Option('--container <name>', `which container; default: annotation ${ANNOTATIONS.targetContainers}`))
    .addOption(
      new Option('--checkpoint-id <id>', 'what the checkpoint is called; default: a new one, which is printed'),
    );
  return withOutputFlag(withStorageFlags(withClusterFlags(command)), 'lines of key=value, or for programs')
    .addOption(newSeccompOption())
    .addOption(new Option('--cuda-checkpoint-wrap', 'start the container by cuda-checkpoint --launch-job'))
    .addOption(new Option('--disable-cuda-checkpoint-job-file', 'accepted for old scripts; does nothing'))
    .addOption(newTimeoutOption('how long to wait'))
    .addOption(new Option('--cleanup', 'delete the Job at the end, however it ended'))
    .action(async (words: readonly string[], flags: CheckpointFlags) => {
      requireNoArguments(words);
      await checkpoint(flags, terminal).catch((error: unknown) => {
        throw asCommandError(error);
      });
    });
}

async function checkpoint(flags: CheckpointFlags, terminal: Terminal): Promise<void> {
  if (flags.manifest === undefined) throw new CommandError('usage', '--manifest is required');
  requireTimeout(flags.timeout);
  requireObjectName('--pvc-name', flags.pvcName);
  const checkpointId = flags.checkpointId ?? manualCheckpointId(BigInt(Date.now()) * 1_000_000n);
  requireCheckpointId(checkpointId);
  if (flags.disableCudaCheckpointJobFile === true)
    terminal.err.write(
      '--disable-cuda-checkpoint-job-file does nothing: only --cuda-checkpoint-wrap wraps the command\n',
    );
  const manifest = await readPodManifest(flags.manifest);
  const cluster = await openCluster(flags, terminal);
  try {
    await checkpointIn(cluster, { flags, manifest, checkpointId, terminal });
  } finally {
    cluster.kube.close();
  }
}

interface CheckpointWork {
  readonly flags: CheckpointFlags;
  readonly manifest: PodManifest;
  readonly checkpointId: string;
  readonly terminal: Terminal;
}

async function checkpointIn(
  cluster: Cluster,
  { flags, manifest, checkpointId, terminal }: CheckpointWork,
): Promise<void> {
  const { kube } = cluster;
  const namespace = flags.namespace ?? manifest.metadata.namespace ?? cluster.namespace;
  const [target = ''] = agreedTargets({
    flag: flags.container,
    flagName: '--container',
    annotation: manifest.metadata.annotations?.[ANNOTATIONS.targetContainers],
    limit: 1,
  });
  const storage = await findStorage({ kube, namespace }, flags);
  const version = DEFAULT_ARTIFACT_VERSION;
  const wanted = checkpointJob(manifest, {
    ...{ name: podCheckpointJobName(manifest.metadata.name), namespace, checkpointId, version, target, storage },
    seccompProfile: seccompProfileOf(flags.seccompProfile),
    wrapLaunchJob: flags.cudaCheckpointWrap === true,
  });
  const name = wanted.metadata?.name ?? '';
  const say = (text: string) => terminal.err.write(text);
  try {
    const job = await createJob(kube, namespace, wanted, terminal.signal);
    await wait(cluster, { job, namespace, flags, terminal });
    const value = {
      status: 'completed',
      namespace,
      name: manifest.metadata.name,
      checkpoint_job: name,
      checkpoint_id: checkpointId,
      checkpoint_location: checkpointLocation(storage.basePath, checkpointId, version),
    };
    writeResult(terminal, flags, { value, text: () => keyValueLines(value) });
    if (flags.cleanup === true) await cleanUp(cluster, job, say);
  } catch (error) {
    if (terminal.signal.aborted) say(howToGoOn(namespace, name));
    throw error;
  }
}

interface Waiting {
  readonly job: Job;
  readonly namespace: string;
  readonly flags: CheckpointFlags;
  readonly terminal: Terminal;
}

/** Waits for the end. Whatever goes wrong, the Job is left for a look unless somebody wants it away. */
async function wait(cluster: Cluster, { job, namespace, flags, terminal }: Waiting): Promise<void> {
  const { kube } = cluster;
  const { signal } = terminal;
  const name = job.metadata?.name ?? '';
  const progress = new Progress(terminal);
  const say = (text: string) => terminal.err.write(text);
  progress.say(`job ${namespace}/${name} is created; waiting for its checkpoint`);
  try {
    await followJob({ kube, namespace, signal, terminal, progress, timeoutMs: flags.timeout }, job);
  } catch (error) {
    if (signal.aborted) throw error;
    if (flags.cleanup === true) await cleanUp(cluster, job, say);
    else if (error instanceof CommandError && error.exit === 'timeout') say(howToGoOn(namespace, name));
    else say(`job ${namespace}/${name} is left for a look; delete it before the next try (or pass --cleanup)\n`);
    throw error;
  }
}

/** What keeps the Job from being deleted is said, and changes nothing about how the checkpoint went. */
async function cleanUp({ kube }: Cluster, job: Job, say: (text: string) => void): Promise<void> {
  await deleteJob(kube, job).catch((error: Error) =>
    say(`job ${job.metadata?.namespace}/${job.metadata?.name} is not deleted: ${error.message}\n`),
  );
}

/** For whoever interrupts it; a Job whose creation was not answered yet may be there as well. */
function howToGoOn(namespace: string, name: string): string {
  return [
    `job ${namespace}/${name} goes on. To see how far it is, or to end it:`,
    `  kubectl -n ${namespace} get job ${name} -o jsonpath='{.metadata.annotations}'`,
    `  kubectl -n ${namespace} delete job ${name}`,
    '',
  ].join('\n');
}
