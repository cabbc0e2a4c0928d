import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { serverError, tooManyRequests } from '../fakes/kube-api/server.ts';
import { asks, eventually, inSource, NOTE, onServer, useStage } from './kubernetes-source/stage.ts';

const { stage, followed, run, bind, note } = useStage();

/** Pods, and what is to become of them while the watch fails. */
function pods() {
  const uids = Object.fromEntries(['kept', 'deleted', 'replaced', 'unlabelled'].map((name) => [name, run(name)]));
  run('labelled', { labels: {} });
  run('elsewhere', { nodeName: 'node-2' });
  return uids as { readonly [name in 'kept' | 'deleted' | 'replaced' | 'unlabelled']: string };
}

/** One of each change that a pod can undergo. */
function change() {
  note('kept', 'changed');
  stage.api.remove('pods', 'demo/deleted');
  stage.api.remove('pods', 'demo/replaced');
  run('replaced');
  stage.api.patch('pods', 'demo/unlabelled', { metadata: { labels: { ...gone(asks) } } });
  stage.api.patch('pods', 'demo/labelled', { metadata: { labels: asks } });
  bind('created');
  stage.kubelet.admit('demo/created');
}
const gone = (labels: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.keys(labels).map((key) => [key, null]));

const LISTED = ['demo/created', 'demo/kept', 'demo/labelled', 'demo/replaced'];
const watch = { resource: 'pods', verb: 'watch' } as const;
const list = { resource: 'pods', verb: 'list' } as const;
const lists = () => stage.api.calls(list).filter(({ query }) => !query.has('continue')).length;
const breakOff = () => stage.api.watches.reset();
/** The watch hears nothing of what comes, and what it missed is forgotten. */
function forget() {
  stage.api.watches.mute();
  change();
  stage.api.compact();
}

interface Failure {
  /** Makes the watch fail, and changes the pods meanwhile. */
  readonly fail: () => unknown;
  /** What the watch is lost for, in this order; others may be between them. */
  readonly losses: readonly string[];
  /** How often all pods were listed from then on: a watch that is resumed needs none. */
  readonly lists: number;
  readonly timings?: { readonly watchSeconds?: number };
}

const failures: Readonly<Record<string, Failure>> = {
  'a stream that ends early': {
    fail: () => {
      stage.api.watches.end();
      change();
    },
    losses: ['ended'],
    lists: 0,
  },
  'a reset connection': {
    fail: () => {
      breakOff();
      change();
    },
    losses: ['reset'],
    lists: 0,
  },
  'a connection that is reset in the middle of an event': {
    fail: () => {
      stage.api.watches.tearNextEvent();
      change();
    },
    losses: ['reset'],
    lists: 0,
  },
  'a reset past a bookmark, before which all is forgotten': {
    fail: async () => {
      stage.api.compact();
      stage.api.watches.bookmark();
      await eventually(() => expect(stage.api.watches.count()).toBe(1));
      stage.api.watches.tearNextEvent();
      change();
    },
    losses: ['reset'],
    lists: 0,
  },
  'a version too old to resume from: 200 and an ERROR event': {
    fail: () => {
      forget();
      breakOff();
    },
    losses: ['reset', 'gone'],
    lists: 1,
  },
  'an ERROR event in an open stream': {
    fail: () => {
      stage.api.watches.fail();
      change();
    },
    losses: ['gone'],
    lists: 1,
  },
  'a 429 with Retry-After': {
    fail: () => {
      stage.api.fault(watch, tooManyRequests(1), { times: 1 });
      breakOff();
      change();
    },
    losses: ['reset', 'throttled'],
    lists: 0,
  },
  'a 401 that lasts until the token is rotated': {
    fail: async () => {
      const user = stage.api.tokens.get(stage.api.token) ?? '';
      stage.api.tokens.clear();
      stage.api.tokens.set('rotated', user);
      breakOff();
      change();
      // After the first, the client looks for another token at once.
      const refused = { ...watch, where: ({ status }: { status: number }) => status === 401 };
      await eventually(() => expect(stage.api.calls(refused).length).toBeGreaterThan(1));
      await writeFile(join(stage.dir, 'token'), 'rotated');
    },
    losses: ['reset', 'unauthorized'],
    lists: 0,
  },
  'a server that starts, and answers 403 until its roles are loaded': {
    fail: async () => {
      await stage.api.goAway();
      change();
      await stage.api.comeBack({ forbiddenCalls: 3 });
    },
    losses: ['reset', 'forbidden', 'forbidden', 'forbidden'],
    lists: 0,
  },
  'a few 503': {
    fail: () => {
      stage.api.fault(watch, serverError(503), { times: 3 });
      breakOff();
      change();
    },
    losses: ['reset', 'server-error', 'server-error', 'server-error'],
    lists: 0,
  },
  'a watch that answers 500 for ever at the version that is resumed': {
    fail: () => {
      const version = stage.api.version;
      stage.api.fault({ ...watch, where: ({ query }) => query.get('resourceVersion') === version }, serverError());
      breakOff();
      change();
    },
    losses: ['reset', 'server-error', 'server-error', 'server-error', 'server-error'],
    lists: 1,
  },
  'lists that are refused': {
    fail: () => {
      forget();
      stage.api.fault(list, serverError(), { times: 3 });
      breakOff();
    },
    losses: ['reset', 'gone', 'server-error', 'server-error', 'server-error'],
    lists: 4,
  },
  'lists that break off in the middle': {
    fail: () => {
      forget();
      stage.api.fault(list, { kind: 'reset', at: 'body' }, { times: 2 });
      breakOff();
    },
    losses: ['reset', 'gone', 'reset', 'reset'],
    lists: 3,
  },
  'a list whose second page has expired': {
    fail: () => {
      forget();
      const secondPage = { ...list, where: ({ query }: { query: URLSearchParams }) => query.has('continue') };
      const expired = { kind: 'refuse', code: 410, reason: 'Expired', message: 'too old' } as const;
      stage.api.fault(secondPage, expired, { times: 1 });
      breakOff();
    },
    losses: ['reset', 'gone', 'gone'],
    lists: 2,
  },
  'a list that never comes': {
    fail: () => {
      forget();
      stage.api.fault(list, { kind: 'silent', at: 'request' }, { times: 1 });
      breakOff();
    },
    losses: ['reset', 'gone', 'timeout'],
    lists: 2,
  },
  'a link that goes silent and stays open': {
    fail: () => {
      stage.api.watches.mute();
      change();
    },
    losses: ['timeout'],
    lists: 0,
    timings: { watchSeconds: 1 },
  },
  'a server that takes the watch and never answers': {
    fail: () => {
      stage.api.fault(watch, { kind: 'silent', at: 'request' }, { times: 1 });
      breakOff();
      change();
    },
    losses: ['reset', 'timeout'],
    lists: 0,
    timings: { watchSeconds: 1 },
  },
};

