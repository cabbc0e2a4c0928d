import type { Logger } from 'pino';
import { type BackoffRange, backoffMs, pause } from '../../kube/backoff.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, KubeError } from '../../kube/error.ts';
import { secretPath } from '../../kube/paths.ts';
import { firstCertificates, nextCertificates } from './certificate-making.ts';
import { type CertificateStep, planCertificates } from './certificate-plan.ts';
import {
  type Certificates,
  holdingOf,
  readCertificateSecret,
  type SecretObject,
  secretWith,
  trustedBundle,
} from './certificate-secret.ts';
import { type ConfigurationRead, doesTrust, idsOf, readConfiguration, trustAuthorities } from './configuration.ts';
import type { WebhookMetrics } from './metrics.ts';

/** The part of the configuration that certificates need. */
export interface CertificatesConfig {
  /** The Service through which the API server calls; the certificate is for its name. */
  readonly service: { readonly namespace: string; readonly name: string };
  /** The Secret with the certificates, in the Service's namespace. */
  readonly secretName: string;
  /** The MutatingWebhookConfiguration. */
  readonly configurationName: string;
  readonly certificateDays: number;
  /** At least three times as long. */
  readonly authorityDays: number;
}

export interface CertificatesParts {
  readonly config: CertificatesConfig;
  readonly client: KubeClient;
  readonly log: Logger;
  readonly metrics: Pick<WebhookMetrics, 'certificateChanged' | 'certificateFailed'>;
  readonly nowMs?: () => number;
  readonly timings?: Partial<CertificatesTimings>;
}

export interface CertificatesTimings {
  /** Between two looks at Secret and configuration. */
  readonly checkMs: number;
  readonly backoff: BackoffRange;
  /** See CertificateWish. */
  readonly settleMs: number;
  /** So long what the configuration trusted is trusted still, where the Secret was lost: replicas show certificates of it. */
  readonly lostMs: number;
}

const TIMINGS: CertificatesTimings = {
  checkMs: 10_000,
  backoff: { minMs: 500, maxMs: 30_000 },
  settleMs: 300_000,
  lostMs: 3_600_000,
};

/** How the API server calls the Service, which is what it asks of the certificate. */
export const serviceHost = ({ namespace, name }: CertificatesConfig['service']): string => `${name}.${namespace}.svc`;

/** Keeps the webhook's certificates while this process leads: makes and renews them, and has the API server trust them. */
export function newWebhookCertificates(parts: CertificatesParts): { run(signal: AbortSignal): Promise<void> } {
  const keeper = new Keeper(parts);
  return { run: (signal) => keeper.run(signal) };
}

class Keeper {
  readonly #parts: CertificatesParts;
  readonly #timings: CertificatesTimings;
  readonly #nowMs: () => number;
  /** Made for a Secret that is not there, and not written yet: a try that failed goes on with them. */
  #unwritten: Certificates | undefined;
  /** Which authorities the configuration was seen with, and since when. */
  #trusted: { readonly ids: string; readonly sinceMs: number } | undefined;
  #isAwaited = false;
  #isForeign = false;

