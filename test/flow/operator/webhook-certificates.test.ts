import { connect } from 'node:tls';
import { beforeAll, describe, expect, it } from 'vitest';
import { firstCertificates, type MakingForm, nextCertificates } from '../../../operator/webhook/certificate-making.ts';
import type { Certificates } from '../../../operator/webhook/certificate-secret.ts';
import { serviceHost } from '../../../operator/webhook/certificates.ts';
import type { PodWebhook } from '../../../operator/webhook/pod-webhook.ts';
import { serverError } from '../../fakes/kube-api/server.ts';
import { eventually } from '../kube/server.ts';
import { CONFIG, FOREIGN, isShaped, SECRET_KEY, useWebhook } from './webhook-stage.ts';

const DAY = 86_400_000;
const WRITTEN = "the webhook's certificates were written";
const { stage, register, configured, trusted, held, hold, lead, replica, ready, putCheckpoint, create, createDuring } =
  useWebhook();

const form = (agoDays: number): MakingForm => ({
  ...{ name: serviceHost(CONFIG.service), certificateDays: 30, authorityDays: 90, nowMs: Date.now() - agoDays * DAY },
});
const madeAgo = (days: number) => firstCertificates(form(days), { former: [], formerUntilMs: 0 });
const reissued = (certificates: Certificates) =>
  nextCertificates(certificates, { authority: 'keep', issues: true, dropsPrevious: false, why: '' }, form(0));

/** What a replica shows on a connection that is made now. */
const shown = ({ port }: PodWebhook) =>
  new Promise<string>((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256.replaceAll(':', '').toLowerCase());
      socket.destroy();
    });
    socket.on('error', reject);
  });
const show = (replicas: readonly PodWebhook[], id: string | undefined) =>
  expect.poll(() => Promise.all(replicas.map(shown)), { timeout: 15_000 }).toEqual(replicas.map(() => id));
const changes = () => stage.log.said(WRITTEN).map(({ change }) => change);

/** Certificates that have run out, of an authority that has not. */
let expired: Certificates;
/** Good ones, of an authority of which less than a third is left. */
let aged: Certificates;
beforeAll(async () => {
  expired = await madeAgo(45);
  aged = await reissued(await madeAgo(70));
});

describe('certificates', () => {
  it('are there without anybody doing anything, whatever comes first', async () => {
    putCheckpoint();
    const started = await replica();
    expect(started.readiness()).toContain('the webhook has no certificate yet');
    lead();
    await ready(started);
    await eventually(() =>
      expect(stage.log.said('the API server is not told to call the webhook: no pod is restored by it')).toHaveLength(
        1,
      ),
    );
    expect(isShaped(await create())).toBe(false);
    register();
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
    expect(isShaped(await create())).toBe(true);
    expect(changes()).toEqual(['authority-changed']);
    expect(stage.api.get('secrets', SECRET_KEY)).toMatchObject({ type: 'kubernetes.io/tls' });
  });

  it('that have run out are renewed, and the next worker is restored', async () => {
    putCheckpoint();
    hold(expired);
    register();
    const started = await replica();
    await eventually(() => expect(started.readiness()).toEqual(['the certificate of the webhook has run out']));
    await show([started], expired.leaf.read.id);
    expect(isShaped(await create())).toBe(false);
    lead();
    await ready(started);
    await eventually(() => expect(trusted()).toEqual([expired.authority.read.id]));
    expect(isShaped(await create())).toBe(true);
    expect(changes()).toEqual(['issued']);
  });

  it('that begin later make no replica ready', async () => {
    hold(await madeAgo(-2));
    register();
    const started = await replica();
    await eventually(() =>
      expect(started.readiness()).toEqual([expect.stringContaining('the certificate of the webhook is not valid yet')]),
    );
  });

  it('with an authority that has run out are made anew', async () => {
    putCheckpoint();
    hold(await madeAgo(100));
    register();
    lead();
    await ready(await replica());
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
    expect(isShaped(await create())).toBe(true);
  });

  it('that begin later, because a clock ran ahead, are made anew; the log says why, and the former authority stays trusted', async () => {
    putCheckpoint();
    const early = await madeAgo(-30);
    hold(early);
    register();
    lead();
    await ready(await replica());
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id, early.authority.read.id]));
    await eventually(async () => expect(isShaped(await create())).toBe(true));
    expect(stage.log.said(WRITTEN)).toMatchObject([
      { change: 'authority-changed', reason: 'the authority begins later than now: a clock ran ahead' },
    ]);
  });

  it('are written once, however often they are looked at, and their keys are in no log', async () => {
    register();
    lead();
    const started = await replica();
    await ready(started);
    await eventually(() => expect(trusted()).toHaveLength(1));
    const written = stage.api.calls({ verb: ['create', 'update', 'patch'] }).length;
    const looks = () => stage.api.calls({ verb: 'get', resource: 'mutatingwebhookconfigurations' }).length;
    const before = looks();
    await eventually(() => expect(looks()).toBeGreaterThan(before + 5));
    expect(stage.api.calls({ verb: ['create', 'update', 'patch'] })).toHaveLength(written);
    expect(JSON.stringify(stage.log.lines)).not.toContain('PRIVATE');
  });
});

