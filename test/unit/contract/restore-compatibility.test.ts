import { describe, expect, it } from 'vitest';
import { type CompatibilityQuestion, restoreProblem } from '../../../contract/restore-compatibility.ts';
import { restorePod } from '../../../contract/restore-pod.ts';
import type { Container, PodSpec } from '../../../kube/objects.ts';
import { AGENT_MOUNT, mainOf, POD_MOUNT, PROFILE, podOf, TARGET } from './pods.ts';

const QUESTION: CompatibilityQuestion = { targets: ['main'], storage: POD_MOUNT, seccompProfile: PROFILE };
const FIT = restorePod(podOf(), { ...TARGET, storage: POD_MOUNT }).spec;

/** The pod that fits, with something changed. */
function changed(container: (one: Container) => Container, spec: (one: PodSpec) => PodSpec = (one) => one) {
  return { spec: spec({ ...FIT, containers: [container(mainOf(FIT))] }) };
}
const spec = (change: (one: PodSpec) => PodSpec) => changed((one) => one, change);
const without =
  (field: 'env' | 'volumeMounts', name: string) =>
  (container: Container): Container => ({
    ...container,
    [field]: (container[field] ?? []).filter((entry: { name: string }) => entry.name !== name),
  });
const dropVolume = (name: string) => (pod: PodSpec) => ({
  ...pod,
  volumes: (pod.volumes ?? []).filter((volume) => volume.name !== name),
});
const mounts = (name: string, over: object) => (container: Container) => ({
  ...container,
  volumeMounts: (container.volumeMounts ?? []).map((one) => (one.name === name ? { ...one, ...over } : one)),
});

const withoutProbe = (container: Container): Container => {
  const { startupProbe: _, ...rest } = container;
  return rest;
};

const cases: [string, { spec: PodSpec }, string][] = [
  ['no storage volume', spec(dropVolume('checkpoint-storage')), 'missing checkpoint-storage volume for PVC snapshots'],
  [
    'processes of others',
    spec((pod) => ({ ...pod, hostPID: true })),
    'the pod has hostPID: true; a container needs PIDs of its own, and the users of the node: remove it',
  ],
  [
    'no control volume',
    spec(dropVolume('snapshot-control')),
    'missing snapshot-control emptyDir volume; a pod that snapshotctl restore --manifest makes has it',
  ],
  [
    'no such container',
    spec((pod) => ({ ...pod, containers: [{ name: 'other' }] })),
    'restore target container "main" not found in pod spec (from nvidia.com/snapshot-target-containers annotation)',
  ],
  [
    'no storage mount',
    changed(without('volumeMounts', 'checkpoint-storage')),
    'missing checkpoint-storage mount at /checkpoints on container "main"',
  ],
  [
    'storage elsewhere',
    changed(mounts('checkpoint-storage', { mountPath: '/data' })),
    'missing checkpoint-storage mount at /checkpoints on container "main"',
  ],
  [
    'storage read-only',
    changed(mounts('checkpoint-storage', { readOnly: true })),
    'checkpoint-storage mount at /checkpoints on container "main" must be writable and without subPath',
  ],
  [
    'no control mount',
    changed(without('volumeMounts', 'snapshot-control')),
    'missing snapshot-control mount at /snapshot-control on container "main"',
  ],
  [
    'another part of it',
    changed(mounts('snapshot-control', { subPath: 'x' })),
    'expected SubPath "main" for snapshot-control at /snapshot-control on container "main", got "x"',
  ],
  [
    'all of it',
    changed(mounts('snapshot-control', { subPath: '' })),
    'expected SubPath "main" for snapshot-control at /snapshot-control on container "main", got ""',
  ],
  [
    'no control directory',
    changed(without('env', 'DYN_SNAPSHOT_CONTROL_DIR')),
    'missing DYN_SNAPSHOT_CONTROL_DIR env var on container "main"',
  ],
  [
    'another one',
    changed((one) => ({ ...one, env: [{ name: 'DYN_SNAPSHOT_CONTROL_DIR', value: '/x' }] })),
    'expected DYN_SNAPSHOT_CONTROL_DIR to be /snapshot-control on container "main", got "/x"',
  ],
  ['no startup probe', changed(withoutProbe), 'missing restore-complete startup probe on container "main"'],
  [
    'a container that works',
    changed((one) => ({ ...without('env', 'DYN_SNAPSHOT_RESTORE_STANDBY')(one), command: ['serve'] })),
    'container "main" does not wait to be restored: it has neither DYN_SNAPSHOT_RESTORE_STANDBY=1 nor snapshot-standby or "sleep infinity" as its command',
  ],
  ['no seccomp profile', spec((pod) => ({ ...pod, securityContext: {} })), 'missing localhost seccomp profile'],
  [
    'another kind',
    spec((pod) => ({ ...pod, securityContext: { seccompProfile: { type: 'RuntimeDefault' } } })),
    'missing localhost seccomp profile',
  ],
  [
    'another profile',
    spec((pod) => ({ ...pod, securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: 'x' } } })),
    `expected localhost seccomp profile "${PROFILE}"`,
  ],
];

describe('a pod that is there', () => {
  it('fits as restore shaping makes it', () => {
    expect(restoreProblem({ spec: FIT }, QUESTION)).toBeUndefined();
  });

  it.each(cases)('%s', (_, pod, problem) => {
    expect(restoreProblem(pod, QUESTION)).toBe(problem);
  });

  it('is told of its first problem: volumes, then containers, then the profile', () => {
    const nothing = { containers: [{ name: 'main' }] };
    const withVolumes = { ...nothing, volumes: FIT.volumes ?? [] };
    expect(restoreProblem({ spec: nothing }, QUESTION)).toMatch(/^missing checkpoint-storage volume/);
    expect(restoreProblem({ spec: withVolumes }, QUESTION)).toMatch(/^missing checkpoint-storage mount/);
    expect(restoreProblem({ spec: { ...FIT, securityContext: {}, containers: [] } }, QUESTION)).toMatch(
      /^restore target/,
    );
  });

  it.each([
    [['snapshot-standby'], undefined],
    [['/usr/local/bin/snapshot-standby'], undefined],
    [['sleep', 'infinity'], undefined],
    [['sleep'], ['infinity']],
  ])('waits by its command %j %j without being told to', (command, args) => {
    const bare = without('env', 'DYN_SNAPSHOT_RESTORE_STANDBY');
    const pod = changed((one) => ({ ...bare(one), command, ...(args === undefined ? {} : { args }) }));
    expect(restoreProblem(pod, QUESTION)).toBeUndefined();
  });

  it('needs no volume where the agent mounts it, and any profile where that is wished', () => {
    const bare = changed(without('volumeMounts', 'checkpoint-storage'), (pod) => ({
      ...dropVolume('checkpoint-storage')(pod),
      securityContext: {},
    }));
    expect(restoreProblem(bare, { ...QUESTION, storage: AGENT_MOUNT, seccompProfile: undefined })).toBeUndefined();
  });
});
