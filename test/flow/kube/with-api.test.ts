import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { newEventWriter } from '../../../kube/events.ts';
import { openLeases } from '../../../kube/lease.ts';
import { reflect } from '../../../kube/reflector.ts';
import { type KubeApi, startKubeApi } from '../../fakes/kube-api/server.ts';
import { eventually } from './server.ts';

let api: KubeApi;
let dir: string;
let client: KubeClient;
let stop: AbortController;
let running: Promise<unknown>;
beforeEach(async () => {
  api = await startKubeApi();
  dir = await mkdtemp(join(tmpdir(), 'kube-'));
  client = await openKube({ kubeconfigPath: await api.writeKubeconfig(dir) });
  stop = new AbortController();
  running = Promise.resolve();
});
afterEach(async () => {
  stop.abort();
  await running;
  client.close();
  await api.close();
  await rm(dir, { recursive: true });
});

/** The names of the pods of node-1 that carry the label `app`, as the reflector tells of them. */
function followPods(timings: { readonly pageSize: number } = { pageSize: 3 }) {
  const names = new Set<string>();
  const losses: string[] = [];
  running = reflect<string>(
    {
      client,
      path: '/api/v1/pods',
      labelSelector: 'app',
      fieldSelector: 'spec.nodeName=node-1',
      project: (object) => (object as { metadata: { name: string } }).metadata.name,
      onSync: (all) => {
        names.clear();
        for (const name of all) names.add(name);
      },
      onEvent: (type, name) => void (type === 'DELETED' ? names.delete(name) : names.add(name)),
      onState: (state) => state.kind === 'lost' && losses.push(state.reason),
      timings: { backoff: { minMs: 2, maxMs: 20 }, ...timings },
    },
    stop.signal,
  );
  return { names, losses };
}
function putPod(name: string, labels: Record<string, string> = { app: 'web' }, nodeName = 'node-1') {
  api.put({ kind: 'Pod', metadata: { name, labels }, spec: { nodeName, containers: [{ name: 'main' }] } });
}

