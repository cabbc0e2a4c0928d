import { execFile } from 'node:child_process';
import { chmod, copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { only, render } from '../chart/render.ts';
import { type KubeApi, type Role, startKubeApi } from '../fakes/kube-api/server.ts';
import { makeAuthority } from '../flow/grpc/certificates.ts';

/** The program as it is built, run as the chart's Job runs it: its arguments, its user, its rights, the pod's service account, nothing else. */
const ROOT = resolve(import.meta.dirname, '../..');
const NAMES = ['snapshot-record-key', 'snapshot-ca', 'snapshot-agent-tls', 'snapshot-operator-tls'];
const CHART = render({ api: { tcp: { enabled: true } } }, { namespace: 'snapshots' });
const { spec: POD } = (only(CHART, 'Job') as unknown as Job).spec.template;
const USER = String(POD.securityContext.runAsUser);

interface Job {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly securityContext: { readonly runAsUser: number };
        readonly containers: readonly [{ readonly command: readonly string[]; readonly args: readonly string[] }];
      };
    };
  };
}

let home: string;
let api: KubeApi;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'credentials-job-'));
  await chmod(home, 0o755);
  await copyFile(join(ROOT, 'dist/snapshotctl/snapshotctl.mjs'), join(home, 'snapshotctl.mjs'));
  const authority = await makeAuthority(home, 'cluster');
  const { cert, key } = await authority.issue('kubernetes', { names: 'IP:127.0.0.1' });
  const tls = { cert: String(cert), key: String(key), ca: String(authority.certificate) };
  api = await startKubeApi({ tls, roles: [only(CHART, 'Role', 'snapshot-credentials-hook') as unknown as Role] });
  await api.writeServiceAccount(join(home, 'account'), 'snapshots');
});
afterAll(async () => {
  await api?.close();
  await rm(home, { recursive: true, force: true });
});

/** Runs it as a user without rights, with the account's files where kubelet puts them. */
async function runJob(...args: readonly string[]): Promise<string> {
  const script = `
    set -e
    mount -t tmpfs tmpfs /var/run
    mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
    mount --bind "$1/account" /var/run/secrets/kubernetes.io/serviceaccount
    program=$1/snapshotctl.mjs
    shift
    exec setpriv --reuid ${USER} --regid ${USER} --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$0" "$program" "$@"`;
  const env = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(api.port), HOME: '/nonexistent' };
  const shell = ['--mount', '--propagation', 'private', 'sh', '-c', script, process.execPath, home, ...args];
  const { stdout, stderr } = await promisify(execFile)('unshare', shell, {
    env: { ...env, PATH: process.env['PATH'] },
  });
  expect(stderr).toBe('');
  return stdout;
}

test('a Job of the chart, with its rights, makes everything, and changes it when asked', async () => {
  const [, ca = ''] = NAMES;
  const [{ command, args: all }] = POD.containers;
  expect(command).toEqual(['snapshotctl']);
  const made = await runJob(...all);
  expect(
    made
      .trim()
      .split('\n')
      .map((line) => line.split(',')[0]),
  ).toEqual(NAMES.map((name) => `${name}: made`));
  expect(JSON.parse(await runJob(...all, '-o', 'json'))).toMatchObject({
    secrets: NAMES.map((secret) => ({ secret, state: 'unchanged' })),
  });
  expect(await runJob(...all, '--rotate', 'ca')).toContain(`${ca}: rotated`);
  expect(Object.keys(api.get('secrets', `snapshots/${ca}`)?.['data'] as object)).toContain('next.key');
});
