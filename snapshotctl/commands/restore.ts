import { Command, Option } from 'commander';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { checkpointLocation } from '../../contract/names.ts';
import type { Placeholder } from '../../contract/restore-pod.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
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
import { type PodManifest, readPodManifest } from '../workload/manifest.ts';
import { followRestore } from '../workload/restoring.ts';
import { findStorage, type StorageFlags, withStorageFlags } from '../workload/storage.ts';
import { createTarget, markTarget, type Requested, type TargetRequest } from '../workload/target-pod.ts';

interface RestoreFlags extends ClusterFlags, StorageFlags, OutputFlags {
  readonly manifest?: string;
  readonly pod?: string;
  readonly containers?: string;
  readonly checkpointId?: string;
  readonly seccompProfile: string;
  readonly placeholder: Placeholder;
  readonly wait?: boolean;
  /** In milliseconds. */
  readonly timeout: number;
}

const PLACEHOLDERS: readonly Placeholder[] = ['standby', 'sleep', 'entrypoint'];

/** `snapshotctl restore`: makes a pod of a manifest that is restored into, or asks for that in a pod that is there. */
export function restoreCommand(terminal: Terminal): Command {
  const command = new Command('restore')
    .description('Restore a checkpoint into a new pod of a manifest, or into a pod that is there')
    .usage('[options]')
    .argument('[words...]')
    .addOption(new Option('--manifest <file>', 'the pod, as YAML or JSON, that is created to be restored into'))
    .addOption(new Option('--pod <name>', 'a pod that waits already'))
    .addOption(new Option('--checkpoint-id <id>', 'what to restore; required'))
    .addOption(new Option('--containers <names>', `into which; default: annotation ${ANNOTATIONS.targetContainers}`));
  return withOutputFlag(withStorageFlags(withClusterFlags(command)), 'lines of key=value, or for programs')
    .addOption(newSeccompOption())
    .addOption(
      new Option('--placeholder <kind>', 'what containers run while they wait (with --manifest)')
        .choices(PLACEHOLDERS)
        .default('standby'),
    )
    .addOption(new Option('--wait', 'until it is restored, or has failed'))
    .addOption(newTimeoutOption('how long to wait (with --wait)'))
    .action(async (words: readonly string[], flags: RestoreFlags) => {
      requireNoArguments(words);
      await restore(flags, terminal).catch((error: unknown) => {
        throw asCommandError(error);
      });
    });
}

async function restore(flags: RestoreFlags, terminal: Terminal): Promise<void> {
  if ((flags.manifest === undefined) === (flags.pod === undefined))
    throw new CommandError('usage', 'must specify exactly one of --manifest or --pod');
  if (flags.checkpointId === undefined) throw new CommandError('usage', 'missing required flags: --checkpoint-id');
  requireCheckpointId(flags.checkpointId);
  requireTimeout(flags.timeout);
  requireObjectName('--pod', flags.pod);
  requireObjectName('--pvc-name', flags.pvcName);
  const manifest = flags.manifest === undefined ? undefined : await readPodManifest(flags.manifest);
  const cluster = await openCluster(flags, terminal);
  try {
    await restoreIn(cluster, { flags, manifest, checkpointId: flags.checkpointId, terminal });
  } finally {
    cluster.kube.close();
  }
}

interface RestoreWork {
  readonly flags: RestoreFlags;
  readonly manifest: PodManifest | undefined;
  readonly checkpointId: string;
  readonly terminal: Terminal;
}

async function restoreIn(cluster: Cluster, { flags, manifest, checkpointId, terminal }: RestoreWork): Promise<void> {
  const { kube } = cluster;
  const namespace = flags.namespace ?? manifest?.metadata.namespace ?? cluster.namespace;
  const storage = await findStorage({ kube, namespace }, flags);
  const request: TargetRequest = {
    ...{ kube, namespace, terminal, checkpointId, version: DEFAULT_ARTIFACT_VERSION, storage },
    containers: flags.containers,
    seccompProfile: seccompProfileOf(flags.seccompProfile),
  };
  const requested =
    manifest === undefined
      ? await markTarget(request, flags.pod ?? '')
      : await createTarget(request, manifest, flags.placeholder);
  if (flags.wait === true) await wait(request, requested, flags.timeout);
  const { metadata } = requested.pod;
  const name = manifest?.metadata.name ?? metadata?.name ?? '';
  const value = result({ namespace, name, checkpointId, storage, isOver: flags.wait === true });
  writeResult(terminal, flags, { value, text: () => keyValueLines(value) });
}

async function wait(request: TargetRequest, { pod, targets, earlier }: Requested, timeoutMs: number): Promise<void> {
  const { kube, namespace, terminal } = request;
  const { signal } = terminal;
  const name = pod.metadata?.name ?? '';
  const progress = new Progress(terminal);
  progress.say(`pod ${namespace}/${name} is asked for; waiting for its restore`);
  try {
    await followRestore({ kube, namespace, signal, terminal, progress, timeoutMs, targets, earlier }, pod);
  } catch (error) {
    if (signal.aborted) {
      terminal.err.write(`pod ${namespace}/${name} goes on. To see how far it is:\n`);
      terminal.err.write(`  kubectl -n ${namespace} describe pod ${name}\n`);
    }
    throw error;
  }
}

interface Outcome {
  readonly namespace: string;
  readonly name: string;
  readonly checkpointId: string;
  readonly storage: StorageSource;
  readonly isOver: boolean;
}

function result({ namespace, name, checkpointId, storage, isOver }: Outcome): Record<string, string> {
  return {
    status: isOver ? 'completed' : 'requested',
    namespace,
    name,
    restore_pod: name,
    checkpoint_id: checkpointId,
    checkpoint_location: checkpointLocation(storage.basePath, checkpointId, DEFAULT_ARTIFACT_VERSION),
  };
}