describe('against a server that answers as recorded', () => {
  it('the reflector follows the pods of a node, in and out of the selectors', async () => {
    for (let index = 0; index < 8; index += 1) putPod(`pod-${index}`);
    putPod('elsewhere', { app: 'web' }, 'node-2');
    putPod('other', {});
    const { names, losses } = followPods();
    await eventually(() => expect(names.size).toBe(8));
    await eventually(() => expect(api.watches.count()).toBe(1));
    api.patch('pods', 'default/other', { metadata: { labels: { app: 'web' } } });
    await eventually(() => expect(names.has('other')).toBe(true));
    api.patch('pods', 'default/other', { metadata: { labels: { app: null } } });
    await eventually(() => expect(names.has('other')).toBe(false));
    api.remove('pods', 'default/pod-0');
    await eventually(() => expect([...names].sort()[0]).toBe('pod-1'));
    expect(losses).toEqual([]);
    expect(api.calls({ verb: 'list' })).toHaveLength(3);
  });

  it('the reflector knows all pods, though somebody filled their annotations with what takes JSON six bytes each', async () => {
    // More than is read at once: 36 MiB.
    const metadata = { labels: { app: 'web' }, annotations: { filler: '\u0001'.repeat(255 << 10) } };
    const spec = { nodeName: 'node-1', containers: [{ name: 'main' }] };
    for (let index = 0; index < 24; index += 1)
      api.put({ kind: 'Pod', metadata: { ...metadata, name: `pod-${index}` }, spec });
    const { names, losses } = followPods({ pageSize: 500 });
    await eventually(() => expect(names.size).toBe(24));
    expect(losses).toEqual(['too-large']);
  });

  it('the reflector finds what happened while the server was away, and forgot', async () => {
    putPod('a');
    const { names, losses } = followPods();
    await eventually(() => expect(api.watches.count()).toBe(1));
    await api.goAway();
    putPod('b');
    api.remove('pods', 'default/a');
    api.compact();
    await eventually(() => expect(losses).toContain('unreachable'));
    await api.comeBack({ forbiddenCalls: 2 });
    await eventually(() => expect([...names]).toEqual(['b']));
    expect(losses.slice(-3)).toEqual(['forbidden', 'forbidden', 'gone']);
  });

  it('the reflector is told of an event whole that a broken connection cut in two', async () => {
    const { names, losses } = followPods();
    await eventually(() => expect(api.watches.count()).toBe(1));
    api.watches.tearNextEvent();
    putPod('a');
    await eventually(() => expect([...names]).toEqual(['a']));
    expect(losses).toEqual(['reset']);
    expect(api.calls({ verb: 'list' })).toHaveLength(1);
  });

  it('a lease is made, renewed, stolen, and deleted, with the rights of the four verbs', async () => {
    const rule = {
      apiGroups: ['coordination.k8s.io'],
      resources: ['leases'],
      verbs: ['get', 'create', 'update', 'delete'],
    };
    api.setRoles([{ rules: [rule] }]);
    const timings = { durationSeconds: 1, renewMs: 20 };
    const place = { namespace: 'default', name: 'job-1' };
    const owner = { apiVersion: 'batch/v1', kind: 'Job', name: 'job-1', uid: 'j' };
    const [a, b] = ['a', 'b'].map((holder) => openLeases({ client, holder, timings }));
    const held = await a?.acquire({ ...place, owner }, stop.signal);
    if (held?.result !== 'held') throw new Error('nobody else wants it');
    await eventually(() => expect(api.calls({ verb: 'update' }).length).toBeGreaterThan(2));
    expect(await b?.acquire(place, stop.signal)).toMatchObject({ result: 'busy', holder: 'a' });
    expect(api.get('leases', 'default/job-1')?.metadata['ownerReferences']).toEqual([owner]);
    api.patch('leases', 'default/job-1', { spec: { holderIdentity: 'thief' } });
    await eventually(() => expect(held.lease.lost.aborted).toBe(true));

    api.remove('leases', 'default/job-1');
    const next = await b?.acquire(place, stop.signal);
    if (next?.result !== 'held') throw new Error('it was free');
    await next.lease.release();
    expect(api.get('leases', 'default/job-1')).toBeUndefined();
    expect(api.calls().filter(({ status }) => status === 403)).toEqual([]);
  });

  it('an Event is written with the right to create alone, once, though the answer was lost', async () => {
    api.setRoles([{ rules: [{ apiGroups: [''], resources: ['events'], verbs: ['create'] }] }]);
    api.fault({ resource: 'events' }, { kind: 'reset', at: 'answer' }, { times: 1 });
    const lost: unknown[] = [];
    const limits = { backoff: { minMs: 2, maxMs: 20 } };
    const source = { component: 'snapshot', host: 'node-1' };
    const writer = newEventWriter({ client, source, limits, onLost: (...all) => lost.push(all) });
    running = writer.run(stop.signal);
    const about = { apiVersion: 'v1', kind: 'Pod', namespace: 'demo', name: 'web-1', uid: 'u' };
    const annotations = { 'example.com/trace': 'abc' };
    writer.write({ about, type: 'Warning', reason: 'CheckpointFailed', message: 'é'.repeat(2_000), annotations });
    writer.write({
      about: { apiVersion: 'v1', kind: 'Node', name: 'node-1' },
      type: 'Normal',
      reason: 'A',
      message: 'm',
    });
    await eventually(() => expect(api.list('events')).toHaveLength(2));
    await eventually(() => expect(api.calls({ resource: 'events' })).toHaveLength(3));
    const event = api.list('events').find(({ metadata }) => metadata.namespace === 'demo');
    expect(event).toMatchObject({
      involvedObject: about,
      reason: 'CheckpointFailed',
      type: 'Warning',
      metadata: { annotations },
    });
    expect(lost).toEqual([]);
  });
});
