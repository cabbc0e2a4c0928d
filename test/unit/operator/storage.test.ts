import { describe, expect, it } from 'vitest';
import type { DaemonSet } from '../../../kube/objects.ts';
import { type ClaimConfig, claimProblem } from '../../../operator/storage/claim.ts';
import { knownStorage } from '../../../operator/storage/known.ts';

const CLAIM: ClaimConfig = { pvcName: 'snapshot-pvc', basePath: '/checkpoints', create: true, size: '1Ti' };

describe('the claim of the configuration', () => {
  it.each<[Partial<ClaimConfig>]>([
    [{}],
    [{ size: '0.5Gi' }],
    [{ size: '100' }],
    [{ accessMode: 'ReadWriteOnce' }],
    [{ accessMode: '' }],
    [{ create: false, size: undefined }],
  ])('is good with %j', (more) => {
    expect(claimProblem({ ...CLAIM, ...more })).toBeUndefined();
  });

  it.each<[Partial<ClaimConfig>, string]>([
    [{ pvcName: '' }, 'are both required once either is set'],
    [{ basePath: '' }, 'are both required once either is set'],
    [{ basePath: 'checkpoints' }, 'checkpoint.storage.pvc.basePath checkpoints is not absolute'],
    [{ basePath: '/a/../b', create: false }, 'checkpoint.storage.pvc.basePath /a/../b is not clean'],
    [{ size: undefined }, 'checkpoint.storage.pvc.size "" is no size above 0'],
    [{ size: '0' }, 'checkpoint.storage.pvc.size "0" is no size above 0'],
    [{ size: '-1Gi' }, 'is no size above 0'],
    [{ size: 'much' }, 'is no size above 0'],
    [{ accessMode: 'ReadOnlyMany' }, 'is not one of ReadWriteMany, ReadWriteOnce'],
  ])('is no good with %j', (more, problem) => {
    expect(claimProblem({ ...CLAIM, ...more })).toContain(problem);
  });
});

describe('what is known of storage without asking', () => {
  const setOf = (value: object) => ({
    indexed: (_: string, namespace: string) =>
      namespace === 'demo'
        ? [{ key: 'demo/a', meta: { name: 'a', namespace, uid: 'u', resourceVersion: '1' }, value: value as DaemonSet }]
        : [],
  });
  const mounting = {
    metadata: { name: 'snapshot-agent' },
    spec: {
      template: {
        spec: {
          containers: [{ name: 'agent', volumeMounts: [{ name: 'checkpoints', mountPath: '/checkpoints' }] }],
          volumes: [{ name: 'checkpoints', persistentVolumeClaim: { claimName: 'snapshot-pvc' } }],
        },
      },
    },
  };

  it('is the claim of the configuration (podMount)', () => {
    expect(knownStorage({ pvc: { ...CLAIM, basePath: '/checkpoints/' } }, setOf({}), 'demo')).toEqual({
      source: { accessMode: 'podMount', claim: 'snapshot-pvc', basePath: '/checkpoints' },
    });
    expect(knownStorage({ pvc: { ...CLAIM, pvcName: '' } }, setOf({}), 'demo')).toHaveProperty('problem');
  });

  it("is the claim of the namespace's agents (agentMount)", () => {
    expect(knownStorage({}, setOf(mounting), 'demo')).toEqual({
      source: { accessMode: 'agentMount', claim: 'snapshot-pvc', basePath: '/checkpoints' },
    });
    expect(knownStorage({}, setOf(mounting), 'other')).toEqual({
      problem: 'no snapshot-agent daemonset found in namespace other',
    });
    expect(knownStorage({}, setOf({ spec: 7 }), 'demo')).toHaveProperty('problem');
  });
});
