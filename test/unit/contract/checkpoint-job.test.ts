import { describe, expect, it } from 'vitest';
import { type CheckpointJobRequest, checkpointJob, type PodTemplate } from '../../../contract/checkpoint-job.ts';
import { ShapingError } from '../../../contract/shaping-error.ts';
import type { Container, PodSpec } from '../../../kube/objects.ts';
import {
  CONTROL_ENV,
  CONTROL_MOUNT,
  CONTROL_VOLUME,
  mainOf,
  POD_MOUNT,
  PROFILE,
  podOf,
  SOURCE,
  STANDBY,
  STORAGE_MOUNT,
  STORAGE_VOLUME,
} from './pods.ts';

const jobOf = (pod: PodTemplate, over: Partial<CheckpointJobRequest> = {}) =>
  checkpointJob(pod, { ...SOURCE, ...over });
const templateOf = (pod: PodTemplate, over: Partial<CheckpointJobRequest> = {}) => {
  const { template } = jobOf(pod, over).spec ?? expect.fail('no spec');
  return { metadata: template.metadata ?? {}, spec: template.spec ?? expect.fail('no pod') };
};

describe('the Job of a checkpoint', () => {
  it('is the whole of this', () => {
    const probe = { httpGet: { path: '/health', port: 8000 } };
    const pod = podOf({ command: ['serve'], livenessProbe: probe, startupProbe: probe, readinessProbe: probe });
    expect(jobOf(pod, { namespace: 'demo', activeDeadlineSeconds: 3600, ttlSecondsAfterFinished: 300 })).toEqual({
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: {
        name: 'worker-checkpoint',
        namespace: 'demo',
        labels: { 'nvidia.com/snapshot-checkpoint-id': 'ckpt' },
      },
      spec: {
        backoffLimit: 0,
        activeDeadlineSeconds: 3600,
        ttlSecondsAfterFinished: 300,
        template: {
          metadata: {
            labels: {
              'nvidia.com/snapshot-is-checkpoint-source': 'true',
              'nvidia.com/snapshot-checkpoint-id': 'ckpt',
            },
            annotations: {
              'nvidia.com/snapshot-target-containers': 'main',
              'nvidia.com/snapshot-artifact-version': '1',
              'linkerd.io/inject': 'disabled',
              'sidecar.istio.io/inject': 'false',
            },
          },
          spec: {
            restartPolicy: 'Never',
            securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: PROFILE } },
            volumes: [CONTROL_VOLUME],
            containers: [
              {
                name: 'main',
                image: 'worker:1',
                command: ['serve'],
                env: [CONTROL_ENV],
                volumeMounts: [CONTROL_MOUNT],
                readinessProbe: {
                  exec: { command: ['cat', '/snapshot-control/ready-for-snapshot'] },
                  periodSeconds: 1,
                },
              },
            ],
          },
        },
      },
    });
  });

  it('has no deadline unless one is asked for', () => {
    expect(Object.keys(jobOf(podOf()).spec ?? {}).sort()).toEqual(['backoffLimit', 'template']);
  });

  it('brings the volume and says so where only pods mount it', () => {
    const { metadata, spec } = templateOf(podOf(), { storage: POD_MOUNT });
    expect(spec.volumes).toEqual([CONTROL_VOLUME, STORAGE_VOLUME]);
    expect(mainOf(spec).volumeMounts).toEqual([CONTROL_MOUNT, STORAGE_MOUNT]);
    expect(metadata.annotations).toMatchObject({
      'nvidia.com/snapshot-storage-type': 'pvc',
      'nvidia.com/snapshot-storage-base-path': '/checkpoints',
    });
  });

  it('takes a volume of the pod that is the claim already', () => {
    const own = { ...STORAGE_VOLUME, name: 'models' };
    const mount = { name: 'models', mountPath: '/checkpoints/' };
    const { spec } = templateOf(podOf({ volumeMounts: [mount] }, { volumes: [own] }), { storage: POD_MOUNT });
    expect(spec.volumes).toEqual([own, CONTROL_VOLUME]);
    expect(mainOf(spec).volumeMounts).toEqual([mount, CONTROL_MOUNT]);
  });

  it('keeps meshes away, be they asked for by annotation or label', () => {
    const key = 'sidecar.istio.io/inject';
    const metadata = { labels: { [key]: 'true' }, annotations: { [key]: 'true', 'linkerd.io/inject': 'enabled' } };
    const shaped = templateOf({ ...podOf(), metadata }).metadata;
    expect(shaped.labels?.[key]).toBe('false');
    expect(shaped.annotations).toMatchObject({ [key]: 'false', 'linkerd.io/inject': 'disabled' });
  });

  it('forgets what the pod was before, and the Job that it came from', () => {
    const stale = {
      labels: {
        app: 'worker',
        'nvidia.com/snapshot-is-restore-target': 'true',
        'nvidia.com/snapshot-checkpoint-id': 'old',
        'batch.kubernetes.io/job-name': 'old',
        'controller-uid': 'old',
      },
      annotations: {
        note: 'mine',
        'nvidia.com/snapshot-artifact-version': '7',
        'nvidia.com/snapshot-restore-status.main': 'completed',
        'nvidia.com/snapshot-restore-status': 'completed',
      },
    };
    const { labels = {}, annotations = {} } = templateOf({ ...podOf(), metadata: stale }).metadata;
    expect(Object.keys(labels).sort()).toEqual([
      'app',
      'nvidia.com/snapshot-checkpoint-id',
      'nvidia.com/snapshot-is-checkpoint-source',
    ]);
    expect(labels['nvidia.com/snapshot-checkpoint-id']).toBe('ckpt');
    expect(annotations).toMatchObject({ note: 'mine', 'nvidia.com/snapshot-artifact-version': '1' });
    expect(Object.keys(annotations).filter((key) => key.includes('restore-status'))).toEqual([]);
  });

  it('touches no container but the target', () => {
    const sidecar = { name: 'sidecar', image: 'log:1', livenessProbe: { exec: { command: ['true'] } } };
    const pod = podOf();
    const spec = { ...pod.spec, containers: [...pod.spec.containers, sidecar], initContainers: [sidecar] };
    const shaped = templateOf({ ...pod, spec }, { storage: POD_MOUNT }).spec;
    expect([shaped.containers[1], shaped.initContainers]).toEqual([sidecar, [sidecar]]);
  });

  it('runs under no other profile than the pod asks for where that is wished', () => {
    const securityContext = { seccompProfile: { type: 'RuntimeDefault' }, fsGroup: 7 };
    expect(templateOf(podOf({}, { securityContext }), { seccompProfile: undefined }).spec.securityContext).toEqual(
      securityContext,
    );
    expect(templateOf(podOf({}, { securityContext: { fsGroup: 7 } })).spec.securityContext).toMatchObject({
      fsGroup: 7,
    });
  });
});

