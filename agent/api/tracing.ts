import type { HrTime, Span, Tracer } from '@opentelemetry/api';
import type { SpanExporter } from '@opentelemetry/sdk-trace-node';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';
import type { OperationView } from '../operations/operation.ts';
import { resultOf } from './metrics-operations.ts';

/** Spans that wait to be sent, at most; what comes after them is dropped. An operation has about fifteen. */
const QUEUE_SPANS = 2_048;
const BATCH_SPANS = 256;
const SEND_EVERY_MS = 2_000;
/** One batch, with its repetitions. */
const SEND_MS = 8_000;
/** How long the last spans may hold up the end of the agent. */
const STOP_MS = 3_000;
const MAX_TEXT = 256;
const TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/;

export interface TracingOptions {
  /** Base of an OTLP collector over HTTP, `http://host:4318`; `/v1/traces` is added. Empty: no traces. */
  readonly endpoint: string;
  readonly node: string;
  readonly version: string;
  readonly log: Logger;
  readonly sendEveryMs?: number;
}

export interface Tracing {
  /** Sends an ended operation as a trace: one span for it, one below for each of its steps. Returns at once and never throws. */
  operationEnded(view: OperationView): void;
  /** Sends what is left, within a few seconds. */
  stop(): Promise<void>;
}

type Sdk = Awaited<ReturnType<typeof loadSdk>>;

/**
 * Traces of ended operations, to a collector that speaks OTLP over HTTP with JSON. The library is loaded only where there is an endpoint.
 * A collector that is down costs dropped spans and one line in the log. OTEL_EXPORTER_OTLP_HEADERS is respected, for collectors that
 * want a token. Throws CONFIG_INVALID for an endpoint that is none.
 */
export async function startTracing(options: TracingOptions): Promise<Tracing> {
  if (options.endpoint === '') return { operationEnded: () => undefined, stop: () => Promise.resolve() };
  const url = tracesUrl(options.endpoint);
  const sdk = await loadSdk();
  const ids = idSource(new sdk.RandomIdGenerator());
  const exporter = tellOutages(new sdk.OTLPTraceExporter({ url: url.href, timeoutMillis: SEND_MS }), url, options.log);
  const processor = new sdk.BatchSpanProcessor(exporter, {
    maxQueueSize: QUEUE_SPANS,
    maxExportBatchSize: BATCH_SPANS,
    scheduledDelayMillis: options.sendEveryMs ?? SEND_EVERY_MS,
    exportTimeoutMillis: SEND_MS + 1_000,
  });
  const provider = new sdk.NodeTracerProvider({
    idGenerator: ids,
    sampler: new sdk.AlwaysOnSampler(),
    spanLimits: { attributeValueLengthLimit: MAX_TEXT },
    spanProcessors: [processor],
    resource: sdk.resourceFromAttributes({
      'service.name': 'snapshot-agent',
      'service.version': options.version,
      'k8s.node.name': options.node,
    }),
  });
  const tracer = provider.getTracer('snapshot-agent', options.version);
  return {
    operationEnded: (view) => {
      try {
        ids.next = TRACE_ID.test(view.traceId) ? view.traceId : undefined;
        traceOperation(sdk, tracer, view);
      } catch (err) {
        options.log.warn({ err, operationId: view.id }, 'operation was not traced');
      }
    },
    stop: async () => {
      if (!(await isDoneInTime(provider.shutdown()))) options.log.warn('the last traces were not sent');
    },
  };
}

/** In one place, so that an agent without an endpoint does not pay for it. */
async function loadSdk() {
  const [api, node, exporter, resources] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace-node'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
  ]);
  const { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } = api;
  const { AlwaysOnSampler, BatchSpanProcessor, NodeTracerProvider, RandomIdGenerator } = node;
  const { OTLPTraceExporter } = exporter;
  const { resourceFromAttributes } = resources;
  return {
    ...{ ROOT_CONTEXT, SpanKind, SpanStatusCode, trace },
    ...{ AlwaysOnSampler, BatchSpanProcessor, NodeTracerProvider, RandomIdGenerator },
    ...{ OTLPTraceExporter, resourceFromAttributes },
  };
}