describe('with two replicas, no worker is left out while', () => {
  const twoReplicas = async (certificates: Certificates | undefined) => {
    putCheckpoint();
    if (certificates !== undefined) hold(certificates);
    register();
    const leader = lead();
    const replicas = [await replica(), await replica()] as const;
    await Promise.all(replicas.map(ready));
    await eventually(() => expect(trusted()).toContain(held()?.authority.read.id));
    return { leader, replicas };
  };

  it('the authority changes', async () => {
    const { replicas } = await twoReplicas(aged);
    const tally = await createDuring(async () => {
      await eventually(() => expect(changes()).toEqual(['authority-added', 'authority-changed']));
      await show(replicas, held()?.leaf.read.id);
    }, replicas);
    expect(tally.unshaped).toBe(0);
    expect(tally.made).toBeGreaterThan(4);
    const { authority, previous, next, previousUntilMs } = held() as Certificates;
    expect(next).toBeUndefined();
    expect(authority.read.id).not.toBe(aged.authority.read.id);
    expect(previous.map(({ id }) => id)).toEqual([aged.authority.read.id]);
    expect(previousUntilMs).toBe(aged.leaf.read.notAfterMs);
    expect(trusted()).toEqual(expect.arrayContaining([authority.read.id, aged.authority.read.id]));
    expect(held()?.leaf.read.isSignedBy(authority.read)).toBe(true);
  });

  it('the certificate is renewed', async () => {
    const half = await nextCertificates(
      await madeAgo(25),
      { authority: 'keep', issues: true, dropsPrevious: false, why: '' },
      form(22),
    );
    putCheckpoint();
    hold(half);
    register();
    const replicas = [await replica(), await replica()] as const;
    await Promise.all(replicas.map(ready));
    await show(replicas, half.leaf.read.id);
    // Somebody trusted them before: it is the renewal that is looked at.
    const [other, own] = configured();
    const caBundle = Buffer.from(half.authority.certificate).toString('base64');
    const clientConfig = { ...(own?.['clientConfig'] as object), caBundle };
    stage.api.patch('mutatingwebhookconfigurations', '/snapshot-operator', {
      webhooks: [other, { ...own, clientConfig }],
    });
    const tally = await createDuring(async () => {
      lead();
      await eventually(() => expect(changes()).toEqual(['issued']));
      await show(replicas, held()?.leaf.read.id);
    }, replicas);
    expect(tally.unshaped).toBe(0);
    expect(held()?.authority.read.id).toBe(half.authority.read.id);
  });

  it('somebody deletes the Secret', async () => {
    const { replicas } = await twoReplicas(undefined);
    const former = held() as Certificates;
    const tally = await createDuring(async () => {
      stage.api.remove('secrets', SECRET_KEY);
      await eventually(() => expect(held()).toBeDefined());
      await show(replicas, held()?.leaf.read.id);
    }, replicas);
    expect(tally.unshaped).toBe(0);
    expect(held()?.authority.read.id).not.toBe(former.authority.read.id);
    expect(trusted()).toEqual([held()?.authority.read.id, former.authority.read.id]);
    stage.api.patch('secrets', SECRET_KEY, { data: { 'previous.crt': null } });
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
    expect(isShaped(await create())).toBe(true);
  });

  it('the configuration is slow to take what a new Secret is to hold', async () => {
    const { replicas } = await twoReplicas(undefined);
    const former = held() as Certificates;
    const gate = stage.api.gate({ verb: 'patch' }, 'request');
    stage.api.remove('secrets', SECRET_KEY);
    const patch = await gate.next();
    expect(held()).toBeUndefined();
    for (const one of replicas) expect(await shown(one)).toBe(former.leaf.read.id);
    expect(isShaped(await create())).toBe(true);
    gate.open();
    patch.release();
    await eventually(() => expect(held()).toBeDefined());
    await show(replicas, held()?.leaf.read.id);
    expect(isShaped(await create())).toBe(true);
  });

  it('the Secret is gone, and nobody leads', async () => {
    const { leader, replicas } = await twoReplicas(undefined);
    await leader.stop();
    const looks = () => stage.api.calls({ verb: 'get', resource: 'secrets' }).length;
    const tally = await createDuring(async () => {
      stage.api.remove('secrets', SECRET_KEY);
      const before = looks();
      await eventually(() => expect(looks()).toBeGreaterThan(before + 6));
    }, replicas);
    expect(tally.unshaped).toBe(0);
    expect(replicas.flatMap((one) => one.readiness())).toEqual([]);
  });
});

