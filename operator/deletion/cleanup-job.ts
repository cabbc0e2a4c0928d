import { z } from 'zod';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import { objectMeta } from '../../contract/object-meta.ts';
import { cleanupJobName } from '../../contract/operator-names.ts';
import { STORAGE_VOLUME } from '../../contract/storage-volume.ts';
import { endOfJob, jobStatus } from '../control/job-status.ts';
import type { NewObject } from '../control/object-writer.ts';
import type { Volume } from './decide.ts';

/** The parts of `checkpoint` of the configuration that the Jobs need. */
export interface CleanupConfig {
  /** With `snapshot-cleanup` in it: the operator's own. */
  readonly cleanupImage: string;
  /** Names of Secrets in the Job's namespace. */
  readonly cleanupImagePullSecrets: readonly string[];
  readonly cleanupUser: number;
}

/** The Job that deletes the artifacts of a checkpoint, as it is now. */
export type CleanupJob = {
  readonly name: string;
  readonly uid: string;
} /** `stale`: it has worked for another object that had this id before. */ & (
  | { readonly state: 'none' | 'foreign' | 'stale' | 'active' | 'complete' }
  | { readonly state: 'failed'; readonly why: string }
);

const COMMAND = '/usr/local/bin/snapshot-cleanup';
/** As the original has them. */
const DEADLINE_SECONDS = 300;
const TTL_SECONDS = 300;
/** Nodes that have the volume may be kept for GPUs. */
const TOLERATIONS = ['nvidia.com/gpu', 'dedicated'].map((key) => ({ key, operator: 'Exists', effect: 'NoSchedule' }));
/** A mesh's proxy would neither end with the Job, nor is anything called. */
const NO_MESH = { 'linkerd.io/inject': 'disabled', 'sidecar.istio.io/inject': 'false' };

/**
 * The Job. It has no owner: with a deletion in the foreground everything that the object owns is deleted at once, this Job among it. Its pod
 * has no label with the id: it would be taken for one to restore into.
 */
export function cleanupJob(
  about: { readonly namespace: string; readonly uid: string; readonly checkpointId: string },
  volume: Volume,
  config: CleanupConfig,
): NewObject {
  const { namespace, uid, checkpointId } = about;
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: cleanupJobName(checkpointId),
      namespace,
      labels: { [LABELS.checkpointId]: checkpointId, 'app.kubernetes.io/component': 'checkpoint-cleanup' },
      annotations: { [ANNOTATIONS.cleanupFor]: uid },
    },
    spec: {
      ...{ backoffLimit: 0, activeDeadlineSeconds: DEADLINE_SECONDS, ttlSecondsAfterFinished: TTL_SECONDS },
      template: {
        metadata: { labels: { 'app.kubernetes.io/component': 'checkpoint-cleanup' }, annotations: NO_MESH },
        spec: cleanupPod({ namespace, checkpointId }, volume, config),
      },
    },
  };
}

function cleanupPod(
  { namespace, checkpointId }: { readonly namespace: string; readonly checkpointId: string },
  { claim, basePath }: Volume,
  { cleanupImage, cleanupImagePullSecrets, cleanupUser }: CleanupConfig,
) {
  return {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    imagePullSecrets: cleanupImagePullSecrets.map((name) => ({ name })),
    securityContext: {
      ...{ runAsUser: cleanupUser, runAsGroup: cleanupUser, runAsNonRoot: cleanupUser !== 0 },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    tolerations: TOLERATIONS,
    containers: [
      {
        name: 'cleanup',
        image: cleanupImage,
        command: [COMMAND],
        env: [
          { name: 'CHECKPOINT_BASE_PATH', value: basePath },
          { name: 'CHECKPOINT_ID', value: checkpointId },
          { name: 'CHECKPOINT_NAMESPACE', value: namespace },
        ],
        resources: { requests: { cpu: '50m', memory: '64Mi' }, limits: { memory: '256Mi' } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: [{ name: STORAGE_VOLUME, mountPath: basePath }],
      },
    ],
    volumes: [{ name: STORAGE_VOLUME, persistentVolumeClaim: { claimName: claim } }],
  };
}

const job = z.looseObject({
  metadata: objectMeta,
  status: jobStatus.nullish(),
});

/** How the Job of a checkpoint fares; `object` undefined: there is none. `uid`: of the DynamoCheckpoint. */
export function readCleanupJob(
  object: unknown,
  { checkpointId, uid }: { checkpointId: string; uid: string },
): CleanupJob {
  const name = cleanupJobName(checkpointId);
  if (object === undefined) return { name, uid: '', state: 'none' };
  const { data } = job.safeParse(object);
  if (data === undefined) return { name, uid: '', state: 'foreign' };
  const own = { name, uid: data.metadata.uid };
  const worksFor = data.metadata.annotations?.[ANNOTATIONS.cleanupFor];
  if (worksFor === undefined) return { ...own, state: 'foreign' };
  const ended = endOfJob(data.status);
  // One that is being deleted is waited for, so that the next one can have its name.
  if (ended === undefined || data.metadata.deletionTimestamp !== undefined) return { ...own, state: 'active' };
  if (worksFor !== uid) return { ...own, state: 'stale' };
  if (ended.type === 'Complete') return { ...own, state: 'complete' };
  return { ...own, state: 'failed', why: [ended.reason, ended.message].filter(Boolean).join(': ') };
}
