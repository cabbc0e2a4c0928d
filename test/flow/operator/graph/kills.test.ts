import { describe, expect, it } from 'vitest';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { serverError, tooManyRequests, WRITES } from '../../../fakes/kube-api/server.ts';
import { AUTO, altered } from '../../../unit/crds/samples.ts';
import { eventually } from '../../kube/server.ts';
import { useGraphs } from './stage.ts';

/*
 * Whatever happens between two writes, the next operator comes to the same end, and makes nothing twice. A story is told once without a
 * disturbance to learn its writes and its end, and then with one at each of them.
 */

const { stage, operate, apply, patchGraph, graph, checkpoints, setPhase } = useGraphs();
const WORKER = 'VllmDecodeWorker';
const NAME = 'vllm-auto-demo';
const WAIT = altered(AUTO, `spec.services.${WORKER}.checkpoint.startupPolicy`, 'WaitForCheckpoint');
const OWN = { verb: WRITES, where: ({ resource }: { resource: string }) => resource !== 'events' };

interface Story {
  /** Before the operator under test starts; another one has come to rest. */
  readonly before?: () => unknown;
  /** What it is to act upon. */
  readonly act: () => unknown;
  readonly isOver: () => void;
  /** How many writes it takes. */
  readonly writes: number;
}

const settled = (reason: string, replicas: number) => () => {
  const conditions = (graph(NAME)?.status?.['conditions'] ?? []) as readonly Json[];
  expect(conditions.find(({ type }) => type === 'CheckpointsReady')).toMatchObject({ reason });
  expect(stage.api.get('deployments', `team/${NAME}-vllmdecodeworker`)?.spec).toMatchObject({ replicas });
};
const firstName = () => checkpoints()[0]?.metadata.name ?? '';

const STORIES: Readonly<Record<string, Story>> = {
  'an applied object': { act: () => apply(AUTO), isOver: settled('CheckpointNotReady', 1), writes: 6 },
  'a checkpoint that workers waited for': {
    before: () => apply(WAIT),
    act: () => setPhase(firstName(), 'Ready'),
    isOver: settled('CheckpointsReady', 1),
    writes: 2,
  },
  'a checkpoint that failed': {
    before: () => apply(WAIT),
    act: () => setPhase(firstName(), 'Failed'),
    isOver: settled('CheckpointFailed', 0),
    writes: 1,
  },
  'a new generation, and a service that goes': {
    before: () => apply(AUTO),
    act: () => {
      const worker = { extraPodSpec: { mainContainer: { image: 'vllm:2' } } };
      patchGraph(NAME, { spec: { services: { Frontend: null, [WORKER]: worker } } });
    },
    isOver: () => {
      settled('CheckpointNotReady', 1)();
      expect(checkpoints()).toHaveLength(2);
      const second = checkpoints().find(({ status }) => status?.['phase'] !== 'Creating')?.metadata.name;
      expect(JSON.stringify(graph(NAME)?.status?.['conditions'])).toContain(
        `${second} of service ${WORKER} is Pending`,
      );
      expect(stage.api.list('deployments')).toHaveLength(1);
      expect(stage.api.list('services')).toEqual([]);
    },
    writes: 6,
  },
};

/** What there is in the end, without what differs from run to run. */
function world() {
  const bare = (object: unknown) =>
    JSON.parse(
      JSON.stringify(object, (key, value) =>
        ['lastTransitionTime', 'creationTimestamp', 'resourceVersion', 'uid', 'managedFields'].includes(key)
          ? undefined
          : value,
      ),
    ) as unknown;
  const uid = graph(NAME)?.metadata.uid ?? '';
  const names = checkpoints().map(({ metadata }) => metadata.name);
  const kinds = ['dynamographdeployments', 'dynamocheckpoints', 'deployments', 'services'] as const;
  let text = JSON.stringify(kinds.map((kind) => stage.api.list(kind).map(bare))).replaceAll(uid, 'UID');
  // Ids are of the uid.
  names.forEach((name) => {
    const generation = stage.api.get('dynamocheckpoints', `team/${name}`)?.metadata.labels?.[
      'nvidia.com/dynamo-worker-hash'
    ];
    text = text.replaceAll(name.slice('checkpoint-'.length), `ID-OF-${generation}`);
  });
  const [graphs, ckpts, ...rest] = JSON.parse(text) as [Json[], Json[], ...Json[][]];
  const sorted = ckpts.sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
  const hashes = (key: string, value: unknown) => (key === 'nvidia.com/snapshot-rollout-applied' ? 'HASH' : value);
  return JSON.parse(JSON.stringify([graphs, sorted, ...rest], hashes)) as unknown;
}

