import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const openssl = (...args: string[]) => promisify(execFile)('openssl', args);

export interface Issued {
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface Authority {
  readonly file: string;
  readonly certificate: Buffer;
  /** A certificate of this authority; negative days make one that has run out. */
  issue(name: string, options?: { readonly names?: string; readonly days?: number }): Promise<Issued>;
}

/** A certificate authority in a directory, made with the openssl program. */
export async function makeAuthority(directory: string, name: string): Promise<Authority> {
  const at = join(directory, name);
  await mkdir(at, { recursive: true });
  const [file, key] = [join(at, 'ca.pem'), join(at, 'ca.key')];
  await openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', `/CN=${name}`, '-keyout', key, '-out', file],
    ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign'],
  );
  let count = 0;
  return {
    file,
    certificate: await readFile(file),
    issue: async (subject, { names = `DNS:${subject}`, days = 1 } = {}) => {
      count += 1;
      const base = join(at, `${subject}-${count}`);
      await openssl(
        ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
        ...['-subj', `/CN=${subject}`, '-keyout', `${base}.key`, '-out', `${base}.csr`],
      );
      await writeFile(`${base}.ext`, `basicConstraints=CA:FALSE\nsubjectAltName=${names}\n`);
      await openssl(
        ...['x509', '-req', '-in', `${base}.csr`, '-CA', file, '-CAkey', key, '-set_serial', String(count)],
        ...['-days', String(days), '-extfile', `${base}.ext`, '-out', `${base}.pem`],
      );
      const [certFile, keyFile] = [`${base}.pem`, `${base}.key`];
      return { certFile, keyFile, cert: await readFile(certFile), key: await readFile(keyFile) };
    },
  };
}
