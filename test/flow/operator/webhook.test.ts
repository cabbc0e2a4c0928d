import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { restorePod } from '../../../contract/restore-pod.ts';
import type { PodWebhook } from '../../../operator/webhook/pod-webhook.ts';
import { AGENT_MOUNT, PROFILE } from '../../unit/contract/pods.ts';
import { CANDIDATE, type PlainPod } from '../../unit/operator/webhook/pods.ts';
import { eventually } from '../kube/server.ts';
import { isShaped, SERVICE_KEY, useWebhook } from './webhook-stage.ts';

/* The API server calls the real webhook whenever a pod is created; leader and replicas have made their certificates themselves. */

const { stage, register, lead, replica, ready, putCheckpoint, create, held, trusted, metrics } = useWebhook();

async function everything(): Promise<PodWebhook> {
  register();
  lead();
  const started = await replica();
  await ready(started);
  await eventually(() => expect(trusted()).toEqual([held()?.authority.read.id]));
  return started;
}
const admitted = async (result: string) => {
  const counter = await metrics().registry.getSingleMetric('snapshot_operator_webhook_admissions_total')?.get();
  return counter?.values.find(({ labels }) => labels['result'] === result)?.value ?? 0;
};

describe('a worker that is created when its checkpoint is ready', () => {
  it('is shaped to be restored, and asks the API server for nothing', async () => {
    putCheckpoint();
    await everything();
    const cold = { ...CANDIDATE, 'nvidia.com/dynamo-checkpoint-restore-candidate': 'false' };
    const before = (await create({ 'metadata.annotations': cold })) as PlainPod;
    expect(isShaped(before)).toBe(false);
    stage.api.forgetCalls();
    const pod = await create();
    const others = stage.api.calls({
      where: ({ resource }) => resource !== 'secrets' && !resource.startsWith('mutating'),
    });
    expect(others.map(({ verb, resource }) => `${verb} ${resource}`)).toEqual(['create pods']);
    const form = {
      checkpointId: 'ckpt',
      version: '1',
      targets: ['main'],
      storage: AGENT_MOUNT,
      seccompProfile: PROFILE,
    };
    const { spec } = restorePod(before, form);
    expect(pod.spec).toEqual(spec);
    expect(pod.metadata).toMatchObject({
      labels: { app: 'worker', 'nvidia.com/snapshot-checkpoint-id': 'ckpt' },
      annotations: { ...CANDIDATE, 'nvidia.com/snapshot-target-containers': 'main' },
    });
    expect(await admitted('shaped')).toBe(1);
    expect(stage.log.said('a pod is to be restored')).toMatchObject([{ pod: 'worker-2', checkpointId: 'ckpt' }]);
  });

  it('is shaped, also while the API server answers nothing that the operator asks', async () => {
    putCheckpoint();
    const started = await everything();
    const where = ({ userAgent }: { readonly userAgent: string }) => userAgent.startsWith('snapshot-operator');
    const silence = stage.api.fault({ where }, { kind: 'silent', at: 'request' });
    stage.api.watches.reset();
    await eventually(() => expect(silence.hits).toBeGreaterThan(1));
    expect(isShaped(await create())).toBe(true);
    expect(started.readiness()).toEqual([]);
  });

  it('is shaped from the moment on when it is', async () => {
    putCheckpoint({ status: { phase: 'Creating' } });
    await everything();
    expect(isShaped(await create())).toBe(false);
    putCheckpoint();
    await eventually(() =>
      expect(stage.api.get('dynamocheckpoints', 'demo/qwen3-06b-bf16')?.['status']).toMatchObject({ phase: 'Ready' }),
    );
    await expect.poll(async () => isShaped(await create()), { timeout: 15_000 }).toBe(true);
  });
});

