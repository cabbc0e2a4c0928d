import { describe, expect, it } from 'vitest';
import { admissionAnswer, readReview } from '../../../../operator/webhook/admission-review.ts';
import { question } from './pods.ts';

const REVIEW = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: question() };

describe('a question', () => {
  it('is read with what is not known of it', () => {
    const text = JSON.stringify({ ...REVIEW, request: { ...REVIEW.request, userInfo: { username: 'somebody' } } });
    expect(readReview(text)).toMatchObject({
      result: 'read',
      request: { uid: 'u-1', userInfo: { username: 'somebody' } },
    });
  });

  it.each<[string, unknown, string, string]>([
    ['is no object', 7, '', 'the body'],
    ['is of an older version', { ...REVIEW, apiVersion: 'admission.k8s.io/v1beta1' }, 'u-1', 'apiVersion'],
    ['is another kind', { ...REVIEW, kind: 'ConversionReview' }, 'u-1', 'kind'],
    ['has no request', { ...REVIEW, request: undefined }, '', 'request'],
    ['has no uid', { ...REVIEW, request: { ...REVIEW.request, uid: '' } }, '', 'request.uid'],
    ['is about nothing', { ...REVIEW, request: { ...REVIEW.request, resource: undefined } }, 'u-1', 'request.resource'],
  ])('that %s is answered all the same', (_, body, uid, problem) => {
    const read = readReview(JSON.stringify(body));
    expect(read).toMatchObject({ result: 'malformed', uid });
    expect((read as { problem: string }).problem).toContain(problem);
  });

  it('that is not JSON', () => {
    expect(readReview('{')).toEqual({ result: 'malformed', uid: '', problem: 'the body is not JSON' });
  });
});

describe('an answer', () => {
  it('lets the pod in, and says nothing where nothing is to be said', () => {
    expect(admissionAnswer('u', {})).toEqual({
      ...{ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' },
      response: { uid: 'u', allowed: true },
    });
  });

  it('has the patch in base64, and warnings that are not too long', () => {
    const patch = [{ op: 'add', path: '/x', value: 'ü' } as const];
    const { response } = admissionAnswer('u', { patch, warnings: ['x'.repeat(300)] }) as {
      response: Record<string, string>;
    };
    expect(response).toMatchObject({ allowed: true, patchType: 'JSONPatch', warnings: ['x'.repeat(256)] });
    expect(JSON.parse(Buffer.from(response['patch'] ?? '', 'base64').toString())).toEqual(patch);
  });
});
