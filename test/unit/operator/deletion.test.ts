import { describe, expect, it } from 'vitest';
import { readDynamoCheckpoint } from '../../../contract/dynamo-checkpoint.ts';
import { ANNOTATIONS } from '../../../contract/keys.ts';
import { cleanupJobName } from '../../../contract/operator-names.ts';
import { cleanupJob, readCleanupJob } from '../../../operator/deletion/cleanup-job.ts';
import { type Decision, decide, type Facts } from '../../../operator/deletion/decide.ts';
import { FINALIZER, policyOf, versionsOf } from '../../../operator/deletion/policy.ts';
import { CHECKPOINT } from '../crds/samples.ts';

const ID = '3bff874d069f0ed5';
const DELETE = { [ANNOTATIONS.deletionPolicy]: 'Delete' };
const AUTO = { [ANNOTATIONS.autoCheckpoint]: 'true' };
const VOLUME = { claim: 'data', basePath: '/checkpoints' };

function checkpoint(metadata: object, status: object = { checkpointID: ID, jobName: `checkpoint-job-${ID}-1` }) {
  const meta = { name: 'one', namespace: 'demo', uid: 'u1', resourceVersion: '1', ...metadata };
  const read = readDynamoCheckpoint({ ...CHECKPOINT, metadata: meta, status });
  if (read.result === 'malformed') throw new Error(read.problem);
  return read.object;
}

const leaving = (annotations: object = DELETE) => ({
  annotations,
  finalizers: ['other/one', FINALIZER],
  deletionTimestamp: '2026-01-01T00:00:00Z',
});
const NOTHING: Facts = { rivals: [], jobs: [] };
const cleanup = (state: 'none' | 'foreign' | 'stale' | 'active' | 'complete') =>
  ({ name: 'checkpoint-cleanup', uid: 'j1', state }) as const;
const unknown = { result: 'unknown', why: 'no agent' } as const;
const free: Facts = { ...NOTHING, isLeased: false };
const noAgent: Facts = { ...free, word: unknown };
const job = { name: 'j', isEnded: false, isDeleting: false };

describe('the policy', () => {
  it.each([
    [{}, 'Retain'],
    [AUTO, 'Delete'],
    [DELETE, 'Delete'],
    [{ ...AUTO, [ANNOTATIONS.deletionPolicy]: 'Retain' }, 'Retain'],
    [{ ...AUTO, [ANNOTATIONS.deletionPolicy]: 'delete' }, 'Retain'],
    [{ [ANNOTATIONS.autoCheckpoint]: 'yes' }, 'Retain'],
  ])('of %j is %s', (annotations, artifacts) => {
    expect(policyOf({ annotations }).artifacts).toBe(artifacts);
  });

  it('says what is wrong with an annotation that nobody understands', () => {
    expect(policyOf({ annotations: { [ANNOTATIONS.deletionPolicy]: 'delete' } }).problem).toContain(
      '"delete" is neither Delete nor Retain: artifacts are kept',
    );
  });

  it('knows every version, the present one last', () => {
    const noted = { [ANNOTATIONS.artifactVersions]: '1,2', [ANNOTATIONS.artifactVersion]: '1' };
    expect(versionsOf({ annotations: noted })).toEqual(['2', '1']);
    expect(versionsOf({})).toEqual(['1']);
  });

  it('knows no more than the last fifty, and nothing that is no version', () => {
    const many = Array.from({ length: 60_000 }, (_, index) => `v${index}`).join(',');
    const versions = versionsOf({ annotations: { [ANNOTATIONS.artifactVersions]: many } });
    expect([versions.length, versions.at(-2), versions.at(-1)]).toEqual([50, 'v59999', '1']);
    const wrong = { [ANNOTATIONS.artifactVersions]: '../x,tmp,2,', [ANNOTATIONS.artifactVersion]: 'a,b' };
    expect(versionsOf({ annotations: wrong })).toEqual(['2']);
    expect(versionsOf({ annotations: { ...wrong, [ANNOTATIONS.artifactVersions]: '2' } })).toEqual(['2']);
  });
});

describe('an object that stays', () => {
  it.each<[string, object, Decision]>([
    ['manual, without an annotation', {}, { do: 'rest' }],
    [
      'automatic',
      { annotations: AUTO },
      { do: 'amend', finalizers: [FINALIZER], annotations: { ...AUTO, [ANNOTATIONS.artifactVersions]: '1' } },
    ],
    [
      'held, with its version noted',
      { annotations: { ...DELETE, [ANNOTATIONS.artifactVersions]: '1' }, finalizers: [FINALIZER] },
      { do: 'rest' },
    ],
    [
      'held, and asked for a new version',
      {
        annotations: { ...DELETE, [ANNOTATIONS.artifactVersions]: '1', [ANNOTATIONS.artifactVersion]: '2' },
        finalizers: [FINALIZER],
      },
      {
        do: 'amend',
        finalizers: [FINALIZER],
        annotations: { ...DELETE, [ANNOTATIONS.artifactVersions]: '1,2', [ANNOTATIONS.artifactVersion]: '2' },
      },
    ],
    [
      'held, and now to be retained',
      { finalizers: ['a/b', FINALIZER] },
      { do: 'amend', finalizers: ['a/b'], annotations: {} },
    ],
  ])('%s', (_, metadata, decision) => {
    expect(decide(checkpoint(metadata), NOTHING)).toEqual(decision);
  });
});

