import type { Logger } from 'pino';
import { VERSION } from '../contract/version.ts';
import { startGrpc } from './api/grpc.ts';
import { startHttp } from './api/http.ts';
import type { Metrics } from './api/metrics.ts';
import { startTracing } from './api/tracing.ts';
import type { LiveConfig } from './config.ts';
import { FINAL_STATES, type Operations } from './operations/operation.ts';
import type { AgentService } from './operations/service.ts';

/** Closes a door; resolves when nobody is in it any more. */
export type Close = () => Promise<void>;

export interface DoorInput {
  readonly live: LiveConfig;
  readonly log: Logger;
  /** Why the agent is not ready; empty where it is. */
  readonly readiness: () => readonly string[];
  readonly metrics: Metrics;
}

/** Metrics and health over HTTP. */
export async function openHttp({ live, log, readiness, metrics }: DoorInput): Promise<Close> {
  const { address } = live.current().http;
  if (address === '') return () => Promise.resolve();
  const endpoint = await startHttp({ address, metrics: metrics.registry, health: { readiness }, log });
  log.info({ port: endpoint.port }, 'metrics and health are served');
  return () => endpoint.stop();
}

/** Traces of the operations that end, where somebody collects them. */
export async function openTracing({ live, log }: DoorInput, operations: Operations): Promise<Close> {
  const { nodeName, tracing } = live.current();
  const sender = await startTracing({ endpoint: tracing.endpoint, node: nodeName, version: VERSION, log });
  operations.onChange(({ view }) => {
    if (FINAL_STATES.has(view.state)) sender.operationEnded(view);
  });
  return () => sender.stop();
}

/** The service over gRPC: a unix socket, and TCP with mutual TLS where it is configured. */
export async function openGrpc(
  { live, log, readiness, metrics }: DoorInput,
  { service, operations }: { readonly service: AgentService; readonly operations: Operations },
): Promise<Close> {
  const { api } = live.current();
  if (api.socketPath === '' && api.listen === '') return () => Promise.resolve();
  const { certificateFile, keyFile, clientCaFile } = api.tls;
  const endpoint = await startGrpc({
    service,
    operations,
    log,
    readiness,
    callEnded: metrics.events.callEnded,
    config: {
      socketPath: api.socketPath,
      tcp: api.listen === '' ? undefined : { address: api.listen, certificateFile, keyFile, clientCaFile },
      clients: () => live.current().api.clients,
      limits: api.limits,
      reflection: api.reflection,
      closeGraceMs: api.closeGraceSeconds * 1000,
    },
  });
  const { certificates } = endpoint;
  if (certificates !== undefined)
    metrics.readAtScrape({
      certificateExpiriesMs: certificates.expiriesMs,
      areCertificatesStale: certificates.isStale,
    });
  log.info({ ...endpoint.addresses }, 'gRPC is served');
  return () => endpoint.close();
}
