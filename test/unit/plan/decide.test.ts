import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Decision, decide as decideBy, type History, type StorageRules } from '../../../agent/plan/decide.ts';
import { ANNOTATIONS, LABELS } from '../../../contract/keys.ts';
import type { ContainerView, PodView } from '../../../contract/pods.ts';

const never: History = () => ({ state: 'none' });
const agentMount: StorageRules = { accessMode: 'agentMount', basePath: '/checkpoints' };
const decide = (asked: PodView, history: History) => decideBy(asked, history, agentMount);
const main: ContainerView = { name: 'main', id: 'c-main', state: 'running', attempt: 0 };
const side: ContainerView = { name: 'side', id: 'c-side', state: 'running', attempt: 0 };

/** A pod that asks for a restore of `main`; `undefined` removes a key. */
function pod(
  labels: Record<string, string | undefined> = {},
  annotations: Record<string, string | undefined> = {},
  containers: readonly ContainerView[] = [main, side],
): PodView {
  const defined = (map: Record<string, string | undefined>) =>
    Object.fromEntries(Object.entries(map).filter((entry): entry is [string, string] => entry[1] !== undefined));
  return {
    uid: 'uid',
    namespace: 'team',
    name: 'worker',
    sandboxId: 'sandbox',
    labels: defined({ [LABELS.checkpointId]: 'ckpt', ...labels }),
    annotations: defined({ [ANNOTATIONS.targetContainers]: 'main', ...annotations }),
    containers,
  };
}
const source = (annotations: Record<string, string | undefined> = {}, labels: Record<string, string> = {}) =>
  pod({ [LABELS.checkpointSource]: 'true', ...labels }, annotations);
const ofJob = { [LABELS.jobName]: 'job' };

function only(decisions: readonly Decision[]): Decision {
  expect(decisions).toHaveLength(1);
  return decisions[0] as Decision;
}

describe('what a pod asks for', () => {
  const wanted = { container: main, checkpointId: 'ckpt', version: '1', basePath: undefined };
  const restore = { kind: 'restore', ...wanted };
  const checkpoint = { kind: 'checkpoint', ...wanted, ofJob: false, after: undefined, existing: 'adopt' };

  it.each<[string, PodView, object]>([
    ['an id alone is a restore', pod(), restore],
    ['a restore target label changes nothing', pod({ [LABELS.restoreTarget]: 'true' }), restore],
    [
      'a version is taken, trimmed',
      pod({}, { [ANNOTATIONS.artifactVersion]: ' v-2.0 ' }),
      { ...restore, version: 'v-2.0' },
    ],
    ['a blank version is version 1', pod({}, { [ANNOTATIONS.artifactVersion]: '  ' }), restore],
    ['pvc storage is the only type', pod({}, { [ANNOTATIONS.storageType]: ' pvc ' }), restore],
    ['a blank storage type is pvc', pod({}, { [ANNOTATIONS.storageType]: '' }), restore],
    [
      'a base path loses trailing slashes',
      pod({}, { [ANNOTATIONS.storageBasePath]: ' /ckpt// ' }),
      { ...restore, basePath: '/ckpt' },
    ],
    [
      'a base path of slashes is the root',
      pod({}, { [ANNOTATIONS.storageBasePath]: '///' }),
      { ...restore, basePath: '/' },
    ],
    ['a blank base path is none', pod({}, { [ANNOTATIONS.storageBasePath]: ' ' }), restore],
    ['target names are trimmed', pod({}, { [ANNOTATIONS.targetContainers]: ' main ' }), restore],
    ['a restore ignores what is for sources', pod({}, { [ANNOTATIONS.afterCheckpoint]: 'nonsense' }), restore],
    ['a source is a checkpoint', source(), checkpoint],
    ['a source may go on', source({ [ANNOTATIONS.afterCheckpoint]: 'resume' }), { ...checkpoint, after: 'resume' }],
    ['a source may stop', source({ [ANNOTATIONS.afterCheckpoint]: 'stop' }), { ...checkpoint, after: 'stop' }],
    [
      'a source may replace',
      source({ [ANNOTATIONS.existingArtifact]: 'replace' }),
      { ...checkpoint, existing: 'replace' },
    ],
    ['a source may adopt', source({ [ANNOTATIONS.existingArtifact]: 'adopt' }), checkpoint],
    ['a Job is known by its name', source({}, ofJob), { ...checkpoint, ofJob: true }],
    [
      'a Job may say that it goes on',
      source({ [ANNOTATIONS.afterCheckpoint]: 'resume' }, ofJob),
      { ...checkpoint, ofJob: true, after: 'resume' },
    ],
    [
      'a blank Job name is no Job',
      source({ [ANNOTATIONS.afterCheckpoint]: 'stop' }, { [LABELS.jobName]: '' }),
      { ...checkpoint, after: 'stop' },
    ],
  ])('%s', (_, asked, expected) => {
    expect(decide(asked, never)).toEqual([expected]);
  });

  it('answers for every target container of a restore, in the order of the annotation', () => {
    expect(decide(pod({}, { [ANNOTATIONS.targetContainers]: 'side, main' }), never)).toEqual([
      { ...restore, container: side },
      restore,
    ]);
  });

  it.each([[undefined], ['']])('is nothing at all without an id (%j)', (id) => {
    expect(decide(pod({ [LABELS.checkpointId]: id }, { [ANNOTATIONS.targetContainers]: '' }), never)).toEqual([]);
  });
});

