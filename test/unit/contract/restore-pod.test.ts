import { describe, expect, it } from 'vitest';
import type { PodTemplate } from '../../../contract/checkpoint-job.ts';
import { targetMarksPatch } from '../../../contract/pod-metadata.ts';
import { type RestorePodRequest, restorePod } from '../../../contract/restore-pod.ts';
import type { Container } from '../../../kube/objects.ts';
import {
  CONTROL_ENV,
  CONTROL_MOUNT,
  CONTROL_VOLUME,
  mainOf,
  POD_MOUNT,
  PROFILE,
  podOf,
  STANDBY,
  STORAGE_MOUNT,
  STORAGE_VOLUME,
  TARGET,
} from './pods.ts';

const shape = (container: Partial<Container> = {}, over: Partial<RestorePodRequest> = {}) =>
  restorePod(podOf(container), { ...TARGET, ...over });
const main = (container: Partial<Container> = {}, over: Partial<RestorePodRequest> = {}) =>
  mainOf(shape(container, over).spec);

describe('a restore pod', () => {
  it('is the whole of this', () => {
    const container = {
      command: ['serve'],
      args: ['--fast'],
      resources: { limits: { 'nvidia.com/gpu': '1' } },
      readinessProbe: { httpGet: { path: '/health', port: 8000 }, initialDelaySeconds: 60, successThreshold: 3 },
    };
    expect(shape(container)).toEqual({
      metadata: {
        name: 'worker',
        labels: { 'nvidia.com/snapshot-is-restore-target': 'true', 'nvidia.com/snapshot-checkpoint-id': 'ckpt' },
        annotations: {
          'nvidia.com/snapshot-target-containers': 'main',
          'nvidia.com/snapshot-artifact-version': '1',
        },
      },
      spec: {
        securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: PROFILE } },
        volumes: [CONTROL_VOLUME],
        containers: [
          {
            name: 'main',
            image: 'worker:1',
            command: ['/usr/local/bin/snapshot-standby'],
            resources: { limits: { 'nvidia.com/gpu': '1' } },
            env: [CONTROL_ENV, STANDBY],
            volumeMounts: [CONTROL_MOUNT],
            readinessProbe: container.readinessProbe,
            startupProbe: {
              httpGet: { path: '/health', port: 8000 },
              initialDelaySeconds: 0,
              periodSeconds: 1,
              successThreshold: 1,
              failureThreshold: 86_400,
            },
          },
        ],
      },
    });
  });

  it('brings the volume, and says where its artifact is, where only pods mount it', () => {
    const shaped = shape({}, { storage: POD_MOUNT });
    expect(shaped.metadata.annotations).toMatchObject({
      'nvidia.com/snapshot-storage-type': 'pvc',
      'nvidia.com/snapshot-storage-base-path': '/checkpoints',
    });
    expect(shaped.spec.volumes).toEqual([CONTROL_VOLUME, STORAGE_VOLUME]);
    expect(mainOf(shaped.spec).volumeMounts).toEqual([CONTROL_MOUNT, STORAGE_MOUNT]);
  });

  it.each([
    ['standby', ['/usr/local/bin/snapshot-standby'], undefined],
    ['sleep', ['sleep', 'infinity'], undefined],
    ['entrypoint', ['serve'], ['--fast']],
  ] as const)('waits as %s', (placeholder, command, args) => {
    const shaped = main({ command: ['serve'], args: ['--fast'] }, { placeholder });
    expect([shaped.command, shaped.args, shaped.env]).toEqual([command, args, [CONTROL_ENV, STANDBY]]);
  });

  it('loses a postStart hook, which is for a worker that starts, where a placeholder waits instead', () => {
    const hook = { exec: { command: ['/warm-up'] } };
    const lifecycle = { postStart: hook, preStop: hook };
    const shaped = (changes: object, placeholder: 'standby' | 'sleep' | 'entrypoint') =>
      (main(changes, { placeholder }) as { readonly lifecycle?: object }).lifecycle;
    expect(shaped({ lifecycle }, 'standby')).toEqual({ preStop: hook });
    expect(shaped({ lifecycle: { postStart: hook } }, 'sleep')).toBeUndefined();
    expect(shaped({ lifecycle }, 'entrypoint')).toEqual(lifecycle);
  });

  it('has an own directory, and its own probe, for each of several targets', () => {
    const pod = podOf({ livenessProbe: { tcpSocket: { port: 1 } } });
    const other = { name: 'other', image: 'worker:2' };
    const spec = { ...pod.spec, containers: [...pod.spec.containers, other, { ...other, name: 'plain' }] };
    const template: PodTemplate = { ...pod, spec };
    const shaped = restorePod(template, { ...TARGET, targets: ['main', 'other'] });
    expect(shaped.spec.containers.map(({ volumeMounts = [] }) => volumeMounts.map(({ subPath }) => subPath))).toEqual([
      ['main'],
      ['other'],
      [],
    ]);
    expect(shaped.spec.containers.map(({ startupProbe }) => Object.keys(startupProbe ?? {})[0])).toEqual([
      'tcpSocket',
      'exec',
      undefined,
    ]);
    expect(shaped.metadata.annotations?.['nvidia.com/snapshot-target-containers']).toBe('main,other');
  });
});

