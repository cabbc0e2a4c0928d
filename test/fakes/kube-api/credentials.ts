import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What a client must know to call the server. */
export interface Access {
  readonly url: string;
  readonly token: string;
  /** The authority to trust, PEM; undefined without TLS. */
  readonly ca: string | undefined;
}

/** Writes `kubeconfig` and, beside it, the `token` file that it names; answers the path of the former. */
export async function writeKubeconfig(dir: string, { url, token, ca }: Access): Promise<string> {
  await mkdir(dir, { recursive: true });
  const trust = ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'fake', cluster: { server: url, ...trust } }],
    users: [{ name: 'agent', user: { tokenFile: 'token' } }],
    contexts: [{ name: 'fake', context: { cluster: 'fake', user: 'agent' } }],
    'current-context': 'fake',
  };
  await writeFile(join(dir, 'token'), token);
  const path = join(dir, 'kubeconfig');
  await writeFile(path, JSON.stringify(config, undefined, 2));
  return path;
}

/** Writes what every pod finds of its service account. */
export async function writeServiceAccount(dir: string, namespace: string, { token, ca }: Access): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'token'), token);
  await writeFile(join(dir, 'namespace'), namespace);
  if (ca !== undefined) await writeFile(join(dir, 'ca.crt'), ca);
}
