import type { Reason } from '../../errors.ts';
import { type AdmissionTarget, FOREIGN, type Images, list, SAME_POD } from './admission-subject.ts';
import type { ImageMount } from './mounts.ts';

/** Filesystems that CRIU mounts itself for a container, below these paths; everything else must come from the placeholder. */
function isNative(mount: ImageMount): boolean {
  const at = (base: string) => mount.mountPoint === base || mount.mountPoint.startsWith(`${base}/`);
  if (mount.mountPoint === '/') return true;
  if (at('/proc')) return ['proc', 'tmpfs', 'devtmpfs'].includes(mount.fstype);
  return mount.mountPoint === '/dev/shm' && mount.fstype === 'tmpfs';
}

/** The mount table against the record and the placeholder; nothing but the expected is mounted by CRIU itself. */
export function mountReasons({ mounts }: Images, target: AdmissionTarget): Reason[] {
  const reasons: Reason[] = [];
  const points = new Set(mounts.map((mount) => mount.mountPoint));
  const recorded = new Set(target.recordedMountPoints);
  const offered = new Set(target.mountPoints);
  const outside = (from: ReadonlySet<string>, within: ReadonlySet<string>) =>
    [...from].filter((point) => !within.has(point));
  const mismatch = (code: string, message: string, found: string, wanted: string, advice: string) =>
    reasons.push({ code, message, found, wanted, advice });
  const unrecorded = [...outside(points, recorded), ...outside(recorded, points)];
  if (unrecorded.length > 0) {
    const message = `the mount table of the images is not the recorded one: ${list(unrecorded)}`;
    mismatch('MOUNT_UNEXPECTED', message, list(points), list(recorded), FOREIGN);
  }
  const missing = outside(points, offered);
  if (missing.length > 0) {
    const message = `the target container lacks mounts: ${list(missing)}`;
    mismatch('MOUNT_MISSING', message, list(offered), list(points), SAME_POD);
  }
  const own = mounts.filter((mount) => (mount.externalKey === undefined && !isNative(mount)) || mount.usesPlugin);
  if (own.length > 0) {
    const found = list(own.map((mount) => `${mount.mountPoint} (${mount.fstype} of ${mount.source})`));
    mismatch(
      'MOUNT_NOT_EXTERNAL',
      'the images ask CRIU to mount filesystems itself',
      found,
      'mounts of the target',
      FOREIGN,
    );
  }
  if (new Set(mounts.map((mount) => mount.namespace)).size > 1) {
    const found = list(mounts.map((mount) => String(mount.namespace)));
    mismatch(
      'MOUNT_NAMESPACES',
      'the images have several mount namespaces',
      found,
      'one',
      'Do not unshare mounts in the workload.',
    );
  }
  return reasons;
}