describe('a pod that asks for what cannot be', () => {
  it.each<[string, PodView, RegExp]>([
    ...['../up', 'a/b', '/abs', '.hidden', 'tmp', 'a b', 'x'.repeat(64), 'a\0b', 'a\n'].map(
      (id): [string, PodView, RegExp] => [
        `id ${JSON.stringify(id)}`,
        pod({ [LABELS.checkpointId]: id }),
        /snapshot-checkpoint-id/,
      ],
    ),
    ...['../1', 'a/b', 'tmp', '.1', '1\n2'].map((version): [string, PodView, RegExp] => [
      `version ${JSON.stringify(version)}`,
      pod({}, { [ANNOTATIONS.artifactVersion]: version }),
      /snapshot-artifact-version/,
    ]),
    ['another storage type', pod({}, { [ANNOTATIONS.storageType]: 's3' }), /snapshot-storage-type.* "s3" is not "pvc"/],
    [
      'no target annotation',
      pod({}, { [ANNOTATIONS.targetContainers]: undefined }),
      /target-containers is missing or blank/,
    ],
    [
      'a blank target annotation',
      pod({}, { [ANNOTATIONS.targetContainers]: ' ' }),
      /target-containers is missing or blank/,
    ],
    ['an empty entry', pod({}, { [ANNOTATIONS.targetContainers]: 'main,,side' }), /has an empty entry/],
    ['a comma at the end', pod({}, { [ANNOTATIONS.targetContainers]: 'main,' }), /has an empty entry/],
    ['a container named twice', pod({}, { [ANNOTATIONS.targetContainers]: 'main, main' }), /names a container twice/],
    ['a source with two targets', source({ [ANNOTATIONS.targetContainers]: 'main,side' }), /exactly 1 target .*got 2/],
    [
      'a source that does something else afterwards',
      source({ [ANNOTATIONS.afterCheckpoint]: 'pause' }),
      /"pause" is neither "resume" nor "stop"/,
    ],
    ['a blank wish for afterwards', source({ [ANNOTATIONS.afterCheckpoint]: '' }), /"" is neither/],
    [
      'a Job whose container is to stop',
      source({ [ANNOTATIONS.afterCheckpoint]: 'stop' }, ofJob),
      /not for the pod of a Job/,
    ],
    [
      'a source that wants something else of an artifact',
      source({ [ANNOTATIONS.existingArtifact]: 'merge' }),
      /"merge" is neither "adopt" nor "replace"/,
    ],
    [
      'a source label that is neither there nor true',
      pod({ [LABELS.checkpointSource]: 'True' }),
      /snapshot-is-checkpoint-source.* "True" is not "true"/,
    ],
    ['a source label that denies', pod({ [LABELS.checkpointSource]: 'false' }), /"false" is not "true"/],
  ])('is told about %s', (_, asked, reason) => {
    const decision = only(decide(asked, never));
    expect(decision).toMatchObject({ kind: 'malformed', reason: expect.stringMatching(reason) });
  });
});