  constructor(parts: CertificatesParts) {
    this.#parts = parts;
    this.#timings = { ...TIMINGS, ...parts.timings };
    this.#nowMs = parts.nowMs ?? Date.now;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { log, metrics } = this.#parts;
    for (let failures = 0; !signal.aborted; ) {
      try {
        const isDone = await this.#look(signal);
        failures = 0;
        await pause(isDone ? this.#timings.checkMs : this.#timings.backoff.minMs, signal);
      } catch (err) {
        if (signal.aborted) return;
        failures += 1;
        const retryInMs = backoffMs(failures, this.#timings.backoff, err instanceof KubeError ? err : undefined);
        metrics.certificateFailed('leader');
        log.warn({ err, failures, retryInMs }, "the webhook's certificates could not be looked after");
        await pause(retryInMs, signal);
      }
    }
  }

  /** One look, and what is due. False: somebody else wrote meanwhile, so look again soon. Throws KubeError. */
  async #look(signal: AbortSignal): Promise<boolean> {
    const { client, config } = this.#parts;
    const { service, configurationName: name } = config;
    const secret = await this.#readSecret(signal);
    const configuration = await readConfiguration(client, { name, service }, signal);
    this.#await(configuration);
    const present = this.#present(secret);
    if (present === 'foreign') return true;
    const step = this.#plan(present, configuration);
    if (step === undefined) return present === undefined || this.#trust(present, configuration, signal);
    const wanted = await this.#made(present, step, configuration);
    // Another authority that signs at once is trusted first, so that nothing of it is shown before.
    const isTrustedFirst = step.authority === 'make';
    if (isTrustedFirst && !(await this.#trust(wanted, configuration, signal))) return false;
    if (!(await this.#writeSecret(secret, wanted, signal))) return false;
    this.#tell(step);
    return isTrustedFirst || this.#trust(wanted, configuration, signal);
  }

  async #readSecret(signal: AbortSignal): Promise<SecretObject | undefined> {
    const { client, config } = this.#parts;
    try {
      const path = secretPath(config.service.namespace, config.secretName);
      return await client.request<SecretObject>({ method: 'GET', path, signal });
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** Said once, as often as it goes. */
  #await(configuration: ConfigurationRead | undefined): void {
    const { log, config } = this.#parts;
    const isAwaited = configuration === undefined || configuration.own.length === 0;
    if (isAwaited && !this.#isAwaited)
      log.warn(
        { configuration: config.configurationName },
        'the API server is not told to call the webhook: no pod is restored by it',
      );
    this.#isAwaited = isAwaited;
    if (isAwaited) this.#trusted = undefined;
  }

  /** What the Secret holds. `foreign`: it is somebody else's, who looks after it. */
  #present(secret: SecretObject | undefined): Certificates | undefined | 'foreign' {
    const { config, log } = this.#parts;
    const read = readCertificateSecret(secret);
    const { secretName } = config;
    const isForeign = read.result === 'foreign';
    if (isForeign && !this.#isForeign)
      log.warn({ secret: secretName }, 'the Secret is not ours: it is shown as it is, and somebody else must renew it');
    this.#isForeign = isForeign;
    if (read.result === 'broken')
      log.warn({ secret: secretName, problem: read.problem }, 'the Secret is of no use, and is made anew');
    if (isForeign) return 'foreign';
    return read.result === 'read' ? read.certificates : undefined;
  }

  #plan(present: Certificates | undefined, configuration: ConfigurationRead | undefined): CertificateStep | undefined {
    const { config } = this.#parts;
    const wish = { ...config, name: serviceHost(config.service), settleMs: this.#timings.settleMs };
    if (present === undefined)
      return planCertificates(undefined, { wish, trustedSinceMs: undefined, nowMs: this.#nowMs() });
    const trusted = trustedBundle(present);
    const isTrusted = configuration !== undefined && doesTrust(configuration, trusted);
    const trustedSinceMs = isTrusted && this.#trusted?.ids === idsOf(trusted) ? this.#trusted.sinceMs : undefined;
    return planCertificates(holdingOf(present), { wish, trustedSinceMs, nowMs: this.#nowMs() });
  }

  async #made(
    present: Certificates | undefined,
    step: CertificateStep,
    configuration: ConfigurationRead | undefined,
  ): Promise<Certificates> {
    const { certificateDays, authorityDays, service } = this.#parts.config;
    const nowMs = this.#nowMs();
    const form = { name: serviceHost(service), certificateDays, authorityDays, nowMs };
    if (present !== undefined) return nextCertificates(present, step, form);
    const trusted = configuration?.own.flatMap((one) => one.trusted) ?? [];
    const former = [...new Map(trusted.map((one) => [one.id, one])).values()];
    this.#unwritten ??= await firstCertificates(form, { former, formerUntilMs: nowMs + this.#timings.lostMs });
    return this.#unwritten;
  }

  /** False: somebody else wrote it first. Of an error only its kind is told: the server may repeat what was to be written. */
  async #writeSecret(before: SecretObject | undefined, wanted: Certificates, signal: AbortSignal): Promise<boolean> {
    const { client, config } = this.#parts;
    const place = { namespace: config.service.namespace, name: config.secretName };
    const body = secretWith(place, before, wanted);
    const [method, path] =
      before === undefined
        ? (['POST', secretPath(place.namespace)] as const)
        : (['PUT', secretPath(place.namespace, place.name)] as const);
    try {
      await client.request({ method, path, body, signal });
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      const { status, reason, retryAfterMs } = error;
      const isOutdated = isConflict(error) || (method === 'PUT' && status === 404);
      if (!isOutdated)
        throw new KubeError(`${method} ${path}: ${status || 'no answer'} ${reason}`, { status, reason, retryAfterMs });
      this.#unwritten = undefined;
      return false;
    }
    this.#unwritten = undefined;
    return true;
  }

  #tell(step: CertificateStep): void {
    const { log, metrics, config } = this.#parts;
    const change = changeOf(step);
    metrics.certificateChanged(change);
    const fields = { secret: config.secretName, change, reason: step.why };
    log.info(fields, "the webhook's certificates were written");
  }

  async #trust(
    certificates: Certificates,
    configuration: ConfigurationRead | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { client, config, metrics, log } = this.#parts;
    const { configurationName: name } = config;
    const authorities = trustedBundle(certificates);
    if (configuration === undefined || configuration.own.length === 0) return true;
    if (!doesTrust(configuration, authorities)) {
      this.#trusted = undefined;
      if ((await trustAuthorities(client, name, { configuration, authorities, signal })) === 'changed') return false;
      metrics.certificateChanged('bundle');
      const fields = { configuration: name, authorities: authorities.length };
      log.info(fields, 'the API server is told which authorities to trust');
    }
    const ids = idsOf(authorities);
    if (this.#trusted?.ids !== ids) this.#trusted = { ids, sinceMs: this.#nowMs() };
    return true;
  }
}

function changeOf({ authority, issues }: CertificateStep): string {
  if (authority === 'make' || authority === 'promote') return 'authority-changed';
  if (authority === 'add-next') return 'authority-added';
  return issues ? 'issued' : 'trust-ended';
}
