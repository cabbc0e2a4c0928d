import { type ReadCertificate, readCertificates } from '../../kube/certificates/certificate.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone, KubeError } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';

const CONFIGURATIONS = {
  group: 'admissionregistration.k8s.io',
  version: 'v1',
  plural: 'mutatingwebhookconfigurations',
};

/** Which webhooks of which MutatingWebhookConfiguration are ours: those that call our Service. */
export interface ConfigurationPlace {
  readonly name: string;
  readonly service: { readonly namespace: string; readonly name: string };
}

interface Configuration {
  readonly metadata: { readonly resourceVersion: string };
  readonly webhooks?: readonly {
    readonly name: string;
    readonly clientConfig?: {
      readonly service?: { readonly namespace: string; readonly name: string };
      readonly caBundle?: string;
    };
  }[];
}

/** A webhook of ours, and what it trusts. */
interface OwnWebhook {
  readonly index: number;
  readonly name: string;
  readonly trusted: readonly ReadCertificate[];
}

export interface ConfigurationRead {
  readonly resourceVersion: string;
  readonly own: readonly OwnWebhook[];
}

/** The configuration as it is; undefined where it is not there. Throws KubeError. */
export async function readConfiguration(
  client: KubeClient,
  { name, service }: ConfigurationPlace,
  signal: AbortSignal,
): Promise<ConfigurationRead | undefined> {
  try {
    const path = resourcePath(CONFIGURATIONS, undefined, name);
    const { metadata, webhooks = [] } = await client.request<Configuration>({ method: 'GET', path, signal });
    const own = webhooks.flatMap(({ name: webhook, clientConfig = {} }, index): OwnWebhook[] => {
      const { service: called, caBundle = '' } = clientConfig;
      if (called?.name !== service.name || called.namespace !== service.namespace) return [];
      const text = Buffer.from(caBundle, 'base64').toString('latin1');
      return [{ index, name: webhook, trusted: readCertificates(text) ?? [] }];
    });
    return { resourceVersion: metadata.resourceVersion, own };
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** Whether all webhooks of ours trust these authorities and no others. */
export function doesTrust({ own }: ConfigurationRead, authorities: readonly ReadCertificate[]): boolean {
  const wanted = idsOf(authorities);
  return own.every(({ trusted }) => idsOf(trusted) === wanted);
}

/** The same for the same authorities in another order. */
export const idsOf = (certificates: readonly ReadCertificate[]): string =>
  certificates
    .map(({ id }) => id)
    .sort()
    .join();

/**
 * Makes all webhooks of ours trust these authorities. Nothing else of the configuration changes, and nothing at all where somebody wrote it
 * since it was read: `changed`, to be looked at again. Throws KubeError.
 */
export async function trustAuthorities(
  client: KubeClient,
  name: string,
  change: {
    readonly configuration: ConfigurationRead;
    readonly authorities: readonly ReadCertificate[];
    readonly signal: AbortSignal;
  },
): Promise<'patched' | 'changed'> {
  const { configuration, authorities, signal } = change;
  const { resourceVersion, own } = configuration;
  const value = Buffer.from(authorities.map(({ pem }) => pem).join('')).toString('base64');
  const body = [
    { op: 'test', path: '/metadata/resourceVersion', value: resourceVersion },
    ...own.map(({ index }) => ({ op: 'add', path: `/webhooks/${index}/clientConfig/caBundle`, value })),
  ];
  const path = resourcePath(CONFIGURATIONS, undefined, name);
  try {
    await client.request({ method: 'PATCH', path, body, contentType: 'application/json-patch+json', signal });
    return 'patched';
  } catch (error) {
    const isOutdated = error instanceof KubeError && error.status === 422;
    if (isOutdated || isConflict(error) || isGone(error)) return 'changed';
    throw error;
  }
}
