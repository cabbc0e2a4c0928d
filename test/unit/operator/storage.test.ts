import { describe, expect, it } from 'vitest';
import { type ClaimConfig, claimProblem } from '../../../operator/storage/claim.ts';

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
