import { describe, expect, it } from 'vitest';
import { type DynamoCheckpoint, readDynamoCheckpoint } from '../../../contract/dynamo-checkpoint.ts';
import { withCondition } from '../../../operator/control/conditions.ts';
import { newStatusWriter } from '../../../operator/control/status-writer.ts';
import { serverError } from '../../fakes/kube-api/server.ts';
import { pathOf, useControl } from './stage.ts';

const { stage, cache, put, metric } = useControl();
const NEVER = new AbortController().signal;
const KEY = 'demo/a';

function writer(onWritten?: (base: DynamoCheckpoint['metadata'], answer: unknown) => void) {
  const { client, metrics } = stage;
  const more = onWritten === undefined ? {} : { onWritten };
  return newStatusWriter<DynamoCheckpoint>({
    ...{ client, metrics, pathOf, resource: 'dynamocheckpoints', read: readDynamoCheckpoint, ...more },
  });
}
function stored(): DynamoCheckpoint {
  const read = readDynamoCheckpoint(stage.api.get('dynamocheckpoints', KEY));
  if (read.result !== 'read') throw new Error(read.problem);
  return read.object;
}
/** A pure function of the object, as a controller's: creating, with a condition. */
const creating = ({ status }: DynamoCheckpoint): DynamoCheckpoint['status'] => {
  const word = { type: 'JobCreated', status: 'True', reason: 'JobCreated', message: 'the Job is made' } as const;
  return { ...status, phase: 'Creating', conditions: [...withCondition(status?.conditions, word, new Date())] };
};
const versions = () => {
  const seen: string[] = [];
  stage.api.onChange('dynamocheckpoints', ({ metadata }) => seen.push(metadata.resourceVersion));
  return seen;
};
const patches = () => stage.api.calls({ verb: 'patch', subresource: 'status' });
const foreign = (message: string) => stage.api.patch('dynamocheckpoints', KEY, { status: { message } });

describe('a status', () => {
  it('is written with one call that says only what differs, and not again', async () => {
    put('a');
    const first = await writer().write(stored(), creating, NEVER);
    expect(first).toMatchObject({ result: 'written', object: { status: { phase: 'Creating' } } });
    expect(patches()).toHaveLength(1);
    const again = await writer().write(stored(), creating, NEVER);
    expect(again.result).toBe('unchanged');
    await writer().write(stored(), ({ status }) => ({ ...status, message: 'half' }), NEVER);
    expect((patches()[1]?.body as { status?: object } | undefined)?.status).toEqual({ message: 'half' });
    expect(stage.api.calls({ verb: 'get' })).toEqual([]);
    expect(await metric('status_writes_total')).toBe(2);
  });

  it('is made anew from what somebody else wrote first, and keeps that', async () => {
    put('a');
    const old = stored();
    foreign('theirs');
    const { result } = await writer().write(old, creating, NEVER);
    expect(result).toBe('written');
    expect(stored().status).toMatchObject({ phase: 'Creating', message: 'theirs' });
    expect(patches().map(({ status }) => status)).toEqual([409, 200]);
    expect(await metric('status_conflicts_total')).toBe(1);
  });

  it('that somebody else wrote the same, is not written again', async () => {
    put('a');
    const old = stored();
    stage.api.patch('dynamocheckpoints', KEY, { status: creating(old) });
    const seen = versions();
    expect((await writer().write(old, creating, NEVER)).result).toBe('unchanged');
    expect(seen).toEqual([]);
  });

  it('in a storm of conflicts is given up after some tries, and the conflict is thrown', async () => {
    put('a');
    let count = 0;
    stage.api.onCall(({ verb }) => {
      if (verb !== 'patch') return;
      count += 1;
      foreign(`storm ${count}`);
    });
    await expect(writer().write(stored(), creating, NEVER)).rejects.toMatchObject({ status: 409 });
    expect(patches()).toHaveLength(5);
  });

  it('whose answer is lost is not written twice: the next try finds it', async () => {
    put('a');
    const old = stored();
    stage.api.fault({ verb: 'patch' }, { kind: 'reset', at: 'answer' }, { times: 1 });
    const seen = versions();
    await expect(writer().write(old, creating, NEVER)).rejects.toMatchObject({ reason: 'Reset' });
    expect(seen).toHaveLength(1);
    expect((await writer().write(old, creating, NEVER)).result).toBe('unchanged');
    expect(seen).toHaveLength(1);
  });

  it.each([
    ['is gone', () => stage.api.remove('dynamocheckpoints', KEY)],
    [
      'has another under its name',
      () => {
        stage.api.remove('dynamocheckpoints', KEY);
        put('a');
      },
    ],
  ])('of an object that %s, is nobody’s', async (_, replace) => {
    put('a');
    const old = stored();
    replace();
    const seen = versions();
    expect(await writer().write(old, creating, NEVER)).toEqual({ result: 'gone' });
    expect(seen).toEqual([]);
  });

  it('that cannot be written, or is refused, is an error', async () => {
    put('a');
    stage.api.fault({ verb: 'patch' }, serverError(503), { times: 1 });
    await expect(writer().write(stored(), creating, NEVER)).rejects.toMatchObject({ status: 503 });
    const bad = () => ({ phase: 'Done' }) as unknown as DynamoCheckpoint['status'];
    await expect(writer().write(stored(), bad, NEVER)).rejects.toMatchObject({ status: 422 });
    const stop = new AbortController();
    stop.abort(new Error('enough'));
    await expect(writer().write(stored(), creating, stop.signal)).rejects.toThrow('enough');
  });

  it('is known to the cache before the watch tells of it', async () => {
    put('a');
    const following = cache();
    await following.synced(NEVER);
    await writer((base, answer) => following.remember(base, answer)).write(stored(), creating, NEVER);
    expect(following.get(KEY)?.value).toMatchObject({ object: { status: { phase: 'Creating' } } });
  });
});
