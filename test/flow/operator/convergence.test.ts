import { describe, expect, it } from 'vitest';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint, readDynamoCheckpoint } from '../../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../../contract/identity.ts';
import type { KubeClient } from '../../../kube/client.ts';
import { newEventWriter } from '../../../kube/events.ts';
import { withCondition } from '../../../operator/control/conditions.ts';
import { runController, sourceOf } from '../../../operator/control/controller.ts';
import { lead } from '../../../operator/control/leadership.ts';
import { ensureObject, isOwnedBy } from '../../../operator/control/object-writer.ts';
import { newRecorder } from '../../../operator/control/recorder.ts';
import { newStatusWriter } from '../../../operator/control/status-writer.ts';
import { serverError, tooManyRequests, WRITES } from '../../fakes/kube-api/server.ts';
import { eventually } from '../kube/server.ts';
import { pathOf, useControl } from './stage.ts';

/*
 * All of operator/control together, under a small controller of the kind that is written on it: each checkpoint gets its Job, then a status
 * that says so, and an Event. Whatever goes wrong, there is one Job, and the status is written once.
 */

const { stage, run, cache, put } = useControl();
const NAMES = ['a', 'b', 'c'];
const JOBS = { group: 'batch', version: 'v1', plural: 'jobs' };

function makeJob(client: KubeClient, { metadata, spec }: DynamoCheckpoint, name: string, signal: AbortSignal) {
  const { apiVersion, kind } = DYNAMO_CHECKPOINT;
  const ownerReferences = [{ apiVersion, kind, name: metadata.name, uid: metadata.uid }];
  const body = {
    ...{ apiVersion: 'batch/v1', kind: 'Job', metadata: { name, namespace: metadata.namespace, ownerReferences } },
    spec: { template: spec.job.podTemplateSpec },
  };
  return ensureObject(client, JOBS, { body, isOurs: isOwnedBy(metadata.uid), signal });
}

function control(signal: AbortSignal): Promise<void> {
  const { client, metrics, log } = stage;
  const following = cache();
  const onWritten: Parameters<typeof newStatusWriter<DynamoCheckpoint>>[0]['onWritten'] = (base, answer) =>
    following.remember(base, answer);
  const statuses = newStatusWriter<DynamoCheckpoint>({
    ...{ client, metrics, pathOf, resource: 'dynamocheckpoints', read: readDynamoCheckpoint, onWritten },
  });
  const events = newEventWriter({ client, source: { component: 'snapshot-operator' } });
  const recorder = newRecorder(events, DYNAMO_CHECKPOINT);
  run((until) => events.run(until));
  const reconcile = async (key: string, until: AbortSignal) => {
    const read = following.get(key)?.value;
    if (read?.result !== 'read') return undefined;
    const name = `checkpoint-job-${checkpointIdOf(read.object)}-${read.object.metadata.name}`;
    await makeJob(client, read.object, name, until);
    const word = { type: 'JobCreated', status: 'True', reason: 'JobCreated', message: name } as const;
    const { result } = await statuses.write(
      read.object,
      ({ status }) => ({
        ...{ ...status, phase: 'Creating', jobName: name },
        conditions: [...withCondition(status?.conditions, word, new Date())],
      }),
      until,
    );
    if (result === 'written') recorder.normal(read.object, 'JobCreated', `made Job ${name}`);
    return undefined;
  };
  return runController(
    {
      ...{ name: 'checkpoints', parallel: 2, sources: [sourceOf(following)], backoff: { minMs: 2, maxMs: 20 } },
      ...{ log: log.log, metrics, reconcile },
    },
    signal,
  );
}

const isDone = () =>
  stage.api.list('dynamocheckpoints').every(({ status }) => status?.['phase'] === 'Creating') &&
  stage.api.list('jobs').length === NAMES.length;

