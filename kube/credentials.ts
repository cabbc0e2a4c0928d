import { readFile } from 'node:fs/promises';
import type { OutgoingHttpHeaders } from 'node:http';
import type { RequestOptions } from 'node:https';
import { isIPv6 } from 'node:net';
import { dirname, resolve } from 'node:path';
// Only these parts of the library: its KubeConfig imports every API model with it, 23 MB of memory in the bundle, 70 MB unbundled.
import {
  type Cluster,
  newClusters,
  newContexts,
  newUsers,
  type User,
} from '@kubernetes/client-node/dist/config_types.js';
import { ExecAuth } from '@kubernetes/client-node/dist/exec_auth.js';
import { parse } from 'yaml';
import { KubeError } from './error.ts';

const SERVICE_ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';
/** The kubelet replaces a token when 80 % of its life are over; client-go reads it again every minute too. */
const REREAD_MS = 60_000;
/** A credential plugin that hangs must not hold the agent. */
const PLUGIN_TIMEOUT_MS = 30_000;

/** Where a kubeconfig is, and which of its contexts; without a path, what the pod's service account is given. */
export interface AccessOptions {
  readonly kubeconfigPath?: string | undefined;
  readonly context?: string | undefined;
  /** Only for tests: another directory than the one that every pod has. */
  readonly serviceAccountDir?: string | undefined;
}

/** What a request adds so that the server knows us, and we the server. */
export interface Access {
  readonly headers: OutgoingHttpHeaders;
  readonly tls: Pick<RequestOptions, 'ca' | 'cert' | 'key' | 'servername' | 'rejectUnauthorized'>;
}

export interface Credentials {
  readonly server: URL;
  /** The namespace that the context names, or the one of the pod; undefined where there is none. */
  readonly namespace: string | undefined;
  /** Files are read again after a minute, so that rotated tokens and certificates are seen. */
  access(): Promise<Access>;
  /** The next access reads everything again: the server refused what we had. */
  forget(): void;
}

/** Opens the kubeconfig or the service account. Throws KubeError where it is unreadable, incomplete, or asks for what we do not do. */
export async function openCredentials(options: AccessOptions): Promise<Credentials> {
  const identity =
    options.kubeconfigPath === undefined
      ? await inCluster(options.serviceAccountDir ?? SERVICE_ACCOUNT_DIR)
      : await fromKubeconfig(options.kubeconfigPath, options.context);
  const server = serverOf(identity.cluster);
  let known: { readonly access: Promise<Access>; readonly atMs: number } | undefined;
  let plugin = new ExecAuth();

  const forget = () => {
    known = undefined;
    // The library keeps a plugin's answer in the object, even one that the server refuses.
    plugin = new ExecAuth();
  };
  return {
    server,
    namespace: identity.namespace,
    access: () => {
      if (known === undefined || performance.now() - known.atMs > REREAD_MS) {
        const access = readAccess(identity, plugin);
        known = { access, atMs: performance.now() };
        access.catch(forget);
      }
      return known.access;
    },
    forget,
  };
}

async function readAccess({ cluster, user, tokenFile }: Identity, plugin: ExecAuth): Promise<Access> {
  const [ca, cert, key, token] = await Promise.all([
    fileOrData(cluster.caFile, cluster.caData),
    fileOrData(user.certFile, user.certData),
    fileOrData(user.keyFile, user.keyData),
    tokenFile === undefined ? user.token : readToken(tokenFile),
  ]);
  const fromPlugin = plugin.isAuthProvider(user) ? await runPlugin(plugin, user) : {};
  return {
    headers: headersOf(user, token, fromPlugin),
    tls: {
      ...tlsOf(cluster),
      ...(ca ? { ca } : {}),
      ...(cert ? { cert } : {}),
      ...(key ? { key } : {}),
      ...(fromPlugin.cert ? { cert: fromPlugin.cert } : {}),
      ...(fromPlugin.key ? { key: fromPlugin.key } : {}),
    },
  };
}

function headersOf(user: User, token: string | undefined, fromPlugin: RequestOptions): OutgoingHttpHeaders {
  return {
    ...(token ? { authorization: `Bearer ${token.trim()}` } : {}),
    ...(user.impersonateUser ? { 'impersonate-user': user.impersonateUser } : {}),
    ...(fromPlugin.headers as OutgoingHttpHeaders | undefined),
  };
}

function tlsOf({ tlsServerName, skipTLSVerify }: Cluster): Access['tls'] {
  return {
    ...(tlsServerName ? { servername: tlsServerName } : {}),
    ...(skipTLSVerify ? { rejectUnauthorized: false } : {}),
  };
}

interface Identity {
  readonly cluster: Cluster;
  readonly user: User;
  readonly tokenFile: string | undefined;
  readonly namespace: string | undefined;
}

