import { isDeepStrictEqual } from 'node:util';
import { type BackoffRange, backoffMs, pause } from '../../kube/backoff.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, KubeError } from '../../kube/error.ts';
import { secretPath } from '../../kube/paths.ts';
import { CommandError } from '../failure.ts';
import { dataOf, foreign, type SecretContent, type SecretObject } from './secret.ts';

const TRIES = 6;
const BACKOFF = { minMs: 200, maxMs: 5_000 };
/** A Secret has at most 1 MiB, and base64 in JSON takes a little more. */
const MAX_BODY_BYTES = 8 << 20;

/** Somebody else wrote the Secret first, or it is not known whether we did: what to do is to be decided anew. */
export class SecretChanged extends Error {
  override readonly name = 'SecretChanged';
}

export interface SecretStore {
  /** Undefined where there is none. Throws CommandError. */
  read(name: string): Promise<SecretObject | undefined>;
  /** Makes the Secret, or writes it where it is still what `before` says. Throws SecretChanged, CommandError. */
  write(name: string, before: SecretObject | undefined, content: SecretContent): Promise<void>;
  /** Gives a Secret that needs nothing else the labels that it lacks. */
  label(secret: SecretObject): Promise<void>;
}

export interface SecretStoreOptions {
  readonly kube: Pick<KubeClient, 'request'>;
  readonly namespace: string;
  /** Every Secret gets them. */
  readonly labels: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly backoff?: BackoffRange;
}

/** The Secrets of one namespace. What the server says about a write is not shown: it may repeat what was to be written. */
export function openSecrets(options: SecretStoreOptions): SecretStore {
  return new Secrets(options);
}

class Secrets implements SecretStore {
  readonly #options: SecretStoreOptions;

  constructor(options: SecretStoreOptions) {
    this.#options = options;
  }

  async read(name: string): Promise<SecretObject | undefined> {
    const { kube, namespace, signal } = this.#options;
    const request = { method: 'GET', path: secretPath(namespace, name), maxBytes: MAX_BODY_BYTES, signal } as const;
    for (let tries = 1; ; tries += 1)
      try {
        return await kube.request<SecretObject>(request);
      } catch (error) {
        if (!(error instanceof KubeError)) throw error;
        if (error.status === 404) return undefined;
        if (!mayPass(error) || tries === TRIES) throw failure('read', name, namespace, error);
        await this.#pause(tries, error);
      }
  }

  async write(name: string, before: SecretObject | undefined, content: SecretContent): Promise<void> {
    if (before?.immutable === true) throw foreign(name, 'is immutable');
    await this.#send(name, before, objectOf(name, this.#options, before, content));
  }

  async label(secret: SecretObject): Promise<void> {
    const { name, labels: present } = secret.metadata;
    const { labels } = this.#options;
    if (Object.entries(labels).every(([key, value]) => present?.[key] === value)) return;
    const metadata = { ...secret.metadata, labels: { ...present, ...labels } };
    await this.#send(name, secret, { ...secret, metadata });
  }

  async #send(name: string, before: SecretObject | undefined, body: SecretObject): Promise<void> {
    const { kube, namespace, signal } = this.#options;
    const [method, path] =
      before === undefined
        ? (['POST', secretPath(namespace)] as const)
        : (['PUT', secretPath(namespace, name)] as const);
    try {
      await kube.request({ method, path, body, maxBytes: MAX_BODY_BYTES, signal });
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      const isGone = method === 'PUT' && error.status === 404;
      if (isConflict(error) || isGone) throw new SecretChanged(name);
      if (!mayPass(error)) throw failure('write', name, namespace, error);
      await this.#pause(1, error);
      // It may have been written all the same: the answer was lost.
      const found = await this.read(name);
      if (!isDeepStrictEqual(dataOf(found), dataOf(body))) throw new SecretChanged(name);
    }
  }

  async #pause(failures: number, error: KubeError): Promise<void> {
    const { signal, backoff = BACKOFF } = this.#options;
    await pause(backoffMs(failures, backoff, error), signal);
    signal.throwIfAborted();
  }
}

function objectOf(
  name: string,
  { namespace, labels }: Pick<SecretStoreOptions, 'namespace' | 'labels'>,
  before: SecretObject | undefined,
  { data, annotations, type }: SecretContent,
): SecretObject {
  const merged = { ...before?.metadata.annotations, ...annotations };
  const kept = Object.entries(merged).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return {
    ...before,
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      ...before?.metadata,
      ...{ name, namespace },
      annotations: Object.fromEntries(kept),
      labels: { ...before?.metadata.labels, ...labels },
    },
    type: before?.type ?? type,
    data: Object.fromEntries(Object.entries(data).map(([file, value]) => [file, value.toString('base64')])),
  };
}

/** The same may go right a moment later. */
function mayPass({ status }: KubeError): boolean {
  return status === 0 || status === 408 || status === 429 || status >= 500;
}

function failure(what: string, name: string, namespace: string, error: KubeError): CommandError {
  const about = `cannot ${what} Secret ${name} in namespace ${namespace}`;
  if (mayPass(error)) return new CommandError('unreachable', `${about}: ${said(error)}`);
  if (error.status === 403)
    return new CommandError(
      'failed',
      `${about}: 403 Forbidden. The service account needs create on secrets, and get and update on this one: see docs/credentials.md`,
    );
  return new CommandError('failed', `${about}: ${said(error)}`);
}

/** Without the server's own words. */
function said({ status, reason, fields }: KubeError): string {
  return [status === 0 ? 'no answer' : status, reason, fields.length > 0 && `(${fields.join(', ')})`]
    .filter(Boolean)
    .join(' ');
}