/** Brings the world to where the story begins. */
async function open({ before }: Story): Promise<void> {
  if (before === undefined) return;
  const kill = operate();
  before();
  await eventually(() => {
    expect(checkpoints()).toHaveLength(1);
    expect(graph(NAME)?.status?.['conditions']).toBeDefined();
  });
  setPhase(firstName(), 'Creating');
  await eventually(() => expect(JSON.stringify(graph(NAME)?.status?.['conditions'])).toContain('is Creating'));
  kill();
}

const ends = new Map<string, unknown>();
const told = Object.entries(STORIES).map(([name, story]) => ({ name, story }));
const cuts = told.flatMap(({ name, story }) =>
  (['request', 'answer'] as const).flatMap((at) =>
    Array.from({ length: story.writes }, (_, index) => ({ name, story, at, nth: index + 1 })),
  ),
);

describe('an operator', () => {
  it.each(told)('does its work in so many writes: $name', async ({ name, story }) => {
    await open(story);
    stage.api.forgetCalls();
    operate();
    story.act();
    await eventually(story.isOver);
    ends.set(name, world());
    const done = stage.api.calls(OWN).map(({ verb, resource, subresource }) => [verb, resource, subresource].join(' '));
    expect(done, done.join('\n')).toHaveLength(story.writes);
  });

  it.each(cuts)('killed at write $nth ($at) is gone on with: $name', async ({ name, story, at, nth }) => {
    await open(story);
    const gate = stage.api.gate(OWN, at);
    const kill = operate();
    story.act();
    for (let passed = 1; passed < nth; passed += 1) (await gate.next()).release();
    const held = await gate.next();
    kill();
    held.drop();
    gate.open();
    operate();
    await eventually(() => {
      story.isOver();
      expect(world()).toEqual(ends.get(name));
    });
  });

  it.each<[string, () => unknown]>([
    ['answers are lost', () => stage.api.fault(OWN, { kind: 'reset', at: 'answer' }, { times: 8 })],
    ['requests are lost', () => stage.api.fault(OWN, { kind: 'reset', at: 'request' }, { times: 8 })],
    ['the server fails', () => stage.api.fault(OWN, serverError(500), { times: 8 })],
    ['the server is busy', () => stage.api.fault(OWN, tooManyRequests(0), { times: 8 })],
    ['lists break off', () => stage.api.fault({ verb: 'list' }, { kind: 'reset', at: 'body' }, { times: 4 })],
  ])('comes to the same end where %s', async (_, spoil) => {
    spoil();
    operate();
    STORIES['an applied object']?.act();
    await eventually(() => {
      STORIES['an applied object']?.isOver();
      expect(world()).toEqual(ends.get('an applied object'));
    });
  });

  it('writes its status over that of others without losing it', async () => {
    operate();
    const gate = stage.api.gate({ verb: 'patch', subresource: 'status' }, 'request');
    apply(AUTO);
    const held = await gate.next();
    patchGraph(NAME, {
      status: {
        theirs: 'yes',
        conditions: [
          { type: 'Theirs', status: 'True', reason: 'R', message: '', lastTransitionTime: '2026-01-01T00:00:00Z' },
        ],
      },
    });
    held.release();
    gate.open();
    await eventually(() =>
      expect(((graph(NAME)?.status?.['conditions'] ?? []) as Json[]).map(({ type }) => type)).toEqual([
        ...['Theirs', 'CheckpointsReady', 'WorkersHeld', 'PlainRollout'],
      ]),
    );
    expect(graph(NAME)?.status).toMatchObject({ theirs: 'yes' });
  });
});
