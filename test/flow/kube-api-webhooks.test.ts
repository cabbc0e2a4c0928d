import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PODS } from '../fakes/kube-api/calling.ts';
import { type Json, type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';
import { type Authority, type Issued, makeAuthority } from './grpc/certificates.ts';

const SERVICE = { namespace: 'system', name: 'webhook', path: '/mutate' };
const HOST = 'webhook.system.svc';
const POD = { metadata: { name: 'web', labels: { candidate: 'true' } }, spec: { containers: [{ name: 'main' }] } };
type Review = { request: { uid: string; object: Json } & Json };

let dir: string;
let authority: Authority;
let issued: Issued;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'webhooks-'));
  authority = await makeAuthority(dir, 'one');
  issued = await authority.issue(HOST);
});
afterAll(() => rm(dir, { recursive: true }));

let api: KubeApi;
let server: ReturnType<typeof createServer>;
let reviews: Review[];
/** What the webhook answers; undefined: nothing, ever. */
let answer: (review: Review) => unknown;
beforeEach(async () => {
  api = await startKubeApi();
  [reviews, answer] = [[], allowed()];
  await serve(issued);
});
afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await api.close();
});

async function serve({ cert, key }: Issued) {
  server = createServer({ cert, key }, (request, response) => {
    void json(request).then((review) => {
      reviews.push(review as Review);
      const said = answer(review as Review);
      if (said !== undefined) response.end(JSON.stringify(said));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  api.services.set('system/webhook', (server.address() as AddressInfo).port);
}
const said =
  (response: Json) =>
  ({ request: { uid } }: Review) => ({
    ...{ kind: 'AdmissionReview', apiVersion: 'admission.k8s.io/v1' },
    response: { uid, ...response },
  });
function allowed(...operations: Json[]) {
  if (operations.length === 0) return said({ allowed: true });
  const patch = Buffer.from(JSON.stringify(operations)).toString('base64');
  return said({ allowed: true, patchType: 'JSONPatch', patch });
}
function register(more: Json = {}) {
  const caBundle = authority.certificate.toString('base64');
  const rules = [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods'] }];
  const webhook = { name: 'pods.example.com', clientConfig: { service: SERVICE, caBundle }, rules, ...more };
  api.put({ kind: 'MutatingWebhookConfiguration', metadata: { name: 'pods' }, webhooks: [webhook] });
}
async function create(pod: Json = POD, path = PODS) {
  const answered = await fetch(`${api.url}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${api.token}`, 'content-type': 'application/json' },
    body: JSON.stringify(pod),
  });
  return { status: answered.status, body: (await answered.json()) as Json & { metadata: Json; message: string } };
}
const MARK = { op: 'add', path: '/metadata/labels/seen', value: 'yes' };

describe('a mutating webhook', () => {
  it('changes a pod before it is stored, and sees it as it would be', async () => {
    register();
    answer = allowed(MARK);
    expect(await create()).toMatchObject({
      status: 201,
      body: { metadata: { labels: { candidate: 'true', seen: 'yes' } } },
    });
    expect(api.get('pods', 'demo/web')?.metadata.labels).toEqual({ candidate: 'true', seen: 'yes' });
    const [review] = reviews;
    expect(review).toMatchObject({
      request: {
        ...{ operation: 'CREATE', namespace: 'demo', name: 'web', dryRun: false },
        object: { kind: 'Pod', metadata: { namespace: 'demo' }, spec: { restartPolicy: 'Always' } },
      },
    });
    expect(review?.request.object['metadata']).not.toHaveProperty('uid');
  });

  it('is not asked about what its rules and selectors leave out', async () => {
    register({
      objectSelector: { matchLabels: { candidate: 'true' } },
      namespaceSelector: {
        matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['system'] }],
      },
    });
    await create({ ...POD, metadata: { name: 'other' } });
    await create(POD, PODS.replace('demo', 'system'));
    await create({ metadata: { name: 'job' }, spec: {} }, '/apis/batch/v1/namespaces/demo/jobs');
    expect(reviews).toEqual([]);
    await create();
    expect(reviews).toHaveLength(1);
  });

  it('can refuse', async () => {
    register({ failurePolicy: 'Ignore' });
    answer = said({ allowed: false, status: { message: 'not here' } });
    const { status, body } = await create();
    expect([status, body.message]).toEqual([400, 'admission webhook "pods.example.com" denied the request: not here']);
    expect(api.list('pods')).toEqual([]);
  });

  const silence = () => undefined;
  describe.each<[string, (review: Review) => unknown]>([
    ['is silent for longer than it may', silence],
    ['answers about another request', ({ request }) => allowed(MARK)({ request: { ...request, uid: 'x' } })],
    ['answers nonsense', () => ({})],
  ])('that %s', (_, bad) => {
    it('is passed over where its policy is Ignore', async () => {
      register({ failurePolicy: 'Ignore', timeoutSeconds: 1 });
      answer = bad;
      expect((await create()).body.metadata['labels']).toEqual({ candidate: 'true' });
      expect(reviews).toHaveLength(1);
    });

    it('fails the pod where it is not', async () => {
      register({ timeoutSeconds: 1 });
      answer = bad;
      const { status, body } = await create();
      expect(status).toBe(500);
      expect(body.message).toContain('failed calling webhook "pods.example.com"');
    });
  });

  it('whose patch does not fit fails the pod, whatever its policy', async () => {
    register({ failurePolicy: 'Ignore' });
    answer = allowed({ op: 'replace', path: '/spec/nothing/here', value: 1 });
    expect((await create()).status).toBe(500);
  });

  it('is trusted only with a certificate of its authority, for its name, that has not run out', async () => {
    register();
    const foreign = await makeAuthority(dir, 'two');
    for (const other of [
      await foreign.issue(HOST),
      await authority.issue('another.system.svc'),
      await authority.issue(HOST, { days: -1 }),
    ]) {
      server.close();
      await serve(other);
      expect((await create()).status).toBe(500);
    }
    expect(reviews).toEqual([]);
  });

  it('that cannot be reached, or has no Service, is passed over or fails the pod as its policy says', async () => {
    server.close();
    register();
    expect((await create()).status).toBe(500);
    api.services.clear();
    expect((await create()).body.message).toContain('service "webhook" not found');
    register({ failurePolicy: 'Ignore' });
    expect((await create()).status).toBe(201);
  });

  it('is asked one after the other, each about what the one before made of the pod', async () => {
    register();
    api.patch('mutatingwebhookconfigurations', '/pods', {});
    const first = api.get('mutatingwebhookconfigurations', '/pods')?.['webhooks'] as Json[];
    api.put({ kind: 'MutatingWebhookConfiguration', metadata: { name: 'then' }, webhooks: first });
    const seen = () => reviews.map(({ request }) => (request.object['metadata'] as Json)['labels']);
    answer = allowed(MARK);
    await create();
    expect(seen()).toEqual([{ candidate: 'true' }, { candidate: 'true', seen: 'yes' }]);
  });

  it('is an object of the cluster that can be written over HTTP', async () => {
    const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
    const made = await create({ metadata: { name: 'pods' }, webhooks: [] }, path);
    expect(made.status).toBe(201);
    expect(made.body.metadata).not.toHaveProperty('namespace');
    expect(api.get('mutatingwebhookconfigurations', '/pods')).toEqual(made.body);
  });
});