describe('a worker is created as it was written', () => {
  const creating = { status: { phase: 'Creating' } };
  it.each<[string, string, () => unknown, Readonly<Record<string, unknown>>]>([
    ['without a checkpoint', 'checkpoint-missing', () => undefined, {}],
    ['before its checkpoint is ready', 'checkpoint-not-ready', () => putCheckpoint(creating), {}],
    ['as no candidate', 'not-a-candidate', () => putCheckpoint(), { 'metadata.annotations': {} }],
    ['by nobody', 'untrusted', () => putCheckpoint(), { 'metadata.ownerReferences': undefined }],
    [
      'in its own way',
      'conflict',
      () => putCheckpoint(),
      { 'spec.volumes': [{ name: 'snapshot-control', hostPath: { path: '/x' } }] },
    ],
  ])('%s (%s)', async (_, reason, given, changes) => {
    given();
    await everything();
    const pod = (await create(changes)) as PlainPod;
    expect(pod.spec.containers[1]).toMatchObject({ command: ['serve'], args: ['--fast'] });
    expect(pod.metadata?.labels).toEqual({ app: 'worker' });
    expect(pod.metadata?.annotations ?? {}).toEqual(changes['metadata.annotations'] ?? CANDIDATE);
    expect(pod.spec.volumes).toEqual(changes['spec.volumes']);
    expect(await admitted(reason)).toBe(1);
  });

  it('in its own way, which is said beside the checkpoint', async () => {
    putCheckpoint();
    await everything();
    await create({ 'spec.volumes': [{ name: 'snapshot-control', hostPath: { path: '/x' } }] });
    await eventually(() =>
      expect(stage.api.list('events')).toMatchObject([
        {
          type: 'Warning',
          reason: 'RestoreNotPossible',
          message: expect.stringContaining('snapshot-control is no emptyDir') as string,
          involvedObject: { kind: 'DynamoCheckpoint', name: 'qwen3-06b-bf16' },
        },
      ]),
    );
  });

  it('while the DynamoCheckpoints were not read yet', async () => {
    putCheckpoint();
    const unread = stage.api.fault({ resource: 'dynamocheckpoints' }, { kind: 'silent', at: 'request' });
    register();
    lead();
    const started = await replica();
    await eventually(() => expect(started.readiness()).toEqual(['the DynamoCheckpoints were not read yet']));
    await eventually(() => expect(trusted()).toHaveLength(1));
    expect(isShaped(await create())).toBe(false);
    expect(await admitted('not-synced')).toBe(1);
    expect(unread.hits).toBeGreaterThan(0);
  });
});

describe('while the webhook is of no use, a worker is created as it was written', () => {
  let others: Server[] = [];
  afterEach(() => {
    for (const other of others) other.close();
    others = [];
  });
  /** Something else where the Service leads. */
  async function instead(server: Server): Promise<void> {
    others.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    stage.api.services.set(SERVICE_KEY, (server.address() as AddressInfo).port);
  }
  const tls = () => ({ cert: held()?.leaf.certificate, key: held()?.leaf.key });

  it('as it is not there', async () => {
    putCheckpoint();
    await (await everything()).stop();
    expect(isShaped(await create())).toBe(false);
  });

  it.each<[string, () => Server]>([
    ['it does not answer', () => createServer(() => undefined)],
    ['it hangs up', () => createServer((socket) => socket.destroy())],
    ['it accepts, and is silent', () => createTlsServer(tls(), () => undefined) as unknown as Server],
    ['it answers garbage', () => createTlsServer(tls(), (_, response) => response.end('<html>')) as unknown as Server],
    ['it fails', () => createTlsServer(tls(), (_, response) => response.writeHead(500).end('{}')) as unknown as Server],
  ])('as %s', async (_, other) => {
    putCheckpoint();
    await everything();
    register({ timeoutSeconds: 1 });
    await eventually(() => expect(trusted()).toHaveLength(1));
    expect(isShaped(await create())).toBe(true);
    await instead(other());
    expect(isShaped(await create())).toBe(false);
  });
});
