import { afterAll, afterEach, beforeEach, expect } from 'vitest';
import type { Fault } from './faults.ts';
import { readRecording, recordedNumbers } from './recording.ts';
import { type Recorded, Replay } from './replay.ts';
import { type Json, startKubeApi } from './server.ts';

const TOKENS = { admin: 'admin', norights: 'system:serviceaccount:demo:norights' };
/** Bodies that the recordings cut for their size. */
const LARGE_BODIES: Readonly<Record<string, string>> = {
  '0422': JSON.stringify({ metadata: { annotations: { 'example.com/big': 'x'.repeat(262_200) } } }),
  '0443': JSON.stringify({ metadata: { annotations: { a: 'x'.repeat(3_200_000) } } }),
};
/** Where a message shows how the real server is made inside, or its causes come in any order: not compared. */
const LOOSE: Readonly<Record<string, readonly string[]>> = {
  '0421': ['.message'],
  '0424': ['.message', '.details.causes[0].message'],
  '0427': ['.message', '.details.causes[0].message'],
  '0613': ['.message', '.details.causes[0].message'],
  '0614': ['.message', '.details.causes'],
  '0710': ['.message', '.details.causes[0].message'],
  '0712': ['.message', '.details.causes[0].message'],
  '0713': ['.message', '.details.causes[0].message'],
};
/** The recorded answer, as one object or as a list. */
export const bodyOf = (number: string) => readRecording(number).response.body as Recorded & { items: Recorded[] };
/** The objects of a recorded watch. */
export const eventsOf = (number: string) =>
  (readRecording(number).response.events ?? [])
    .filter(({ type }) => type !== 'BOOKMARK')
    .map(({ object }) => object as Recorded);
/** The least pod that the selectors of the recordings choose. */
export const pod = (name: string, resourceVersion: string, labels: Json = { app: 'web' }): Recorded => ({
  metadata: { name, namespace: 'demo', resourceVersion, labels },
  spec: { nodeName: 'node-1', containers: [{ name: 'main' }] },
  status: { phase: 'Running' },
});
/** The same from `version name`. */
export const ofLine = (line: string): Recorded => {
  const [version = '', name = ''] = line.split(' ');
  return pod(name, version);
};
/** A recorded object as it was before its deletion began, at a version that was not recorded. */
export const alive = (number: string, changes: Json = {}): Recorded => {
  const { metadata, ...rest } = bodyOf(number);
  const { deletionTimestamp: _, deletionGracePeriodSeconds: __, finalizers: ___, ...kept } = metadata;
  return { ...rest, metadata: { ...kept, generation: 1, resourceVersion: `before ${number}`, ...changes } } as Recorded;
};

/**
 * For each test a fresh server whose answers are compared with recordings. At the end every recording of the chosen numbers must have been
 * replayed.
 */
export function useReplay(isOurs: (number: string) => boolean) {
  const replayed = new Set<string>();
  const stage = {} as { replay: Replay };
  beforeEach(async () => {
    stage.replay = new Replay(await startKubeApi({ tokens: TOKENS, namespaces: ['default', 'demo'] }));
  });
  afterEach(() => stage.replay.api.close());
  afterAll(() => {
    const left = recordedNumbers().filter((number) => isOurs(number) && !replayed.has(number));
    expect(left, 'recordings that no test replays').toEqual([]);
  });

  /** Replays exchanges one after the other and expects each answer to be as recorded. `before` acts before one of them. */
  async function expectReplay(
    numbers: string,
    before: Readonly<Record<string, () => unknown>> = {},
    fault?: Fault,
  ): Promise<void> {
    for (const number of numbers.split(' ')) {
      before[number]?.();
      replayed.add(number);
      const { differences } = await stage.replay.exchange(number, { body: LARGE_BODIES[number], fault });
      expectNone(number, differences);
    }
  }

  async function expectWatch(
    number: string,
    during?: () => unknown,
    options: { readonly isKubelet?: boolean } = {},
  ): Promise<void> {
    replayed.add(number);
    const { differences } = await stage.replay.watch(number, during, options);
    expectNone(number, differences);
  }

  /** Puts recorded objects in the order of their versions, so that each list version lies between the same two. */
  const given = (objects: readonly Recorded[], kind = 'Pod') => {
    for (const object of [...objects].sort((a, b) => versionOf(a) - versionOf(b))) stage.replay.given(object, kind);
  };
  return { stage, expectReplay, expectWatch, given };
}

const versionOf = ({ metadata }: Recorded) => Number(metadata.resourceVersion);

function expectNone(number: string, differences: readonly string[]): void {
  const compared = differences.filter((line) => LOOSE[number]?.some((path) => line.startsWith(path)) !== true);
  expect(compared, `${number}: ${readRecording(number).shows}`).toEqual([]);
}