describe('cuda-checkpoint --launch-job', () => {
  const wrap = { wrapLaunchJob: true };

  it('starts the command of the container', () => {
    const { spec } = templateOf(podOf({ command: ['python3', '-u'], args: ['serve.py'] }), wrap);
    expect(mainOf(spec)).toMatchObject({
      command: ['cuda-checkpoint'],
      args: ['--launch-job', 'python3', '-u', 'serve.py'],
    });
    expect(mainOf(templateOf({ spec }, wrap).spec)).toEqual(mainOf(spec));
  });

  it('needs one', () => {
    expect(() => jobOf(podOf({ args: ['serve.py'] }), wrap)).toThrow(
      new ShapingError('checkpoint job requires container.command when cuda-checkpoint launch-job wrapping is enabled'),
    );
  });

  it('is left out unless it is asked for', () => {
    expect(mainOf(templateOf(podOf({ command: ['serve'] })).spec).command).toEqual(['serve']);
  });
});

const volumes = [STORAGE_VOLUME];
const refused: [what: string, Partial<Container>, Partial<PodSpec>, message: string][] = [
  [
    'another kind of control volume',
    {},
    { volumes: [{ name: 'snapshot-control', hostPath: { path: '/x' } }] },
    'volume snapshot-control is no emptyDir; the name is kept for sentinels: call yours otherwise',
  ],
  [
    'another volume in its place',
    { volumeMounts: [{ name: 'data', mountPath: '/snapshot-control/' }] },
    {},
    'container main mounts volume data at /snapshot-control/; it must be volume snapshot-control at /snapshot-control with subPath main: remove the mount, it is added',
  ],
  ...['/snapshot-control/.', '//snapshot-control', '/x/../snapshot-control//'].map(
    (mountPath): [string, Partial<Container>, Partial<PodSpec>, string] => [
      `another volume in its place, written as ${mountPath}`,
      { volumeMounts: [{ name: 'data', mountPath }] },
      {},
      `container main mounts volume data at ${mountPath}; it must be volume snapshot-control at /snapshot-control`,
    ],
  ),
  [
    'it in another place',
    { volumeMounts: [{ ...CONTROL_MOUNT, mountPath: '/control' }] },
    {},
    'container main mounts volume snapshot-control at /control with subPath main; it must be',
  ],
  [
    'another part of it',
    { volumeMounts: [{ ...CONTROL_MOUNT, subPath: 'other' }] },
    {},
    'container main mounts volume snapshot-control at /snapshot-control with subPath other; it must be',
  ],
  [
    'it read-only',
    { volumeMounts: [{ ...CONTROL_MOUNT, readOnly: true }] },
    {},
    'at /snapshot-control with subPath main, read-only; it must be',
  ],
  [
    'another control directory',
    { env: [{ ...CONTROL_ENV, value: '/control' }] },
    {},
    'container main sets DYN_SNAPSHOT_CONTROL_DIR to "/control"; it must be /snapshot-control: remove it, it is added',
  ],
  [
    'one from elsewhere',
    { env: [{ name: CONTROL_ENV.name, valueFrom: {} }] },
    {},
    'container main sets DYN_SNAPSHOT_CONTROL_DIR to what a source says; it must be /snapshot-control',
  ],
  [
    'a worker that waits',
    { env: [STANDBY] },
    {},
    'container main sets DYN_SNAPSHOT_RESTORE_STANDBY, which makes it wait to be restored: a source must work. Remove it',
  ],
  [
    'another profile of the pod',
    {},
    { securityContext: { seccompProfile: { type: 'RuntimeDefault' } } },
    `the pod asks for seccomp profile RuntimeDefault; it must be Localhost ${PROFILE}: remove it, it is added`,
  ],
  [
    'another profile of the container',
    { securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: 'x.json' } } },
    {},
    `container main asks for seccomp profile Localhost x.json; it must be Localhost ${PROFILE}`,
  ],
  [
    'several volumes of the claim',
    {},
    { volumes: [STORAGE_VOLUME, { ...STORAGE_VOLUME, name: 'more' }] },
    'several volumes for claim snapshots: checkpoint-storage, more; keep one',
  ],
  [
    'the kept name for something else',
    {},
    { volumes: [{ name: 'checkpoint-storage', emptyDir: {} }] },
    'volume checkpoint-storage is not claim snapshots; the name is kept for it: call yours otherwise',
  ],
  [
    'a claim that is read-only',
    {},
    { volumes: [{ name: 'models', persistentVolumeClaim: { claimName: 'snapshots', readOnly: true } }] },
    'volume models has claim snapshots read-only; artifacts are written to it',
  ],
  [
    'a mount that is read-only',
    { volumeMounts: [{ ...STORAGE_MOUNT, readOnly: true }] },
    { volumes },
    'volume checkpoint-storage is read-only at /checkpoints in container main; artifacts are written to it',
  ],
  [
    'a part of the claim',
    { volumeMounts: [{ ...STORAGE_MOUNT, subPath: 'mine' }] },
    { volumes },
    'only mine of volume checkpoint-storage is at /checkpoints in container main; mount it without subPath and subPathExpr',
  ],
  [
    'a part by expression',
    { volumeMounts: [{ ...STORAGE_MOUNT, subPathExpr: '$(POD)' }] },
    { volumes },
    'only $(POD) of volume checkpoint-storage is at /checkpoints in container main',
  ],
  [
    'another volume at the base path',
    { volumeMounts: [{ name: 'data', mountPath: '/checkpoints' }] },
    { volumes },
    'volume data is at /checkpoints in container main, where the artifacts belong: mount it elsewhere',
  ],
];