describe('a controller on all of it', () => {
  it.each<[string, () => unknown, (() => unknown)?]>([
    ['nothing goes wrong', () => undefined],
    [
      'answers are lost after the write was stored',
      () => stage.api.fault({ verb: WRITES }, { kind: 'reset', at: 'answer' }, { times: 4 }),
    ],
    ['requests are lost', () => stage.api.fault({ verb: WRITES }, { kind: 'reset', at: 'request' }, { times: 4 })],
    ['the server fails', () => stage.api.fault({ verb: WRITES }, serverError(500), { times: 5 })],
    ['the server is busy', () => stage.api.fault({ verb: WRITES }, tooManyRequests(0), { times: 5 })],
    ['the first list breaks off', () => stage.api.fault({ verb: 'list' }, { kind: 'reset', at: 'body' }, { times: 2 })],
    ['watches are refused', () => stage.api.fault({ verb: 'watch' }, serverError(503), { times: 3 })],
    ['the API is away at the start', () => stage.api.goAway(), () => stage.api.comeBack({ forbiddenCalls: 3 })],
  ])('comes to the same end when %s, and writes nothing twice', async (_, spoil, mend) => {
    const versions = new Map<string, number>();
    for (const name of NAMES) put(name);
    stage.api.onChange('dynamocheckpoints', ({ metadata: { name } }) =>
      versions.set(name, (versions.get(name) ?? 0) + 1),
    );
    await spoil();
    run(control);
    await mend?.();
    await eventually(() => expect(isDone()).toBe(true));
    expect(Object.fromEntries(versions)).toEqual({ a: 1, b: 1, c: 1 });
    // What is told of again leads to no write.
    stage.api.forgetCalls();
    stage.api.watches.reset();
    await eventually(() => expect(stage.api.calls({ verb: 'watch' }).length).toBeGreaterThan(0));
    put('a-late-one');
    await eventually(() =>
      expect(stage.api.get('dynamocheckpoints', 'demo/a-late-one')?.status?.['phase']).toBe('Creating'),
    );
    const others = stage.api.calls({
      verb: WRITES,
      resource: 'dynamocheckpoints',
      where: ({ name }) => name !== 'a-late-one',
    });
    expect(others).toEqual([]);
  });

  it('says each thing once beside its object, whoever leads', async () => {
    for (const name of NAMES) put(name);
    run(control);
    await eventually(() => expect(stage.api.list('events')).toHaveLength(NAMES.length));
    expect(
      stage.api.list('events').map((event) => [(event['involvedObject'] as { name: string }).name, event['reason']]),
    ).toEqual(NAMES.map((name) => [name, 'JobCreated']));
  });

  it.each([
    ['after the Job was stored', { verb: 'create', resource: 'jobs' }, 'answer'],
    ['before the status was stored', { verb: 'patch', subresource: 'status' }, 'request'],
    ['after the status was stored', { verb: 'patch', subresource: 'status' }, 'answer'],
  ] as const)('is gone on with by the next leader when the first is cut off %s', async (_, pattern, at) => {
    put('a');
    const versions: string[] = [];
    stage.api.onChange('dynamocheckpoints', ({ metadata }) => versions.push(metadata.resourceVersion));
    const { client, log, metrics } = stage;
    const process = (holder: string, signal: AbortSignal) => {
      const timings = { durationSeconds: 1, renewMs: 20, giveUpMs: 600, retryMs: 10 };
      const options = {
        client,
        place: { namespace: 'system', name: 'operator' },
        holder,
        log: log.log,
        metrics,
        timings,
      };
      return lead(options, control, signal);
    };
    const gate = stage.api.gate(pattern, at);
    const first = process('first', stage.stop.signal).catch((error: Error) => error.name);
    const held = await gate.next();
    run((signal) => process('second', signal));
    stage.api.patch('leases', 'system/operator', { spec: { holderIdentity: 'second' } });
    expect(await first).toBe('LeadershipLostError');
    held.drop();
    gate.open();
    await eventually(() => expect(stage.api.get('dynamocheckpoints', 'demo/a')?.status?.['phase']).toBe('Creating'));
    expect(versions).toHaveLength(1);
    expect(stage.api.list('jobs')).toHaveLength(1);
  });

  it('ends at once with its signal, in the middle of a call', async () => {
    put('a');
    const gate = stage.api.gate({ verb: 'create', resource: 'jobs' }, 'request');
    const stop = new AbortController();
    const controlling = control(stop.signal);
    await gate.next();
    stop.abort();
    await controlling;
    expect(stage.api.list('jobs')).toEqual([]);
  });
});
