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

const pointsOf = (mounts: readonly ImageMount[]) => new Set(mounts.map((mount) => mount.mountPoint));
const outside = (from: ReadonlySet<string>, within: ReadonlySet<string>) => [...from].filter((one) => !within.has(one));

function tableReasons(points: ReadonlySet<string>, target: AdmissionTarget): Reason[] {
  const recorded = new Set(target.recordedMountPoints);
  const offered = new Set(target.mountPoints);
  const differing = [...outside(points, recorded), ...outside(recorded, points)];
  const missing = outside(points, offered);
  const unexpected: Reason = {
    code: 'MOUNT_UNEXPECTED',
    message: `the mount table of the images is not the recorded one: ${list(differing)}`,
    found: list(points),
    wanted: list(recorded),
    advice: FOREIGN,
  };
  const lacking: Reason = {
    code: 'MOUNT_MISSING',
    message: `the target container lacks mounts: ${list(missing)}`,
    found: list(offered),
    wanted: list(points),
    advice: SAME_POD,
  };
  return [...(differing.length > 0 ? [unexpected] : []), ...(missing.length > 0 ? [lacking] : [])];
}

/** The mount table against the record and the placeholder; nothing but the expected is mounted by CRIU itself. */
export function mountReasons({ mounts }: Images, target: AdmissionTarget): Reason[] {
  const reasons = tableReasons(pointsOf(mounts), target);
  const own = mounts.filter((mount) => (mount.externalKey === undefined && !isNative(mount)) || mount.usesPlugin);
  if (own.length > 0) {
    reasons.push({
      code: 'MOUNT_NOT_EXTERNAL',
      message: 'the images ask CRIU to mount filesystems itself',
      found: list(own.map((mount) => `${mount.mountPoint} (${mount.fstype} of ${mount.source})`)),
      wanted: 'mounts of the target',
      advice: FOREIGN,
    });
  }
  const namespaces = new Set(mounts.map((mount) => String(mount.namespace)));
  if (namespaces.size > 1) {
    reasons.push({
      code: 'MOUNT_NAMESPACES',
      message: 'the images have several mount namespaces',
      found: list(namespaces),
      wanted: 'one',
      advice: 'Do not unshare mounts in the workload.',
    });
  }
  return reasons;
}
