import type { PodSpec } from '../kube/objects.ts';
import { ShapingError } from './shaping-error.ts';

/** The profile that the chart puts onto nodes: io_uring answers ENOSYS, as CRIU cannot dump it. Relative to kubelet's directory of profiles. */
export const SECCOMP_PROFILE = 'profiles/block-iouring.json';

/** Runs the pod under a profile of the node. Throws ShapingError where the pod or a target container asks for another one. */
export function withSeccomp(spec: PodSpec, targets: readonly string[], profile: string): PodSpec {
  const wanted = { type: 'Localhost', localhostProfile: profile };
  const asked = [
    { who: 'the pod', found: spec.securityContext?.seccompProfile },
    ...spec.containers
      .filter(({ name }) => targets.includes(name))
      .map(({ name, securityContext }) => ({ who: `container ${name}`, found: securityContext?.seccompProfile })),
  ];
  for (const { who, found } of asked) {
    if (found === undefined || (found.type === 'Localhost' && found.localhostProfile === profile)) continue;
    const name = found.localhostProfile === undefined ? found.type : `${found.type} ${found.localhostProfile}`;
    throw new ShapingError(
      `${who} asks for seccomp profile ${name}; it must be Localhost ${profile}: remove it, it is added`,
    );
  }
  return { ...spec, securityContext: { ...spec.securityContext, seccompProfile: wanted } };
}