function tracesUrl(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    // Without what may be a password.
    const shown = url === undefined ? endpoint : `${url.protocol}//${url.host}`;
    throw new SnapshotError('CONFIG_INVALID', `the endpoint for traces is not an http or https address: ${shown}`);
  }
  if (!url.pathname.endsWith('/v1/traces')) url.pathname = `${url.pathname.replace(/\/$/, '')}/v1/traces`;
  return url;
}

/** The SDK asks for a trace id whenever a span has no parent: it gets the operation's own. */
function idSource(random: { generateTraceId(): string; generateSpanId(): string }) {
  const source = {
    next: undefined as string | undefined,
    generateTraceId: () => source.next ?? random.generateTraceId(),
    generateSpanId: () => random.generateSpanId(),
  };
  return source;
}

/** Says once when a collector stops taking spans, and once when it takes them again. */
function tellOutages(exporter: SpanExporter, url: URL, log: Logger): SpanExporter {
  // Without what may be a password.
  const endpoint = `${url.origin}${url.pathname}`;
  let isDown = false;
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        const failed = result.code !== 0;
        if (failed && !isDown) log.warn({ endpoint, problem: result.error?.message }, 'traces cannot be sent');
        if (!failed && isDown) log.info({ endpoint }, 'traces are sent again');
        isDown = failed;
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

/** The steps lie one after the other; what is unaccounted is the gap after the last. */
function traceOperation(sdk: Sdk, tracer: Tracer, view: OperationView): void {
  const sumMs = view.timings.reduce((sum, { seconds }) => sum + seconds * 1000, 0);
  const endMs = view.endedAtMs ?? (view.startedAtMs ?? view.createdAtMs) + sumMs;
  // The first steps look at the container, before the operation counts as started.
  const startMs = Math.min(view.startedAtMs ?? view.createdAtMs, endMs - sumMs);
  const root = tracer.startSpan(
    view.kind,
    { root: true, kind: sdk.SpanKind.INTERNAL, startTime: at(startMs), attributes: attributesOf(view) },
    sdk.ROOT_CONTEXT,
  );
  const below = sdk.trace.setSpan(sdk.ROOT_CONTEXT, root);
  let stepMs = startMs;
  for (const { step, seconds } of view.timings) {
    if (step === 'unaccounted') continue;
    const span = tracer.startSpan(
      step,
      { startTime: at(stepMs), attributes: { 'snapshot.operation': view.kind } },
      below,
    );
    stepMs += seconds * 1000;
    if (step === view.step) markFailed(sdk, span, view);
    span.end(at(stepMs));
  }
  markFailed(sdk, root, view);
  root.end(at(Math.max(endMs, stepMs)));
}

function attributesOf(view: OperationView): Record<string, string | number> {
  const { target, timings, failure } = view;
  return {
    'k8s.namespace.name': target.namespace,
    'k8s.pod.name': target.pod,
    'k8s.pod.uid': target.podUid,
    'k8s.container.name': target.container,
    'snapshot.operation': view.kind,
    'snapshot.operation.id': view.id,
    'snapshot.origin': view.origin,
    'snapshot.checkpoint.id': view.checkpointId,
    'snapshot.checkpoint.version': view.version,
    'snapshot.result': resultOf(view) ?? view.state,
    'snapshot.unaccounted_seconds': timings.find(({ step }) => step === 'unaccounted')?.seconds ?? 0,
    ...(failure !== undefined && { 'error.type': failure.code }),
    // It was sent under another one: this is how it is found all the same.
    ...(!TRACE_ID.test(view.traceId) && { 'snapshot.trace_id': view.traceId }),
  };
}

function markFailed(sdk: Sdk, span: Span, { failure }: OperationView): void {
  if (failure === undefined) return;
  const message = `${failure.code}: ${failure.message}`.slice(0, MAX_TEXT);
  span.setStatus({ code: sdk.SpanStatusCode.ERROR, message });
}

/** Seconds and nanoseconds: a plain number would be taken for one since the start of the process where it is small enough. */
function at(ms: number): HrTime {
  const seconds = Math.floor(ms / 1000);
  return [seconds, Math.round((ms - seconds * 1000) * 1e6)];
}

/** Whether it ended within the time for it. What the collector refused is lost; that has been said. */
async function isDoneInTime(work: Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), STOP_MS);
  });
  const done = work.catch(() => undefined).then(() => true);
  try {
    return await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}
