import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { type Authority, type Issued, makeAuthority } from '../../flow/grpc/certificates.ts';
import { connectTo, type TestClient } from '../../flow/grpc/client.ts';
import { ApiNode } from './node.ts';

export const OPERATOR = 'snapshot-operator';
export const TENANT = 'spiffe://cluster/ns/team-a/sa/worker';

/** A node whose agent is also called over TCP, by certificates. */
export class CertifiedNode {
  readonly node: ApiNode;
  /** The one whose certificates are taken. */
  readonly authority: Authority;
  readonly port: number;
  readonly #clients: TestClient[] = [];

  private constructor(node: ApiNode, authority: Authority, port: number) {
    this.node = node;
    this.authority = authority;
    this.port = port;
  }

  static async start(): Promise<CertifiedNode> {
    let authority: Authority | undefined;
    const node = await ApiNode.start(async ({ directory }) => {
      authority = await makeAuthority(directory, 'authority');
      const server = await authority.issue('agent', { names: 'DNS:localhost,IP:127.0.0.1' });
      const files = join(directory, 'tls');
      await mkdir(files);
      await copyFile(server.certFile, join(files, 'tls.crt'));
      await copyFile(server.keyFile, join(files, 'tls.key'));
      await copyFile(authority.file, join(files, 'ca.crt'));
      const at = '/etc/snapshot-tls';
      const tls = { certificateFile: `${at}/tls.crt`, keyFile: `${at}/tls.key`, clientCaFile: `${at}/ca.crt` };
      const clients = [
        { name: OPERATOR, namespaces: ['*'] },
        { name: TENANT, namespaces: ['team-a'] },
      ];
      return { config: { api: { listen: '127.0.0.1:0', tls, clients } }, binds: [`${files}:${at}`] };
    });
    const { tcp } = node.agent.logs().find(({ msg }) => msg === 'gRPC is served') ?? {};
    if (authority === undefined) throw new Error('no authority was made');
    return new CertifiedNode(node, authority, Number(String(tcp).split(':').at(-1)));
  }

  /** A client with a connection of its own, with this certificate or without any; it trusts agents of `trusted`. */
  connect(who: Issued | undefined, trusted: Authority = this.authority): TestClient {
    const creds = credentials.createSsl(trusted.certificate, who?.key ?? null, who?.cert ?? null);
    const client = connectTo(`localhost:${this.port}`, creds, { 'grpc.use_local_subchannel_pool': 1 });
    this.#clients.push(client);
    return client;
  }

  async operator(): Promise<TestClient> {
    return this.connect(await this.authority.issue(OPERATOR));
  }

  async tenant(): Promise<TestClient> {
    return this.connect(await this.authority.issue('tenant', { names: `URI:${TENANT}` }));
  }

  async stop(): Promise<string[]> {
    for (const client of this.#clients) client.close();
    return await this.node.stop();
  }
}