describe('its startup probe', () => {
  const probe = (path: string) => ({ httpGet: { path, port: 80 }, timeoutSeconds: 7, periodSeconds: 30 });

  it('is the startup probe, else the liveness, else the readiness probe of the worker', () => {
    const all = { startupProbe: probe('/s'), livenessProbe: probe('/l'), readinessProbe: probe('/r') };
    const { startupProbe: _, ...withoutStartup } = all;
    const { livenessProbe: __, ...onlyReadiness } = withoutStartup;
    const paths = [all, withoutStartup, onlyReadiness].map((each) => main(each).startupProbe?.httpGet?.path);
    expect(paths).toEqual(['/s', '/l', '/r']);
    expect(main(all)).toMatchObject({ livenessProbe: all.livenessProbe, readinessProbe: all.readinessProbe });
    expect(main(all).startupProbe).toMatchObject({ timeoutSeconds: 7, periodSeconds: 1 });
  });

  it('is patient for as long as a restore may take, or longer where the worker is', () => {
    expect(main({}, { startupSeconds: 60 }).startupProbe?.failureThreshold).toBe(60);
    const patient = { startupProbe: { ...probe('/s'), failureThreshold: 100_000 } };
    expect(main(patient).startupProbe?.failureThreshold).toBe(100_000);
  });

  it('asks a shell where the worker has none', () => {
    expect(main().startupProbe?.exec?.command?.slice(0, 2)).toEqual(['sh', '-c']);
  });
});

describe('what stands in the way is named', () => {
  const long = 'c'.repeat(34);
  it.each<[string, () => unknown, string]>([
    [
      'a target that is not there',
      () => shape({}, { targets: ['main', 'gone'] }),
      'target container "gone" is not in the pod, which has: main',
    ],
    [
      'processes of others',
      () => restorePod(podOf({}, { shareProcessNamespace: true }), TARGET),
      'the pod has shareProcessNamespace: true; a container needs PIDs of its own',
    ],
    [
      'a name too long to be reported on',
      () => shape({ name: long }, { targets: [long] }),
      `container ${long} cannot be restored into: annotation nvidia.com/snapshot-restore-container-id.${long} is no legal key: 64 characters after the slash, at most 63 are allowed. Give it a shorter name`,
    ],
    [
      'a switched off standby',
      () => shape({ env: [{ ...STANDBY, value: '0' }] }),
      'container main sets DYN_SNAPSHOT_RESTORE_STANDBY to "0"; it must be 1: remove it, it is added',
    ],
    [
      'no claim where the pod must bring one',
      () => shape({}, { storage: { ...POD_MOUNT, claim: undefined } }),
      'in podMount mode the pod must bring the volume of /checkpoints: name its claim',
    ],
    ['an id that is none', () => shape({}, { checkpointId: '' }), 'checkpoint id "" is empty'],
  ])('%s', (_, work, message) => {
    expect(work).toThrow(message);
  });
});

describe('the patch of a pod that is there', () => {
  it('takes away by null what is stale, and nothing else', () => {
    const labels = {
      app: 'worker',
      'nvidia.com/snapshot-is-checkpoint-source': 'true',
      'nvidia.com/snapshot-checkpoint-id': 'old',
      'batch.kubernetes.io/job-name': 'its-job',
    };
    const annotations = {
      note: 'mine',
      'nvidia.com/snapshot-checkpoint-status': 'completed',
      'nvidia.com/snapshot-restore-status.main': 'failed',
      'nvidia.com/snapshot-restore-container-id.main': 'abc',
      'nvidia.com/snapshot-restore-status': 'failed',
    };
    expect(targetMarksPatch({ labels, annotations }, { checkpointId: 'new', version: '2' }, ['main'])).toEqual({
      labels: {
        'nvidia.com/snapshot-is-checkpoint-source': null,
        'nvidia.com/snapshot-is-restore-target': 'true',
        'nvidia.com/snapshot-checkpoint-id': 'new',
      },
      annotations: {
        'nvidia.com/snapshot-checkpoint-status': null,
        'nvidia.com/snapshot-restore-status.main': null,
        'nvidia.com/snapshot-restore-container-id.main': null,
        'nvidia.com/snapshot-restore-status': null,
        'nvidia.com/snapshot-target-containers': 'main',
        'nvidia.com/snapshot-artifact-version': '2',
      },
    });
  });
});
