import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { restorePod } from '../../../../contract/restore-pod.ts';
import type { StorageSource } from '../../../../contract/storage-volume.ts';
import { admit } from '../../../../operator/webhook/admit.ts';
import { jsonPatch } from '../../../../operator/webhook/json-patch.ts';
import { applyPatch } from '../../../fakes/kube-api/patch.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { candidatePod, knowing, OPTIONS, type PlainPod, question } from './pods.ts';

const patched = (before: Json, patch: unknown) => applyPatch(before, patch, 'application/json-patch+json');
const key = fc.constantFrom('a', 'b', 'a/b', 'a~b', '~1', '', '0', '-');
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(null, true, 0, 1, '', 'x'),
    fc.array(tie('tree'), { maxLength: 4 }),
    fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
  ),
}));
const object = fc.dictionary(key, tree, { maxKeys: 5 }) as fc.Arbitrary<Json>;

describe('a JSON patch', () => {
  it('makes one object into the other, whatever they are, and nothing where they are the same', () => {
    fc.assert(
      fc.property(object, object, (before, after) => {
        expect(patched(before, JSON.parse(JSON.stringify(jsonPatch(before, after))))).toEqual(after);
        expect(jsonPatch(before, structuredClone(before))).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  it('takes what is undefined for absent', () => {
    expect(jsonPatch({ a: 1, b: undefined }, { a: undefined, c: undefined })).toEqual([{ op: 'remove', path: '/a' }]);
  });
});

const text = fc.stringMatching(/^[a-z]{1,8}$/);
const map = fc.dictionary(fc.oneof(text, fc.constantFrom('example.com/x', 'nvidia.com/snapshot-checkpoint-id')), text);
const probe = fc.option(fc.record({ httpGet: fc.record({ port: fc.nat(9) }), periodSeconds: fc.nat(9) }), {
  nil: undefined,
});
const container = fc.record(
  {
    image: text,
    command: fc.array(text),
    args: fc.array(text),
    env: fc.array(fc.record({ name: text, value: text })),
    volumeMounts: fc.array(fc.record({ name: text, mountPath: text.map((name) => `/${name}`) })),
    readinessProbe: probe,
    startupProbe: probe,
    unheardOf: fc.jsonValue(),
  },
  { requiredKeys: [] },
);
const storage: fc.Arbitrary<StorageSource> = fc.record({
  accessMode: fc.constantFrom('agentMount', 'podMount'),
  basePath: fc.constantFrom('/checkpoints', '/a/b'),
  claim: text,
});

it('a candidate becomes what shaping makes of it, whatever else it has', () => {
  const pods = fc.record({
    ...{ labels: map, annotations: map, main: container, others: fc.array(container, { maxLength: 2 }), storage },
    volumes: fc.array(fc.record({ name: text, emptyDir: fc.constant({}) })),
    beside: fc.jsonValue(),
  });
  fc.assert(
    fc.property(pods, ({ labels, annotations, main, others, storage: source, volumes, beside }) => {
      const containers = [...others.map((one, index) => ({ ...one, name: `c${index}` })), { ...main, name: 'main' }];
      const base = candidatePod();
      const metadata = base['metadata'] as Json & { annotations: object };
      const pod = JSON.parse(
        JSON.stringify({
          ...base,
          metadata: { ...metadata, labels, annotations: { ...annotations, ...metadata.annotations } },
          spec: { containers, volumes, beside },
        }),
      ) as Json;
      const verdict = admit(question(pod), knowing({ storage: () => ({ source }) }), OPTIONS);
      if (verdict.result !== 'shaped') throw new Error(`${verdict.why}: ${verdict.detail}`);
      const form = { checkpointId: 'ckpt', version: '1', targets: ['main'], storage: source };
      const wanted = restorePod(pod as unknown as PlainPod, { ...form, seccompProfile: OPTIONS.seccompProfile });
      expect(patched(pod, verdict.patch)).toEqual(JSON.parse(JSON.stringify(wanted)));
    }),
    { numRuns: 300 },
  );
});
