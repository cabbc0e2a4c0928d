import type { Container, PodSpec, VolumeMount } from '../kube/objects.ts';
import { samePath, withEnv } from './container-parts.ts';
import { CONTROL_DIR_ENV, DEFAULT_CONTROL_DIR } from './keys.ts';
import { ShapingError } from './shaping-error.ts';

/** The volume of a pod in which each target container has a directory for its sentinels. */
export const CONTROL_VOLUME = 'snapshot-control';

/** Gives the pod the control volume, and each target container its own directory of it. Throws ShapingError. */
export function withControlVolume(spec: PodSpec, targets: readonly string[]): PodSpec {
  const { volumes = [] } = spec;
  const present = volumes.find(({ name }) => name === CONTROL_VOLUME);
  if (present !== undefined && present.emptyDir === undefined)
    throw new ShapingError(
      `volume ${CONTROL_VOLUME} is no emptyDir; the name is kept for sentinels: call yours otherwise`,
    );
  return {
    ...spec,
    volumes: present === undefined ? [...volumes, { name: CONTROL_VOLUME, emptyDir: {} }] : volumes,
    containers: spec.containers.map((one) => (targets.includes(one.name) ? withControl(one) : one)),
  };
}

function withControl(container: Container): Container {
  const { name, volumeMounts = [] } = container;
  const wanted: VolumeMount = { name: CONTROL_VOLUME, mountPath: DEFAULT_CONTROL_DIR, subPath: name };
  const present = volumeMounts.filter((mount) => mount.name === CONTROL_VOLUME || isControlPath(mount));
  const wrong = present.find((mount) => !isControlMount(mount, name));
  if (wrong !== undefined)
    throw new ShapingError(
      `container ${name} mounts ${described(wrong)}; it must be volume ${CONTROL_VOLUME} at ${DEFAULT_CONTROL_DIR} with subPath ${name}: remove the mount, it is added`,
    );
  const mounted = present.length > 0 ? container : { ...container, volumeMounts: [...volumeMounts, wanted] };
  return withEnv(mounted, CONTROL_DIR_ENV, DEFAULT_CONTROL_DIR);
}

const isControlPath = ({ mountPath }: VolumeMount) => samePath(mountPath, DEFAULT_CONTROL_DIR);

/** Whether this mount is a container's own directory of the control volume, and can be written to. */
function isControlMount(mount: VolumeMount, container: string): boolean {
  const isPlain = mount.readOnly !== true && mount.subPathExpr === undefined;
  return mount.name === CONTROL_VOLUME && isControlPath(mount) && mount.subPath === container && isPlain;
}

function described({ name, mountPath, subPath, readOnly }: VolumeMount): string {
  const part = subPath === undefined ? '' : ` with subPath ${subPath}`;
  return `volume ${name} at ${mountPath}${part}${readOnly === true ? ', read-only' : ''}`;
}