describe('what stands in the way is named', () => {
  it.each(refused)('%s', (_, container, spec, message) => {
    expect(() => jobOf(podOf(container, spec), { storage: POD_MOUNT })).toThrow(message);
  });

  const pod = podOf();
  it.each<[string, PodTemplate, Partial<CheckpointJobRequest>, string]>([
    [
      'a container that is not there',
      pod,
      { target: 'other' },
      'target container "other" is not in the pod, which has: main',
    ],
    [
      'processes of others',
      podOf({}, { shareProcessNamespace: true, hostPID: true, hostUsers: false }),
      {},
      'the pod has shareProcessNamespace: true and hostPID: true and hostUsers: false; a container needs PIDs of its own',
    ],
    [
      'an id that is none',
      pod,
      { checkpointId: 'a/b' },
      'checkpoint id "a/b" has characters other than A-Z a-z 0-9 . _ -',
    ],
    ['a version that is none', pod, { version: 'tmp' }, 'artifact version "tmp" is the reserved name "tmp"'],
    [
      'a name that is none',
      pod,
      { name: 'A' },
      '"A" cannot be the name of a Job: it has characters other than a-z 0-9 - .',
    ],
    [
      'no claim where the pod must bring one',
      pod,
      { storage: { ...POD_MOUNT, claim: undefined } },
      'in podMount mode the pod must bring the volume of /checkpoints: name its claim',
    ],
    [
      'a base path that is none',
      pod,
      { storage: { ...POD_MOUNT, basePath: '/a/../b' } },
      'base path /a/../b is not clean',
    ],
    [
      'the root as base path',
      pod,
      { storage: { ...POD_MOUNT, basePath: '/' } },
      'base path / is the root of the container',
    ],
    ['a relative base path', pod, { storage: { ...POD_MOUNT, basePath: 'a' } }, 'base path a is not absolute'],
    [
      'another base path by annotation',
      { ...pod, metadata: { annotations: { 'nvidia.com/snapshot-storage-base-path': '/other' } } },
      {},
      'annotation nvidia.com/snapshot-storage-base-path "/other" is not the base path /checkpoints: remove it, or pass it as the base path',
    ],
  ])('%s', (_, template, over, message) => {
    expect(() => jobOf(template, over)).toThrow(message);
  });
});
