import { describe, expect, it } from 'vitest';
import { DYNAMO_CHECKPOINT, readDynamoCheckpoint } from '../../../contract/dynamo-checkpoint.ts';
import { resourcePath } from '../../../kube/paths.ts';
import { amendObject, ensureObject, isOwnedBy } from '../../../operator/control/object-writer.ts';
import { serverError, WRITES } from '../../fakes/kube-api/server.ts';
import { useControl } from './stage.ts';

const { stage, put } = useControl();
const NEVER = new AbortController().signal;
const JOBS = { group: 'batch', version: 'v1', plural: 'jobs' };
const owner = (uid: string) => ({
  apiVersion: DYNAMO_CHECKPOINT.apiVersion,
  kind: DYNAMO_CHECKPOINT.kind,
  name: 'a',
  uid,
});
const job = (uid: string) => ({
  ...{ apiVersion: 'batch/v1', kind: 'Job' },
  metadata: { name: 'train', namespace: 'demo', ownerReferences: [owner(uid)] },
  spec: { template: { spec: { containers: [{ name: 'main' }] } } },
});
const ensure = (uid = 'u') =>
  ensureObject(stage.client, JOBS, { body: job(uid), isOurs: isOwnedBy(uid), signal: NEVER });

describe('an object that is wanted', () => {
  it('is made, and found the next time', async () => {
    expect(await ensure()).toMatchObject({
      result: 'made',
      object: { metadata: { name: 'train', uid: expect.any(String) as string } },
    });
    expect(await ensure()).toMatchObject({ result: 'found', object: { metadata: { generation: 1 } } });
    expect(stage.api.list('jobs')).toHaveLength(1);
  });

  it('whose answer was lost is found by the next try', async () => {
    stage.api.fault({ verb: 'create' }, { kind: 'reset', at: 'answer' }, { times: 1 });
    await expect(ensure()).rejects.toMatchObject({ reason: 'Reset' });
    expect((await ensure()).result).toBe('found');
  });

  it('is left alone where somebody else has its name', async () => {
    stage.api.put({ kind: 'Job', metadata: { name: 'train', namespace: 'demo' }, spec: {} });
    expect(await ensure()).toMatchObject({ result: 'foreign', problem: 'Job demo/train is there, and is not ours' });
    stage.api.remove('jobs', 'demo/train');
    await ensure('one');
    expect((await ensure('another')).result).toBe('foreign');
  });

  it('that goes between the two looks is made once more', async () => {
    stage.api.put(job('u'));
    let gets = 0;
    stage.api.onCall(({ verb }) => {
      if (verb !== 'get') return;
      gets += 1;
      stage.api.remove('jobs', 'demo/train');
    });
    expect((await ensure()).result).toBe('made');
    expect(gets).toBe(1);
  });

  it('that cannot be made is an error', async () => {
    stage.api.fault({ verb: 'create' }, serverError(500), { times: 1 });
    await expect(ensure()).rejects.toMatchObject({ status: 500 });
  });
});

describe('an amendment', () => {
  const path = resourcePath(DYNAMO_CHECKPOINT, 'demo', 'a');
  const stored = () => {
    const read = readDynamoCheckpoint(stage.api.get('dynamocheckpoints', 'demo/a'));
    if (read.result !== 'read') throw new Error(read.problem);
    return read.object;
  };
  const amend = (amendment: Parameters<typeof amendObject>[2]['amendment'], object = stored()) =>
    amendObject(stage.client, path, { object, amendment, signal: NEVER });

  it('sends what differs, and nothing where nothing does', async () => {
    put('a', { keep: 'me', change: 'me', drop: 'me' });
    await amend({ metadata: { labels: { keep: 'me', change: 'd' }, finalizers: ['a.b/c'] } });
    expect(stored().metadata).toMatchObject({ labels: { keep: 'me', change: 'd' }, finalizers: ['a.b/c'] });
    expect(stage.api.calls({ verb: 'patch' })[0]?.body).toMatchObject({
      metadata: { labels: { change: 'd', drop: null }, finalizers: ['a.b/c'] },
    });
    stage.api.forgetCalls();
    expect(
      await amend({ metadata: { labels: stored().metadata.labels ?? {}, finalizers: ['a.b/c'] } }),
    ).toBeUndefined();
    expect(stage.api.calls({ verb: WRITES })).toEqual([]);
  });

  it('takes the last finalizer away, and changes a part of the spec', async () => {
    put('a');
    await amend({ metadata: { finalizers: ['a.b/c'] } });
    const { spec } = stored();
    await amend({ metadata: { finalizers: [] }, spec: { ...spec, job: { ...spec.job, activeDeadlineSeconds: 60 } } });
    expect(stored().metadata.finalizers).toBeUndefined();
    expect(await amend({ metadata: { finalizers: [], labels: {} } })).toBeUndefined();
    expect(stored().spec.job).toEqual({ ...spec.job, activeDeadlineSeconds: 60 });
  });

  it('from an old version is a conflict, and changes nothing', async () => {
    put('a');
    const old = stored();
    put('a', { by: 'others' });
    await expect(amend({ metadata: { labels: { by: 'us' } } }, old)).rejects.toMatchObject({ status: 409 });
    expect(stored().metadata.labels).toEqual({ by: 'others' });
  });
});
