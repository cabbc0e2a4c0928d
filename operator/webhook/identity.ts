import type { Logger } from 'pino';
import { pause } from '../../kube/backoff.ts';
import type { KubeClient } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import { secretPath } from '../../kube/paths.ts';
import { type SecretObject, servedIdentity } from './certificate-secret.ts';
import type { WebhookMetrics } from './metrics.ts';

export interface IdentityOptions {
  readonly client: KubeClient;
  readonly place: { readonly namespace: string; readonly name: string };
  /** Shows this certificate from now on. PEM. Throws where it is of no use. */
  readonly serve: (identity: { readonly certificate: string; readonly key: string }) => void;
  readonly log: Logger;
  readonly metrics: Pick<WebhookMetrics, 'certificateServed' | 'certificateFailed'>;
  readonly nowMs: () => number;
  /** Between two looks; `urgentMs` while nothing is shown that is good. */
  readonly everyMs: number;
  readonly urgentMs: number;
}

/** The certificate that this replica shows. */
export interface Identity {
  /** Why the API server cannot trust it, or undefined. */
  problem(): string | undefined;
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Shows what the Secret holds, as soon as it holds something else. By looks, as a watch would need rights on all Secrets of the namespace.
 * Where the Secret is gone, or nothing in it is of use, what was shown before is shown on.
 */
export function newIdentity(options: IdentityOptions): Identity {
  const { log, metrics, nowMs, everyMs, urgentMs } = options;
  let shown: { readonly id: string; readonly notBeforeMs: number; readonly notAfterMs: number } | undefined;
  const problem = () => {
    if (shown === undefined) return 'the webhook has no certificate yet';
    if (nowMs() < shown.notBeforeMs)
      return 'the certificate of the webhook is not valid yet: compare the clocks of the nodes';
    return nowMs() < shown.notAfterMs ? undefined : 'the certificate of the webhook has run out';
  };
  const look = async (signal: AbortSignal) => {
    const identity = servedIdentity(await readSecret(options, signal));
    if (identity === undefined || identity.read.id === shown?.id) return;
    options.serve(identity);
    shown = identity.read;
    metrics.certificateServed(shown.notAfterMs);
    log.info(
      { id: shown.id, notAfter: new Date(shown.notAfterMs).toISOString() },
      'the webhook shows another certificate',
    );
  };
  const run = async (signal: AbortSignal) => {
    for (let failures = 0; !signal.aborted; ) {
      try {
        await look(signal);
        failures = 0;
      } catch (err) {
        if (signal.aborted) return;
        metrics.certificateFailed('replica');
        failures += 1;
        if (failures === 1) log.warn({ err }, "the Secret of the webhook's certificate could not be read");
      }
      await pause(problem() === undefined ? everyMs : urgentMs, signal);
    }
  };
  return { problem, run };
}

async function readSecret({ client, place }: IdentityOptions, signal: AbortSignal): Promise<SecretObject | undefined> {
  try {
    return await client.request<SecretObject>({ method: 'GET', path: secretPath(place.namespace, place.name), signal });
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return undefined;
    throw error;
  }
}
