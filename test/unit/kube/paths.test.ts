import { describe, expect, it } from 'vitest';
import { eventPath, kubePath, leasePath, resourcePath, verbOf } from '../../../kube/paths.ts';

describe('a path of the API', () => {
  it('has each of its parts encoded', () => {
    expect(kubePath('api', 'v1', 'a/b', 'c?d', 'ü')).toBe('/api/v1/a%2Fb/c%3Fd/%C3%BC');
    expect(leasePath('demo')).toBe('/apis/coordination.k8s.io/v1/namespaces/demo/leases');
    expect(leasePath('demo', 'job 1')).toBe('/apis/coordination.k8s.io/v1/namespaces/demo/leases/job%201');
    expect(eventPath('demo')).toBe('/api/v1/namespaces/demo/events');
    const things = { group: 'example.com', version: 'v1beta1', plural: 'things' };
    expect(resourcePath(things)).toBe('/apis/example.com/v1beta1/things');
    expect(resourcePath(things, 'demo', 'a b')).toBe('/apis/example.com/v1beta1/namespaces/demo/things/a%20b');
    expect(resourcePath({ group: '', version: 'v1', plural: 'pods' }, 'demo')).toBe('/api/v1/namespaces/demo/pods');
  });

  it.each(['', '.', '..'])('cannot have the part "%s", which would lead elsewhere', (part) => {
    expect(() => kubePath('api', part, 'pods')).toThrow(RangeError);
    expect(() => leasePath('demo', part)).toThrow(RangeError);
    expect(() => resourcePath({ group: 'a', version: 'v1', plural: 'things' }, part)).toThrow(RangeError);
  });
});

describe('the verb of a request', () => {
  it.each([
    ['GET', '/api/v1/pods', 'list'],
    ['GET', '/api/v1/namespaces', 'list'],
    ['GET', '/api/v1/namespaces/demo', 'get'],
    ['GET', '/api/v1/namespaces/demo/pods', 'list'],
    ['GET', '/api/v1/namespaces/demo/pods/web', 'get'],
    ['GET', '/api/v1/namespaces/demo/pods/web/status', 'get'],
    ['GET', '/api/v1/nodes/node-1', 'get'],
    ['GET', '/apis/batch/v1/jobs', 'list'],
    ['GET', '/apis/batch/v1/namespaces/demo/jobs/train', 'get'],
    ['GET', '/version', 'get'],
    ['POST', '/api/v1/namespaces/demo/events', 'create'],
    ['PUT', '/apis/coordination.k8s.io/v1/namespaces/demo/leases/l', 'update'],
    ['PATCH', '/api/v1/namespaces/demo/pods/web', 'patch'],
    ['DELETE', '/apis/coordination.k8s.io/v1/namespaces/demo/leases/l', 'delete'],
  ])('%s %s is %s', (method, path, verb) => {
    expect(verbOf(method, path)).toBe(verb);
  });
});
