import { X509Certificate } from 'node:crypto';
import { PassThrough, Readable } from 'node:stream';
import { expect } from 'vitest';
import { recordKeyOf } from '../../../contract/record-key.ts';
import { openKube } from '../../../kube/client.ts';
import { runSnapshotctl } from '../../../snapshotctl/cli.ts';
import { ensureCredentials } from '../../../snapshotctl/credentials/ensure.ts';
import type { SecretReport } from '../../../snapshotctl/credentials/report.ts';
import { NOTES } from '../../../snapshotctl/credentials/secret.ts';
import { openSecrets } from '../../../snapshotctl/credentials/secret-store.ts';
import type { KubeApi } from '../../fakes/kube-api/server.ts';

/** In the order in which they are reported. */
export const SECRETS = ['snapshot-record-key', 'snapshot-ca', 'snapshot-agent-tls', 'snapshot-operator-tls'] as const;
type SecretName = (typeof SECRETS)[number];

const FLAGS = [
  ...['--record-key-secret', 'snapshot-record-key', '--tls', '--ca-secret', 'snapshot-ca'],
  ...['--agent-tls-secret', 'snapshot-agent-tls', '--operator-tls-secret', 'snapshot-operator-tls'],
];

interface RunOptions {
  readonly rotate?: 'all' | 'record-key' | 'ca';
  readonly forgetOldest?: boolean;
  readonly certificateDays?: number;
  readonly signal?: AbortSignal;
}

/** Runs of the command against the API server: as a command line, or at a time of the test's choice. */
export async function newCredentialsRuns(api: KubeApi, home: string) {
  const kubeconfigPath = await api.writeKubeconfig(home);
  const kube = await openKube({ kubeconfigPath });
  const data = (name: SecretName): Record<string, string> => {
    const encoded = (api.get('secrets', `demo/${name}`)?.['data'] ?? {}) as Record<string, string>;
    return Object.fromEntries(
      Object.entries(encoded).map(([file, text]) => [file, Buffer.from(text, 'base64').toString()]),
    );
  };
  const bare = async (...args: readonly string[]) => {
    const said = { out: '', err: '' };
    const stream = (to: 'out' | 'err') => ({
      write: (text: string) => {
        said[to] += text;
      },
      ...{ isTerminal: false, columns: 80, hasColors: false },
    });
    const cluster = ['--kubeconfig', kubeconfigPath, '--namespace', 'demo'];
    const { signal } = new AbortController();
    const pipes = { input: Readable.from([]), output: new PassThrough() };
    const terminal = { out: stream('out'), err: stream('err'), ...pipes, env: {}, signal };
    const status = await runSnapshotctl(['credentials', 'ensure', ...cluster, ...args], terminal);
    return { status, ...said };
  };
  return {
    ...{ data, bare },
    command: (...more: readonly string[]) => bare(...FLAGS, ...more),
    /** What `command` does with the wall clock, at another time. */
    at: async (nowMs: number, options: RunOptions = {}): Promise<SecretReport[]> => {
      const { rotate, forgetOldest = false, certificateDays = 90, signal = new AbortController().signal } = options;
      const reports: SecretReport[] = [];
      const backoff = { minMs: 1, maxMs: 5 };
      const secrets = openSecrets({ kube, namespace: 'demo', labels: {}, signal, backoff });
      const isAsked = (what: string) => rotate === 'all' || rotate === what;
      await ensureCredentials(
        {
          recordKey: { secret: SECRETS[0], days: 0, rotate: isAsked('record-key'), forgetOldest },
          tls: {
            authoritySecret: SECRETS[1],
            leafSecrets: { agent: SECRETS[2], operator: SECRETS[3] },
            names: { agent: 'snapshot-agent', operator: 'snapshot-operator' },
            ...{ certificateDays, authorityDays: 1825, rotate: isAsked('ca') ? 'authority' : undefined },
          },
        },
        { secrets, nowMs: () => nowMs, signal, report: (report) => reports.push(report) },
      );
      return reports;
    },
    /** The id of the key that signs. */
    signing: (): string => {
      const key = recordKeyOf(Buffer.from(data('snapshot-record-key')['record.key'] ?? ''));
      if (typeof key === 'string') throw new Error(key);
      return key.id;
    },
    note: (name: SecretName, note: keyof typeof NOTES) =>
      api.get('secrets', `demo/${name}`)?.metadata.annotations?.[NOTES[note]],
    /** Both certificates are signed by the authority, and come with it first in their bundle. */
    requireChain: () => {
      const authority = new X509Certificate(data('snapshot-ca')['ca.crt'] ?? '');
      for (const name of ['snapshot-agent-tls', 'snapshot-operator-tls'] as const) {
        const { 'tls.crt': own = '', 'ca.crt': bundle = '' } = data(name);
        expect(new X509Certificate(own).verify(authority.publicKey)).toBe(true);
        expect(new X509Certificate(bundle).fingerprint256).toBe(authority.fingerprint256);
      }
    },
    close: () => kube.close(),
  };
}