describe('pods that change during', () => {
  it.each(Object.entries(failures))('%s are known afterwards as the server has them', async (_, failure) => {
    const before = pods();
    const { pods: source, changes, losses } = await followed({ timings: failure.timings ?? {} });
    expect(inSource(source)).toEqual(onServer(stage));
    stage.api.forgetCalls();
    changes.length = 0;

    await failure.fail();

    await eventually(() => expect(inSource(source)).toEqual(onServer(stage)));
    expect(
      inSource(source)
        .map(({ key }) => key)
        .sort(),
    ).toEqual(LISTED);
    expect(source.pod(before.kept)?.annotations[NOTE]).toBe('changed');
    for (const uid of [before.deleted, before.replaced, before.unlabelled]) expect(source.pod(uid)).toBeUndefined();
    const all = [...Object.values(before), ...inSource(source).map(({ uid }) => uid)];
    await eventually(() => expect(all.filter((uid) => !changes.includes(uid))).toEqual([]));
    expect(inOrder(failure.losses, losses())).toEqual(failure.losses);
    expect(lists()).toBe(failure.lists);
  });

  it('watches that end in their time are known in the order of the server, without a loss', async () => {
    run('kept');
    const { pods: source, losses, changes } = await followed({ timings: { watchSeconds: 1 } });
    const seen = new Set<string | undefined>();
    for (let round = 1; round <= 3; round += 1) {
      const watches = stage.api.calls(watch).length;
      note('kept', `round ${round}`);
      await eventually(() => expect(stage.api.calls(watch).length).toBeGreaterThan(watches));
      await eventually(() => expect(inSource(source)).toEqual(onServer(stage)));
      seen.add([...source.pods()][0]?.annotations[NOTE]);
    }
    expect([...seen]).toEqual(['round 1', 'round 2', 'round 3']);
    expect(changes.length).toBeGreaterThanOrEqual(3);
    expect(losses()).toEqual([]);
    expect(lists()).toBe(1);
  });

  it('a wait that Retry-After asks for are told when it is over', async () => {
    run('kept');
    const { pods: source, states } = await followed();
    stage.api.fault(watch, tooManyRequests(1), { times: 1 });
    breakOff();
    note('kept', 'changed');
    await eventually(() => expect(inSource(source)).toEqual(onServer(stage)));
    const [refused, resumed] = stage.api.calls(watch).slice(-2);
    expect(refused?.status).toBe(429);
    expect((resumed?.atMs ?? 0) - (refused?.atMs ?? 0)).toBeGreaterThanOrEqual(1_000);
    expect(states.some((state) => state.kind === 'lost' && state.retryInMs >= 1_000)).toBe(true);
  });
});

/** Those of `wanted` that are in `all`, one after the other. */
function inOrder(wanted: readonly string[], all: readonly string[]): string[] {
  let from = 0;
  return wanted.filter((one) => {
    const at = all.indexOf(one, from);
    if (at >= 0) from = at + 1;
    return at >= 0;
  });
}
