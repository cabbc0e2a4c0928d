import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import { startTracing, type TracingOptions } from '../../agent/api/tracing.ts';
import type { Outcome } from '../../agent/operations/context.ts';
import { FINAL_STATES } from '../../agent/operations/operation.ts';
import { newRegistry } from '../../agent/operations/registry.ts';
import { memoryLog } from '../fakes/log.ts';

export interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[];
  readonly status: { readonly code: number; readonly message?: string };
}

interface OtlpRequest {
  readonly resourceSpans: readonly {
    readonly resource: Pick<OtlpSpan, 'attributes'>;
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[];
  }[];
}

interface Received {
  readonly path: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly request: OtlpRequest;
}

export const TIMINGS = [
  { step: 'resolve', seconds: 0.125 },
  { step: 'stage', seconds: 0.25 },
  { step: 'criu-dump', seconds: 2 },
  { step: 'unaccounted', seconds: 0.125 },
];
export const DONE: Outcome = { result: 'succeeded', timings: TIMINGS, figures: {} };

/** What a collector answers that took everything. */
export const acknowledge = (response: ServerResponse) => {
  response.setHeader('Content-Type', 'application/json');
  response.end('{}');
};

/** What a collector answers that takes nothing. Not tried again. */
export const refuse = (response: ServerResponse) => {
  response.statusCode = 400;
  response.end();
};

/** A collector: what it was sent, and where it listens. `answer` may also leave a request unanswered. */
export async function startCollector(answer: (response: ServerResponse) => void = acknowledge, port = 0) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      received.push({ path: request.url, headers: request.headers, request: JSON.parse(body) as OtlpRequest });
      answer(response);
    });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const stop = () => {
    server.closeAllConnections();
    return new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
  };
  onTestFinished(stop);
  const spans = () =>
    received.flatMap(({ request }) =>
      request.resourceSpans.flatMap((one) => one.scopeSpans.flatMap((scope) => scope.spans)),
    );
  const found = (server.address() as AddressInfo).port;
  return { received, spans, stop, port: found, url: `http://127.0.0.1:${found}` };
}

/** Tracing beside a real registry of operations: what ends there is traced, as in the agent. */
export async function startBesideRegistry(endpoint: string, changes: Partial<TracingOptions> = {}) {
  const { log, lines, said } = memoryLog();
  const tracing = await startTracing({ endpoint, node: 'node-1', version: '1.2.3', log, ...changes });
  const registry = newRegistry();
  registry.onChange(({ view }) => {
    if (FINAL_STATES.has(view.state)) tracing.operationEnded(view);
  });
  return { tracing, registry, lines, said };
}

/** Attributes as a plain object. */
export const values = ({ attributes }: Pick<OtlpSpan, 'attributes'>) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
/** How long it lasted. */
export const nanoseconds = (span: OtlpSpan) => Number(BigInt(span.endTimeUnixNano) - BigInt(span.startTimeUnixNano));
/** The span of that name; there must be one. */
export const named = (spans: readonly OtlpSpan[], name: string) => {
  const span = spans.find((one) => one.name === name);
  if (span === undefined) throw new Error(`no span ${name} among ${spans.map((one) => one.name).join()}`);
  return span;
};