describe('the configuration', () => {
  it('is changed where it calls us, and nowhere else', async () => {
    register({ timeoutSeconds: 5 });
    lead();
    await eventually(() => expect(trusted()).toHaveLength(1));
    const [other, own] = configured();
    expect(other).toEqual(FOREIGN);
    expect(own).toMatchObject({ name: 'restore.nvidia.com', failurePolicy: 'Ignore', timeoutSeconds: 5 });
    const patches = stage.api.calls({ verb: 'patch' });
    expect(patches.map(({ body }) => (body as { path: string }[]).map(({ path }) => path))).toEqual([
      ['/metadata/resourceVersion', '/webhooks/1/clientConfig/caBundle'],
    ]);
  });

  it('gets the authorities again where somebody takes them away', async () => {
    putCheckpoint();
    register();
    lead();
    await ready(await replica());
    await eventually(() => expect(trusted()).toHaveLength(1));
    register();
    expect(trusted()).toEqual([]);
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
    expect(isShaped(await create())).toBe(true);
    expect(changes()).toEqual(['authority-changed']);
  });

  it('that somebody else writes just then is read again', async () => {
    register();
    const gate = stage.api.gate({ verb: 'patch' }, 'request');
    lead();
    const patch = await gate.next();
    stage.api.patch('mutatingwebhookconfigurations', '/snapshot-operator', {
      metadata: { labels: { touched: 'yes' } },
    });
    gate.open();
    patch.release();
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
    expect(stage.api.calls({ verb: 'patch' }).map(({ status }) => status)).toEqual([422, 200]);
    expect(stage.api.get('mutatingwebhookconfigurations', '/snapshot-operator')?.metadata.labels).toMatchObject({
      touched: 'yes',
    });
  });
});

describe('whoever keeps the certificates', () => {
  it('leaves a Secret of somebody else as it is, and replicas show it', async () => {
    const secret = { kind: 'Secret', metadata: { name: CONFIG.secretName, namespace: 'system' } };
    const text = (pem: string) => Buffer.from(pem).toString('base64');
    const { leaf } = aged;
    stage.api.put({ ...secret, data: { 'tls.crt': text(leaf.certificate), 'tls.key': text(leaf.key) } });
    register();
    lead();
    const started = await replica();
    await ready(started);
    await show([started], leaf.read.id);
    await eventually(() =>
      expect(
        stage.log.said('the Secret is not ours: it is shown as it is, and somebody else must renew it'),
      ).toHaveLength(1),
    );
    expect(stage.api.calls({ verb: ['create', 'update', 'patch'] })).toEqual([]);
  });

  it('makes one of no use anew, and replicas show the former one until then', async () => {
    putCheckpoint();
    hold(aged);
    const started = await replica();
    await ready(started);
    stage.api.patch('secrets', SECRET_KEY, { data: { 'tls.key': 'AAAA' } });
    await show([started], aged.leaf.read.id);
    register();
    lead();
    await eventually(() => expect(held()).toBeDefined());
    await show([started], held()?.leaf.read.id);
    await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
    expect(isShaped(await create())).toBe(true);
  });

  it('agrees with another who thinks so too', async () => {
    putCheckpoint();
    register();
    for (let count = 0; count < 3; count += 1) lead();
    await ready(await replica());
    await expect.poll(async () => isShaped(await create()), { timeout: 15_000 }).toBe(true);
    await eventually(() => expect(trusted()).toContain(held()?.authority.read.id));
    expect(changes()).toEqual(['authority-changed']);
  });

  it.each([
    ['before the Secret', { verb: 'create', resource: 'secrets' }, 'request'],
    ['after the Secret', { verb: 'create', resource: 'secrets' }, 'answer'],
    ['before the configuration', { verb: 'patch' }, 'request'],
    ['after the configuration', { verb: 'patch' }, 'answer'],
  ] as const)('is followed by another that goes on, where it ends %s is written', async (_, pattern, at) => {
    putCheckpoint();
    register();
    const gate = stage.api.gate(pattern, at);
    const first = lead();
    const call = await gate.next();
    const ended = first.stop();
    call.drop();
    gate.open();
    await ended;
    lead();
    await ready(await replica());
    await eventually(() => expect(trusted()).toContain(held()?.authority.read.id));
    expect(isShaped(await create())).toBe(true);
  });

  it('tries again until the API server takes it, with the same certificates, and tells nothing of them', async () => {
    register();
    const secret = { resource: 'secrets', verb: 'create' } as const;
    stage.api.fault(secret, serverError(500, 'cannot write: PRIVATE KEY'), { times: 4 });
    lead();
    await eventually(() => expect(held()).toBeDefined());
    expect(trusted()).toEqual([held()?.authority.read.id]);
    const lines = stage.log.said("the webhook's certificates could not be looked after");
    expect(lines).toHaveLength(4);
    expect(JSON.stringify(lines)).not.toContain('PRIVATE');
    expect(JSON.stringify(lines)).toContain('500 InternalError');
  });
});
