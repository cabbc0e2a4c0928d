import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LABELS } from '../../../contract/keys.ts';
import { workerHash } from '../../../contract/worker-hash.ts';

const TEMPLATE = {
  metadata: { labels: { app: 'worker' }, annotations: { note: 'a' } },
  spec: {
    containers: [
      { name: 'main', image: 'worker:1', command: ['serve', '--model', 'm'], resources: { limits: { gpu: 1 } } },
    ],
    volumes: [{ name: 'scratch', emptyDir: {} }],
  },
};
const [MAIN] = TEMPLATE.spec.containers;

describe('the worker hash', () => {
  it('is the label where there is one', () => {
    const labels = { [LABELS.workerHash]: 'abcd1234' };
    expect(workerHash({ ...TEMPLATE, metadata: { labels } })).toBe('abcd1234');
  });

  it('is else that of the canonical JSON of the spec', () => {
    const text =
      '{"containers":[{"command":["serve","--model","m"],"image":"worker:1","name":"main","resources":{"limits":{"gpu":1}}}],"volumes":[{"emptyDir":{},"name":"scratch"}]}';
    expect(workerHash(TEMPLATE)).toBe(createHash('sha256').update(text).digest('hex').slice(0, 16));
  });

  it.each([
    ['labels', { ...TEMPLATE, metadata: { labels: { app: 'other' } } }],
    ['an empty label', { ...TEMPLATE, metadata: { labels: { [LABELS.workerHash]: '' } } }],
    ['nodeName', { ...TEMPLATE, spec: { ...TEMPLATE.spec, nodeName: 'node-1' } }],
    ['what is null', { ...TEMPLATE, spec: { ...TEMPLATE.spec, hostname: null } }],
  ])('does not depend on %s', (_, template) => {
    expect(workerHash(template)).toBe(workerHash(TEMPLATE));
  });

  it.each([
    ['image', { containers: [{ ...MAIN, image: 'worker:2' }] }],
    ['order of arguments', { containers: [{ ...MAIN, command: ['serve', 'm', '--model'] }] }],
    ['environment', { containers: [{ ...MAIN, env: [{ name: 'A', value: '1' }] }] }],
    ['number of GPUs', { containers: [{ ...MAIN, resources: { limits: { gpu: 2 } } }] }],
    ['choice of nodes', { nodeSelector: { gpu: 'h100' } }],
    ['volumes', { volumes: [] }],
  ])('is another one with another %s', (_, change) => {
    expect(workerHash({ ...TEMPLATE, spec: { ...TEMPLATE.spec, ...change } })).not.toBe(workerHash(TEMPLATE));
  });

  const turned = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(turned);
    if (typeof value !== 'object' || value === null) return value;
    const members = Object.entries(value).map(([key, member]) => [key, turned(member)] as const);
    return Object.fromEntries(members.reverse());
  };

  it('does not depend on the order of keys, at any depth', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(workerHash({ spec: { x: turned(value) } })).toBe(workerHash({ spec: { x: value } }));
      }),
    );
  });

  it('tells apart whatever is told apart by its JSON', () => {
    const scalars = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.array(fc.string()));
    fc.assert(
      fc.property(scalars, scalars, (one, other) => {
        const isSame = workerHash({ spec: { x: one } }) === workerHash({ spec: { x: other } });
        expect(isSame).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
    );
  });

  it('is one for a template that says nothing', () => {
    expect(workerHash({})).toMatch(/^[0-9a-f]{16}$/);
  });
});
