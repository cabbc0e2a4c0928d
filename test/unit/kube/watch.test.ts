import { describe, expect, it } from 'vitest';
import { KubeError } from '../../../kube/error.ts';
import { isListNeeded, lossReason } from '../../../kube/loss.ts';
import { parseWatchEvent, resourceVersionOf } from '../../../kube/watch-event.ts';

const PATH = '/api/v1/pods';
const parse = (event: unknown) => parseWatchEvent(PATH, JSON.stringify(event));
const pod = { metadata: { name: 'web', resourceVersion: '7' } };

describe('a line of a watch', () => {
  it.each(['ADDED', 'MODIFIED', 'DELETED'])('that says %s has an object and where to go on', (type) => {
    expect(parse({ type, object: pod })).toEqual({ type, object: pod, resourceVersion: '7' });
  });

  it('that is a bookmark has only where to go on', () => {
    // As recorded for pods: no name, no uid.
    const object = { kind: 'Pod', metadata: { resourceVersion: '9' }, spec: { containers: null }, status: {} };
    expect(parse({ type: 'BOOKMARK', object })).toEqual({ type: 'BOOKMARK', resourceVersion: '9' });
  });

  it('that is an error has what the server says', () => {
    const object = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version: 1 (2)' };
    const event = parse({ type: 'ERROR', object });
    expect(event).toMatchObject({ type: 'ERROR', error: { status: 410, reason: 'Expired' } });
    if (event.type === 'ERROR') expect(event.error.message).toContain('too old resource version: 1 (2)');
  });

  it.each([
    ['', 'not JSON'],
    ['{"type":"ADDED","object":{', 'not JSON'],
    ['null', 'type undefined'],
    ['7', 'type undefined'],
    ['{"type":"RENAMED","object":{}}', 'type "RENAMED"'],
    ['{"type":"ADDED"}', 'without a resourceVersion'],
    ['{"type":"ADDED","object":null}', 'without a resourceVersion'],
    ['{"type":"ADDED","object":{"metadata":null}}', 'without a resourceVersion'],
    ['{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}', 'without a resourceVersion'],
  ])('%s is refused', (line, message) => {
    const refused = { name: 'KubeError', reason: 'Malformed', message: expect.stringContaining(message) as string };
    expect(() => parseWatchEvent(PATH, line)).toThrow(expect.objectContaining(refused) as Error);
  });

  it.each([undefined, null, 7, {}, { metadata: {} }, { metadata: { resourceVersion: 7 } }])(
    '%s has no version',
    (odd) => {
      expect(resourceVersionOf(odd)).toBeUndefined();
    },
  );
});

describe('why a watch was lost', () => {
  it.each([
    [410, 'Expired', 'gone', true],
    [410, '', 'gone', true],
    [500, 'Expired', 'gone', true],
    [401, 'Unauthorized', 'unauthorized', false],
    [403, 'Forbidden', 'forbidden', false],
    [429, 'TooManyRequests', 'throttled', false],
    [400, 'BadRequest', 'refused', true],
    [404, '', 'refused', true],
    [500, '', 'server-error', false],
    [504, 'Timeout', 'server-error', false],
    [0, 'Credentials', 'credentials', false],
    [0, 'Unreachable', 'unreachable', false],
    [0, 'Reset', 'reset', false],
    [0, 'TimedOut', 'timeout', false],
    [0, 'Silent', 'timeout', false],
    [0, 'Ended', 'ended', false],
    [0, 'Malformed', 'malformed', true],
    [0, 'TooLarge', 'too-large', true],
    [302, '', 'malformed', true],
    [0, 'toString', 'malformed', true],
  ] as const)('status %i with reason "%s" is %s; list anew: %s', (status, reason, word, list) => {
    expect(lossReason(new KubeError('x', { status, reason }))).toBe(word);
    expect(isListNeeded(word, 1)).toBe(list);
  });

  it('makes a list needed when the server fails again and again, but not when it only cannot be reached', () => {
    expect([4, 5, 6].map((failures) => isListNeeded('server-error', failures))).toEqual([false, true, true]);
    expect([isListNeeded('unreachable', 100), isListNeeded('throttled', 100)]).toEqual([false, false]);
  });
});
