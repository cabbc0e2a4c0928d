import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  automaticId,
  type CheckpointIdentity,
  checkpointIdOf,
  identityHash,
  randomId,
} from '../../../contract/identity.ts';
import { LABELS } from '../../../contract/keys.ts';

const QWEN = { model: 'Qwen/Qwen3-0.6B', backendFramework: 'vllm', dtype: 'bfloat16' };

describe('the identity hash', () => {
  it.each<[string, CheckpointIdentity]>([
    ['3bff874d069f0ed5', { ...QWEN, maxModelLen: 4096 }],
    ['4da999bc6c673b97', { ...QWEN, tensorParallelSize: 1, maxModelLen: 2048 }],
    ['4a5f6cbea582b088', { model: 'meta-llama/Llama-3-8B', backendFramework: 'vllm' }],
    [
      'fbbc1af5e4e2f3f6',
      {
        ...{ model: 'a<b>&c', backendFramework: 'vllm', dynamoVersion: '1.0.0', tensorParallelSize: 2 },
        ...{ dtype: 'fp8', maxModelLen: 8192, extraParameters: { z: '<x>', a: '1' } },
      },
    ],
  ])('is %s, as the original system makes it', (hash, identity) => {
    expect(identityHash(identity)).toBe(hash);
  });

  it('takes what is absent, empty or 0 for the same', () => {
    const written = { dynamoVersion: '', dtype: '', maxModelLen: 0, tensorParallelSize: 0, pipelineParallelSize: 1 };
    const plain = { model: 'm', backendFramework: 'vllm' };
    expect(identityHash({ ...plain, ...written, extraParameters: {} })).toBe(identityHash(plain));
  });

  const identities = fc.record({
    model: fc.string({ unit: 'grapheme' }),
    backendFramework: fc.constantFrom('vllm', 'sglang', 'trtllm'),
    extraParameters: fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string()),
  });

  it('does not depend on the order in which anything was written', () => {
    fc.assert(
      fc.property(identities, (identity) => {
        const turned = Object.fromEntries(Object.entries(identity.extraParameters).reverse());
        expect(identityHash({ ...identity, extraParameters: turned })).toBe(identityHash(identity));
      }),
    );
  });

  it('tells apart whatever differs', () => {
    fc.assert(
      fc.property(identities, identities, (one, other) => {
        const same = (identity: typeof one) =>
          JSON.stringify([identity.model, identity.backendFramework, Object.entries(identity.extraParameters).sort()]);
        expect(identityHash(one) === identityHash(other)).toBe(same(one) === same(other));
      }),
    );
  });

  it.each([
    // Go sorts by UTF-8 bytes, where an emoji comes after U+FFEE; by UTF-16 code units it would come before.
    ['keys beyond the basic plane', { '\uffee': '1', '\u{1f600}': '2' }, '"\uffee":"1","\u{1f600}":"2"'],
    ['keys that look like numbers', { '10': 'a', '9': 'b', '1': 'c' }, '"1":"c","10":"a","9":"b"'],
    ['line separators', { a: '\u2028\u2029' }, '"a":"\\u2028\\u2029"'],
    ['control characters', { a: '\b\f\n\r\t\u0001\u007f"\\/' }, '"a":"\\b\\f\\n\\r\\t\\u0001\u007f\\"\\\\/"'],
    ['half a surrogate pair', { a: '\ud800' }, '"a":"\ufffd"'],
  ])('writes %s as Go does', (_, extraParameters, text) => {
    const json = `{"model":"m","backendFramework":"vllm","tensorParallelSize":1,"pipelineParallelSize":1,"extraParameters":{${text}}}`;
    const wanted = createHash('sha256').update(json).digest('hex').slice(0, 16);
    expect(identityHash({ model: 'm', backendFramework: 'vllm', extraParameters })).toBe(wanted);
  });
});

describe('the id of an automatic checkpoint', () => {
  const generation = {
    ...{ namespace: 'ns', dgdName: 'vllm-auto-demo', dgdUID: 'uid-1' },
    ...{ componentName: 'VllmDecodeWorker', workerHash: 'abcd1234' },
  };

  it('is that of the original system', () => {
    expect(automaticId(generation)).toBe('f16f886e01830d6f95cde8217fdc6aff');
  });

  it.each(Object.keys(generation))('is another one with another %s', (part) => {
    expect(automaticId({ ...generation, [part]: 'other' })).not.toBe(automaticId(generation));
  });

  it('does not take one part for another', () => {
    const { workerHash: dgdUID, dgdUID: workerHash } = generation;
    expect(automaticId({ ...generation, dgdUID, workerHash })).not.toBe(automaticId(generation));
  });

  it('takes an empty part for an absent one', () => {
    const { namespace: _, workerHash: __, ...least } = generation;
    expect(automaticId({ ...least, namespace: '', workerHash: '' })).toBe(automaticId(least));
  });

  it('is random where nothing says one', () => {
    expect(randomId()).toMatch(/^[0-9a-f]{32}$/);
    expect(randomId()).not.toBe(randomId());
  });
});

describe('the checkpoint id of an object', () => {
  const object = {
    metadata: { labels: { [LABELS.checkpointId]: 'by-label' } },
    spec: { identity: { ...QWEN, maxModelLen: 4096 } },
    status: { checkpointID: 'by-status', identityHash: 'by-alias' },
  };

  it.each([
    ['its status', 'by-status', object],
    ['the older name in its status', 'by-alias', { ...object, status: { ...object.status, checkpointID: '' } }],
    ['its label', 'by-label', { ...object, status: { checkpointID: '', identityHash: '' } }],
    ['its identity', '3bff874d069f0ed5', { metadata: {}, spec: object.spec }],
  ])('is said by %s', (_, id, one) => {
    expect(checkpointIdOf(one)).toBe(id);
  });
});