describe('an object that is being deleted', () => {
  it.each<[string, Facts, Partial<Decision>]>([
    ['shares its id', { ...NOTHING, rivals: ['two'] }, { do: 'release', why: 'shared' }],
    ['has a Job at work', { ...NOTHING, jobs: [job] }, { do: 'delete-job', name: 'j' }],
    ['has a Job whose pods end', { ...NOTHING, jobs: [{ ...job, isDeleting: true }] }, { do: 'wait', for: 'job' }],
    ['has a Job that ended', { ...NOTHING, jobs: [{ ...job, isEnded: true }] }, { do: 'look', at: 'lease' }],
    ['may have an agent at work', NOTHING, { do: 'look', at: 'lease' }],
    ['has an agent at work', { ...NOTHING, isLeased: true }, { do: 'wait', for: 'agent' }],
    ['was not asked about', free, { do: 'look', at: 'word' }],
    ['has artifacts no more', { ...free, word: { result: 'gone', why: '' } }, { do: 'release', why: 'deleted' }],
    ['is read', { ...free, word: { result: 'in-use', why: 'read by x' } }, { do: 'wait', for: 'reader' }],
    ['is out of reach', noAgent, { do: 'look', at: 'cleanup' }],
    ['has no Job that cleans', { ...noAgent, cleanup: cleanup('none') }, { do: 'look', at: 'storage' }],
    [
      'has a claim',
      { ...noAgent, cleanup: cleanup('none'), storage: VOLUME },
      { do: 'make-cleanup-job', volume: VOLUME },
    ],
    [
      'has no claim any more',
      { ...noAgent, cleanup: cleanup('none'), storage: { gone: 'claim' } },
      { do: 'release', why: 'nothing' },
    ],
    [
      'has storage nobody knows',
      { ...noAgent, cleanup: cleanup('none'), storage: { problem: 'x' } },
      { do: 'wait', for: 'storage' },
    ],
    ['is being cleaned', { ...noAgent, cleanup: cleanup('active') }, { do: 'wait', for: 'cleanup' }],
    ['is clean', { ...noAgent, cleanup: cleanup('complete') }, { do: 'release', why: 'deleted' }],
    [
      'meets a Job of an earlier one',
      { ...noAgent, cleanup: cleanup('stale') },
      { do: 'remove-cleanup-job', failure: undefined },
    ],
    ['meets a foreign Job', { ...noAgent, cleanup: cleanup('foreign') }, { do: 'wait', for: 'foreign-job' }],
    [
      'could not be cleaned',
      { ...noAgent, cleanup: { name: 'c', uid: 'j', state: 'failed', why: 'DeadlineExceeded' } },
      { do: 'remove-cleanup-job', failure: 'Job c could not delete the artifacts: DeadlineExceeded' },
    ],
  ])('%s', (_, facts, decision) => {
    expect(decide(checkpoint(leaving()), facts)).toMatchObject(decision);
  });

  it.each<[string, object, object, Partial<Decision>]>([
    ['has no finalizer of ours', { ...leaving(), finalizers: ['a/b'] }, {}, { do: 'rest' }],
    ['was made to be retained', leaving({}), {}, { do: 'release', why: 'retained' }],
    ['has an id that is no id', leaving(), { checkpointID: '../x' }, { do: 'release', why: 'nothing' }],
    ['never had a Job', leaving(), {}, { do: 'release', why: 'nothing' }],
  ])('%s', (_, metadata, status, decision) => {
    expect(decide(checkpoint(metadata, status), NOTHING)).toMatchObject(decision);
  });
});

describe('the cleanup Job', () => {
  const about = { namespace: 'demo', uid: 'u1', checkpointId: ID };
  const made = cleanupJob(about, VOLUME, {
    cleanupImage: 'operator:1',
    cleanupUser: 65_532,
    cleanupImagePullSecrets: ['pull'],
  });
  const served = (more: object = {}, meta: object = {}) => ({
    ...made,
    metadata: { ...made.metadata, uid: 'j1', resourceVersion: '1', ...meta },
    ...more,
  });
  const condition = (type: string) => ({ status: { conditions: [{ type, status: 'True', reason: 'Why' }] } });

  it('has no owner, one attempt, an end, and a pod that no agent takes for a target', () => {
    expect(made.metadata).not.toHaveProperty('ownerReferences');
    expect(made).toMatchObject({
      metadata: { name: cleanupJobName(ID), namespace: 'demo' },
      spec: {
        backoffLimit: 0,
        activeDeadlineSeconds: 300,
        template: { metadata: {}, spec: { restartPolicy: 'Never' } },
      },
    });
    expect(JSON.stringify(made['spec'])).not.toContain('nvidia.com/snapshot-checkpoint-id');
  });

  it('has no right, no token, and nothing but the claim', () => {
    const { spec } = (made['spec'] as { template: { spec: Record<string, unknown> } }).template;
    expect(spec).toMatchObject({
      automountServiceAccountToken: false,
      imagePullSecrets: [{ name: 'pull' }],
      securityContext: { runAsUser: 65_532, runAsNonRoot: true },
      containers: [
        {
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
        },
      ],
      volumes: [{ persistentVolumeClaim: { claimName: 'data' } }],
    });
  });

  it.each([
    ['none', undefined],
    ['active', served()],
    ['complete', served(condition('Complete'))],
    ['failed', served(condition('Failed'))],
    ['active', served(condition('Failed'), { deletionTimestamp: '2026-01-01T00:00:00Z' })],
    ['stale', served(condition('Complete'), { annotations: { [ANNOTATIONS.cleanupFor]: 'u0' } })],
    ['active', served({}, { annotations: { [ANNOTATIONS.cleanupFor]: 'u0' } })],
    ['foreign', served({}, { annotations: {} })],
    ['foreign', {}],
  ])('is read as %s', (state, object) => {
    expect(readCleanupJob(object, about).state).toBe(state);
  });
});
