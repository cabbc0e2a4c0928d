import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readDefinitions } from '../../fakes/kube-api/crds.ts';
import { type KubeApi, serverError, startKubeApi } from '../../fakes/kube-api/server.ts';
import { CHECKPOINT } from '../../unit/crds/samples.ts';

/** A program needs its time to start. */
const eventually = (check: () => unknown) => vi.waitFor(check, { timeout: 20_000, interval: 20 });
let api: KubeApi;
let dir: string;
let kubeconfig: string;
const running: ChildProcess[] = [];
beforeEach(async () => {
  api = await startKubeApi({ definitions: readDefinitions(), collectsGarbage: true });
  dir = await mkdtemp(join(tmpdir(), 'operator-'));
  kubeconfig = await api.writeKubeconfig(dir);
});
afterEach(async () => {
  api.heal();
  for (const child of running.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
  await api.close();
  await rm(dir, { recursive: true });
});

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

function program(...args: string[]) {
  const child = spawn(process.execPath, ['--import', 'tsx', 'operator/main.ts', ...args], { stdio: 'pipe' });
  running.push(child);
  const said = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said.err += text;
  });
  const exited = once(child, 'close').then(([status]) => status as number | null);
  return { child, said, exited };
}

/** The operator as a process, in namespace `system`. */
async function operator(more = '') {
  const [http, webhook] = [await freePort(), await freePort()];
  const file = join(dir, `config-${http}.yaml`);
  await writeFile(
    file,
    `http: { address: "127.0.0.1:${http}" }
webhook: { port: ${webhook} }
kubernetes: { kubeconfig: ${kubeconfig}, namespace: system }
leaderElection: { leaseSeconds: 5 }
${more}`,
  );
  const started = program('--config', file);
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${http}${path}`);
    return { status: answer.status, body: await answer.text() };
  };
  return { ...started, get };
}
type Operator = Awaited<ReturnType<typeof operator>>;

const leads = async ({ get }: Operator) => /^snapshot_operator_leader 1$/m.test((await get('/metrics')).body);
const isReady = ({ get }: Operator) => eventually(async () => expect((await get('/readyz')).status).toBe(200));

describe('the operator as a program', () => {
  it('says how it is used, and refuses what it does not know', async () => {
    const [help, odd, absent] = [program('--help'), program('--nothing'), program('--config', join(dir, 'none.yaml'))];
    expect(await Promise.all([help.exited, odd.exited, absent.exited])).toEqual([0, 2, 2]);
    expect(help.said.out).toContain('usage: snapshot-operator');
    expect(odd.said.err).toContain('usage: snapshot-operator');
    expect(absent.said.err).toContain('cannot be read');
  });

  it('serves health and metrics, leads, works, and lets go of the lease when it is stopped', async () => {
    const one = await operator();
    await isReady(one);
    expect((await one.get('/healthz')).status).toBe(200);
    expect(await leads(one)).toBe(true);
    const body = (await one.get('/metrics')).body;
    for (const name of ['build_info', 'leader', 'checkpoints_released_total', 'webhook_admissions_total'])
      expect(body).toContain(`snapshot_operator_${name}`);
    api.put({ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name: 'one', namespace: 'demo' } });
    // Nobody mounts artifacts there: it says so, and no Job is made.
    await eventually(() =>
      expect(JSON.stringify(api.get('dynamocheckpoints', 'demo/one')?.status)).toContain(
        'no snapshot-agent daemonset found in namespace demo',
      ),
    );
    one.child.kill('SIGTERM');
    expect([await one.exited, one.said.err]).toEqual([0, '']);
    expect(api.list('leases')).toEqual([]);
  });

  it('is ready on every replica, and leads on one; the other one follows when that ends', async () => {
    const [one, two] = [await operator(), await operator()];
    await Promise.all([isReady(one), isReady(two)]);
    const first = await leads(one);
    expect([first, await leads(two)].sort()).toEqual([false, true]);
    const [leader, other] = first ? [one, two] : [two, one];
    leader.child.kill('SIGTERM');
    expect(await leader.exited).toBe(0);
    await eventually(async () => expect(await leads(other)).toBe(true));
  });

  it('is not ready while it cannot read', async () => {
    api.fault({ verb: 'list', resource: 'dynamocheckpoints' }, serverError(500));
    const one = await operator();
    await eventually(async () => {
      const { status, body } = await one.get('/readyz');
      expect([status, body]).toEqual([503, expect.stringContaining('checkpoints were not read yet')]);
    });
    api.heal();
    await isReady(one);
  });

  it('ends at once, and not with success, when it leads no more', async () => {
    const one = await operator();
    await isReady(one);
    expect(await leads(one)).toBe(true);
    const { metadata, spec } = api.list('leases')[0] ?? { metadata: { name: '', namespace: '' }, spec: {} };
    api.put({
      kind: 'Lease',
      metadata: { name: metadata.name, namespace: metadata.namespace },
      spec: { ...spec, holderIdentity: 'another' },
    });
    expect(await one.exited).toBe(1);
    expect(one.said.err).toContain('leadership is lost');
    expect(api.list('leases')[0]?.spec?.['holderIdentity']).toBe('another');
  });
});