async function inCluster(dir: string): Promise<Identity> {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = '443' } = process.env;
  if (!host) throw unusable('not in a cluster: KUBERNETES_SERVICE_HOST is not set; give the path of a kubeconfig');
  const server = `https://${isIPv6(host) ? `[${host}]` : host}:${port}`;
  return {
    cluster: { name: 'cluster', server, caFile: `${dir}/ca.crt`, skipTLSVerify: false },
    user: { name: 'service-account' },
    tokenFile: `${dir}/token`,
    namespace: (await readFile(`${dir}/namespace`, 'utf8').catch(() => '')).trim() || undefined,
  };
}

async function fromKubeconfig(path: string, contextName: string | undefined): Promise<Identity> {
  const text = await readCredential(path);
  const dir = dirname(resolve(path));
  const absolute = (file: string | undefined | null) => (file ? resolve(dir, file) : undefined);
  try {
    // An empty file is one without anything in it.
    const file = (parse(text) ?? {}) as {
      clusters?: unknown;
      contexts?: unknown;
      users?: RawUser[];
      'current-context'?: string;
    };
    const context = named(newContexts(file.contexts), contextName ?? file['current-context'], 'context');
    const cluster = named(newClusters(file.clusters), context.cluster, 'cluster');
    const user = named(newUsers(file.users), context.user, 'user');
    refuseUnsupported(cluster, user);
    // The library reads `token-file`, which no kubeconfig has; the real key it does not know.
    const tokenFile = absolute(file.users?.find(({ name }) => name === context.user)?.user?.tokenFile);
    const { caFile, ...restOfCluster } = cluster;
    const { certFile, keyFile, ...restOfUser } = user;
    return {
      cluster: { ...restOfCluster, ...optional('caFile', absolute(caFile)) },
      user: { ...restOfUser, ...optional('certFile', absolute(certFile)), ...optional('keyFile', absolute(keyFile)) },
      tokenFile,
      namespace: context.namespace || undefined,
    };
  } catch (cause) {
    throw unusable(`kubeconfig ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

interface RawUser {
  readonly name?: string;
  readonly user?: { readonly tokenFile?: string };
}

function named<T extends { readonly name: string }>(list: readonly T[], name: string | undefined, kind: string): T {
  const found = list.find((entry) => entry.name === name);
  if (found === undefined)
    throw new Error(name ? `it has no ${kind} ${JSON.stringify(name)}` : `it does not say which ${kind} is current`);
  return found;
}

function optional<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, string>);
}

/** What the API servers of today still know, but this client leaves out, is refused by name instead of failing as a 401 later. */
function refuseUnsupported(cluster: Cluster, user: User): void {
  if (cluster.proxyUrl) throw new Error(`proxy-url of cluster ${cluster.name} is not supported`);
  if (user.authProvider)
    throw new Error(`auth-provider of user ${user.name} is not supported: use exec, a token or a certificate`);
  if (user.username) throw new Error(`username and password of user ${user.name} are not supported`);
}

function serverOf(cluster: Cluster): URL {
  const server = URL.canParse(cluster.server) ? new URL(cluster.server) : undefined;
  const isLocal = server !== undefined && ['127.0.0.1', '[::1]', 'localhost'].includes(server.hostname);
  // Without TLS a token could be read on the way; `kubectl proxy` on the same machine is harmless.
  if (server?.protocol === 'https:' || (server?.protocol === 'http:' && isLocal)) return server;
  throw unusable(`the server ${cluster.server} of cluster ${cluster.name} is not an https address`);
}

async function fileOrData(file: string | undefined, data: string | undefined): Promise<string | undefined> {
  if (file) return readCredential(file);
  return data ? Buffer.from(data, 'base64').toString() : undefined;
}

/** An empty file is one that is being written: with no token at all the server would take us for nobody, and say 403 instead of 401. */
async function readToken(path: string): Promise<string> {
  const token = await readCredential(path);
  if (token.trim() === '') throw unusable(`${path} is empty`);
  return token;
}

async function readCredential(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw unusable(`${path} cannot be read: ${(cause as Error).message}`, cause);
  });
}

async function runPlugin(plugin: ExecAuth, user: User): Promise<RequestOptions> {
  const options: RequestOptions = { headers: {} };
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${PLUGIN_TIMEOUT_MS} ms`)), PLUGIN_TIMEOUT_MS);
  });
  try {
    await Promise.race([plugin.applyAuthentication(user, options), tooLate]);
    return options;
  } catch (cause) {
    throw unusable(`the credential plugin of user ${user.name}: ${(cause as Error).message}`, cause);
  } finally {
    clearTimeout(timer);
  }
}

function unusable(message: string, cause?: unknown): KubeError {
  return new KubeError(message, { reason: 'Credentials', cause });
}