describe('whether it is time', () => {
  const restarted: ContainerView[] = [
    { ...main, id: 'c-0', attempt: 0, state: 'exited' },
    { ...main, id: 'c-10', attempt: 10 },
    { ...main, id: 'c-9', attempt: 9, state: 'exited' },
  ];

  it('takes the container that was started last, whatever the order of the list', () => {
    for (const containers of [restarted, restarted.toReversed()])
      expect(only(decide(pod({}, {}, containers), never))).toMatchObject({ container: { id: 'c-10' } });
  });

  it('does not fall back to a container from before the restart', () => {
    const containers = [main, { ...main, id: 'c-1', attempt: 1, state: 'created' as const }];
    expect(only(decide(pod({}, {}, containers), never))).toEqual({
      kind: 'nothing',
      container: 'main',
      reason: 'the container is created',
    });
  });

  it.each<[string, ContainerView[], History, string]>([
    ['not created', [side], never, 'the container is not created yet'],
    ['created', [{ ...main, state: 'created' }], never, 'the container is created'],
    ['exited', [{ ...main, state: 'exited' }], never, 'the container is exited'],
    ['unknown', [{ ...main, state: 'unknown' }], never, 'the container is unknown'],
    ['being worked on', [main], () => ({ state: 'running' }), 'an operation on this container is under way'],
    ['done', [main], () => ({ state: 'ended' }), 'this container had its attempt'],
  ])('leaves alone a container that is %s', (_, containers, history, reason) => {
    for (const asked of [pod({}, {}, containers), { ...source(), containers }])
      expect(decide(asked, history)).toEqual([{ kind: 'nothing', container: 'main', reason }]);
  });

  it('asks the history about the container, so that a restarted one gets its own attempt', () => {
    const history: History = (id) => ({ state: id === 'c-10' ? 'none' : 'ended' });
    expect(only(decide(pod({}, {}, restarted), history))).toMatchObject({ kind: 'restore', container: { id: 'c-10' } });
    expect(only(decide(pod({}, {}, restarted.slice(0, 1)), history))).toMatchObject({ kind: 'nothing' });
  });

  it('decides for each target apart', () => {
    const asked = pod({}, { [ANNOTATIONS.targetContainers]: 'main,side' });
    const kinds = decide(asked, (id) => ({ state: id === 'c-main' ? 'ended' : 'none' })).map(({ kind }) => kind);
    expect(kinds).toEqual(['nothing', 'restore']);
  });
});

describe('for any pod', () => {
  const keys = [...Object.values(LABELS), ...Object.values(ANNOTATIONS)];
  const values = fc.oneof(
    fc.constantFrom('', ' ', 'true', 'stop', 'resume', 'adopt', 'replace', 'pvc', 'main', 'main,side', '../x', 'tmp'),
    fc.string({ unit: 'binary' }),
  );
  const anyMap = fc.dictionary(fc.constantFrom(...keys), values);
  const anyContainer = fc.record({
    name: fc.constantFrom('main', 'side'),
    id: fc.string(),
    state: fc.constantFrom('created' as const, 'running' as const, 'exited' as const, 'unknown' as const),
    attempt: fc.nat(5),
  });
  const anyPod = fc.record({
    uid: fc.string(),
    namespace: fc.string(),
    name: fc.string(),
    sandboxId: fc.string(),
    labels: anyMap,
    annotations: anyMap,
    containers: fc.array(anyContainer, { maxLength: 6 }),
  });
  const anyRestore = fc.record({
    ...{ requestId: fc.string(), traceId: fc.string(), checkpointId: fc.string(), version: fc.string() },
    failure: fc.option(fc.record({ code: fc.string(), message: fc.string(), advice: fc.string() }), { nil: undefined }),
  });
  const anyHistory = fc.func(
    fc.oneof(
      fc.record({ state: fc.constantFrom('none' as const, 'running' as const, 'ended' as const) }),
      fc.record({ state: fc.constant('restored' as const), restore: anyRestore }),
    ),
  );

  it('never throws, never changes the pod, and says the same twice', () => {
    fc.assert(
      fc.property(anyPod, anyHistory, (asked, history) => {
        const before = JSON.stringify(asked);
        const first = decide(asked, history);
        expect(decide(structuredClone(asked), history)).toEqual(first);
        expect(JSON.stringify(asked)).toBe(before);
      }),
    );
  });

  it('only ever works on a running container of the pod, the latest of its name, without an attempt, under a clean id', () => {
    let worked = 0;
    fc.assert(
      fc.property(anyPod, anyHistory, fc.boolean(), (shuffled, history, tame) => {
        const { [LABELS.checkpointSource]: isSource } = shuffled.labels;
        const asked = tame
          ? {
              ...shuffled,
              labels: { [LABELS.checkpointId]: 'ckpt', ...(isSource && { [LABELS.checkpointSource]: 'true' }) },
              annotations: { [ANNOTATIONS.targetContainers]: isSource ? 'main' : 'main,side' },
            }
          : shuffled;
        for (const decision of decide(asked, history)) {
          if (decision.kind !== 'checkpoint' && decision.kind !== 'restore') continue;
          worked++;
          const { container, checkpointId, version } = decision;
          const namesakes = asked.containers.filter(({ name }) => name === container.name);
          expect(namesakes).toContain(container);
          expect(Math.max(...namesakes.map(({ attempt }) => attempt))).toBe(container.attempt);
          expect(container.state).toBe('running');
          expect(history(container.id).state).toBe('none');
          for (const id of [checkpointId, version]) expect(id).toMatch(/^(?!tmp$)[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}$/);
        }
      }),
      { numRuns: 1000 },
    );
    expect(worked).toBeGreaterThan(0);
  });
});
