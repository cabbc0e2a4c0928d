import { expect, it } from 'vitest';
import type { EventNote } from '../../../kube/event-object.ts';
import { newRecorder } from '../../../operator/control/recorder.ts';

const KIND = { apiVersion: 'nvidia.com/v1alpha1', kind: 'DynamoCheckpoint' };
const object = (name: string) => ({ metadata: { name, namespace: 'demo', uid: `uid-${name}` } });

function recorder() {
  const notes: EventNote[] = [];
  const clock = { ms: 0 };
  const made = newRecorder({ write: (note) => notes.push(note) }, KIND, () => clock.ms);
  return { ...made, notes, clock };
}

it('sends what waits for long once in ten minutes, not at each look', () => {
  const { warning, notes, clock } = recorder();
  for (; clock.ms < 1_200_000; clock.ms += 5_000) warning(object('one'), 'ArtifactsNotDeleted', 'op-1 reads it');
  expect(notes).toHaveLength(2);
});

it('sends at once what is new: other words, another object, another type', () => {
  const { warning, normal, notes } = recorder();
  warning(object('one'), 'A', 'first');
  warning(object('one'), 'A', 'second');
  warning(object('two'), 'A', 'first');
  normal(object('one'), 'A', 'first');
  expect(notes.map(({ type, about, message }) => [type, about.name, message])).toEqual([
    ['Warning', 'one', 'first'],
    ['Warning', 'one', 'second'],
    ['Warning', 'two', 'first'],
    ['Normal', 'one', 'first'],
  ]);
});

it('remembers the last five thousand', () => {
  const { normal, notes } = recorder();
  for (let index = 0; index <= 5_000; index += 1) normal(object(`${index}`), 'A', 'first');
  normal(object('5000'), 'A', 'first');
  expect(notes).toHaveLength(5_001);
  normal(object('0'), 'A', 'first');
  expect(notes).toHaveLength(5_002);
});
