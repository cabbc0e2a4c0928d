import type { CheckpointJobRequest, PodTemplate } from '../../../contract/checkpoint-job.ts';
import type { RestorePodRequest } from '../../../contract/restore-pod.ts';
import type { StorageSource } from '../../../contract/storage-volume.ts';
import type { Container, PodSpec } from '../../../kube/objects.ts';

export const AGENT_MOUNT: StorageSource = { accessMode: 'agentMount', basePath: '/checkpoints', claim: 'snapshots' };
export const POD_MOUNT: StorageSource = { ...AGENT_MOUNT, accessMode: 'podMount' };
export const PROFILE = 'profiles/block-iouring.json';

export const SOURCE: CheckpointJobRequest = {
  name: 'worker-checkpoint',
  checkpointId: 'ckpt',
  version: '1',
  target: 'main',
  storage: AGENT_MOUNT,
  seccompProfile: PROFILE,
};

export const TARGET: RestorePodRequest = {
  checkpointId: 'ckpt',
  version: '1',
  targets: ['main'],
  storage: AGENT_MOUNT,
  seccompProfile: PROFILE,
};

export const CONTROL_MOUNT = { name: 'snapshot-control', mountPath: '/snapshot-control', subPath: 'main' };
export const CONTROL_ENV = { name: 'DYN_SNAPSHOT_CONTROL_DIR', value: '/snapshot-control' };
export const STANDBY = { name: 'DYN_SNAPSHOT_RESTORE_STANDBY', value: '1' };
export const CONTROL_VOLUME = { name: 'snapshot-control', emptyDir: {} };
export const STORAGE_VOLUME = { name: 'checkpoint-storage', persistentVolumeClaim: { claimName: 'snapshots' } };
export const STORAGE_MOUNT = { name: 'checkpoint-storage', mountPath: '/checkpoints' };

/** A pod of one container `main`, with these parts of the container and of the pod. */
export function podOf(
  container: Partial<Container> = {},
  spec: Partial<PodSpec> = {},
): PodTemplate & { metadata: object } {
  return {
    metadata: { name: 'worker' },
    spec: { containers: [{ name: 'main', image: 'worker:1', ...container }], ...spec },
  };
}

/** The container `main` of a pod. */
export function mainOf({ containers }: PodSpec): Container {
  const container = containers.find(({ name }) => name === 'main');
  if (container === undefined) throw new Error('the pod has no container main');
  return container;
}
