import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { SnapshotError } from '../../agent/errors.ts';
import type { OperationView } from '../../agent/operations/operation.ts';
import { operation, perform } from '../unit/api/metrics-operations.ts';
import {
  DONE,
  named,
  nanoseconds,
  refuse,
  startBesideRegistry,
  startCollector,
  TIMINGS,
  values,
} from './tracing-collector.ts';

const STATUS_ERROR = 2;

describe('the trace of an operation', () => {
  it("is one span with one below for each step, under the operation's own trace id", async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    const handle = registry.open(operation());
    perform(handle, TIMINGS);
    handle.ended(DONE);
    await tracing.stop();

    const spans = collector.spans();
    expect(spans.map(({ name }) => name).sort()).toEqual(['checkpoint', 'criu-dump', 'resolve', 'stage']);
    const root = named(spans, 'checkpoint');
    expect(root.parentSpanId ?? '').toBe('');
    expect(new Set(spans.map(({ traceId }) => traceId))).toEqual(new Set([handle.view.traceId]));
    expect(new Set(spans.map(({ spanId }) => spanId)).size).toBe(spans.length);
    for (const name of ['resolve', 'stage', 'criu-dump']) expect(named(spans, name).parentSpanId).toBe(root.spanId);
  });

  it('has steps that lie one after the other and sum, with what is unaccounted, to the operation', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    const handle = registry.open(operation());
    perform(handle, TIMINGS);
    handle.ended(DONE);
    await tracing.stop();

    const spans = collector.spans();
    const root = named(spans, 'checkpoint');
    const steps = ['resolve', 'stage', 'criu-dump'].map((name) => named(spans, name));
    expect(steps.map(nanoseconds)).toEqual([0.125e9, 0.25e9, 2e9]);
    expect(steps.map(({ startTimeUnixNano }) => startTimeUnixNano)).toEqual([
      root.startTimeUnixNano,
      ...steps.slice(0, -1).map(({ endTimeUnixNano }) => endTimeUnixNano),
    ]);
    expect(values(root)['snapshot.unaccounted_seconds']).toBe(0.125);
    expect(nanoseconds(root)).toBe(2.5e9);
    expect(BigInt(root.endTimeUnixNano)).toBe(BigInt(handle.view.endedAtMs ?? 0) * 1_000_000n);
  });

  it('says what it was done to, where, and by which agent', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    registry.open(operation({ kind: 'restore', origin: 'grpc' })).ended({ ...DONE, result: 'succeeded' });
    await tracing.stop();

    expect(values(named(collector.spans(), 'restore'))).toEqual({
      'k8s.namespace.name': 'team',
      'k8s.pod.name': 'worker',
      'k8s.pod.uid': 'uid-1',
      'k8s.container.name': 'main',
      'snapshot.operation': 'restore',
      'snapshot.operation.id': 'op-1',
      'snapshot.origin': 'grpc',
      'snapshot.checkpoint.id': 'warm',
      'snapshot.checkpoint.version': '1',
      'snapshot.result': 'succeeded',
      'snapshot.unaccounted_seconds': 0.125,
    });
    const [resource] = collector.received[0]?.request.resourceSpans ?? [];
    expect(resource && values(resource.resource)).toEqual({
      'service.name': 'snapshot-agent',
      'service.version': '1.2.3',
      'k8s.node.name': 'node-1',
    });
  });

  it('marks the step that failed and the operation, and no other step', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    const handle = registry.open(operation());
    perform(handle, TIMINGS);
    const failure = new SnapshotError('DUMP_FAILED', `criu said no ${'x'.repeat(1_000)}`);
    handle.ended({ ...DONE, result: 'failed', failure, failedStep: 'criu-dump' });
    await tracing.stop();

    const spans = collector.spans();
    for (const name of ['checkpoint', 'criu-dump']) {
      const { status } = named(spans, name);
      expect(status.code).toBe(STATUS_ERROR);
      expect(status.message).toMatch(/^DUMP_FAILED: criu said no x+$/);
      expect(status.message?.length).toBe(256);
    }
    expect(values(named(spans, 'checkpoint'))).toMatchObject({
      'error.type': 'DUMP_FAILED',
      'snapshot.result': 'failed',
    });
    for (const name of ['resolve', 'stage']) expect(named(spans, name).status.code).not.toBe(STATUS_ERROR);
  });

  it('is there for one that was refused before its first step, and for one of unknown outcome', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    const refused = registry.open(operation());
    const failure = new SnapshotError('CHECKPOINT_REFUSED', 'io_uring');
    refused.ended({ result: 'refused', failure, failedStep: 'reach', timings: [], figures: {} });
    const { view } = registry.open(operation({ id: 'op-2', kind: 'restore' }));
    tracing.operationEnded({ ...view, state: 'unknown', endedAtMs: view.createdAtMs + 5 });
    await tracing.stop();

    const spans = collector.spans();
    expect(values(named(spans, 'checkpoint'))['snapshot.result']).toBe('refused');
    expect(values(named(spans, 'restore'))['snapshot.result']).toBe('unknown');
    expect(nanoseconds(named(spans, 'restore'))).toBe(5e6);
  });

  it.each(['', 'not-hexadecimal', '0'.repeat(32), 'ABCDEF00112233445566778899AABBCC'])(
    'whose trace id is %j gets another one, and says so',
    async (traceId) => {
      const collector = await startCollector();
      const { tracing, registry } = await startBesideRegistry(collector.url);
      registry.open(operation({ traceId })).ended(DONE);
      // The one before must not leave its id behind.
      registry.open(operation({ id: 'op-2', kind: 'restore' })).ended(DONE);
      await tracing.stop();

      const spans = collector.spans();
      const root = named(spans, 'checkpoint');
      expect(root.traceId).toMatch(/^[0-9a-f]{32}$/);
      expect(root.traceId).not.toBe(traceId);
      expect(values(root)['snapshot.trace_id']).toBe(traceId);
      expect(named(spans, 'restore').traceId).toBe(operation().traceId);
    },
  );

  it('is sent soon, not only at the end of the agent', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url, { sendEveryMs: 20 });
    onTestFinished(() => tracing.stop());
    registry.open(operation()).ended(DONE);
    await expect.poll(() => collector.spans().length).toBe(4);
  });
});

describe('the endpoint', () => {
  it.each([
    ['', '/v1/traces'],
    ['/', '/v1/traces'],
    ['/otlp', '/otlp/v1/traces'],
    ['/otlp/', '/otlp/v1/traces'],
    ['/v1/traces', '/v1/traces'],
  ])('with the path %j is sent to %s, as JSON', async (base, path) => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(`${collector.url}${base}`);
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(collector.received[0]?.path).toBe(path);
    expect(collector.received[0]?.headers['content-type']).toBe('application/json');
  });

  it('is sent the headers of the environment', async () => {
    vi.stubEnv('OTEL_EXPORTER_OTLP_HEADERS', 'authorization=Bearer%20token');
    onTestFinished(() => void vi.unstubAllEnvs());
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(collector.received[0]?.headers.authorization).toBe('Bearer token');
  });

  it('that is empty traces nothing', async () => {
    const { tracing, registry, lines } = await startBesideRegistry('');
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(lines).toEqual([]);
  });

  it.each(['collector:4318', 'ftp://collector', '/v1/traces', 'http://'])('cannot be %s', async (endpoint) => {
    await expect(startBesideRegistry(endpoint)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('the endpoint for traces is not an http or https address'),
    });
  });

  it('never shows its password', async () => {
    await expect(startBesideRegistry('ftp://user:secret@collector')).rejects.not.toMatchObject({
      message: expect.stringContaining('secret'),
    });
    const collector = await startCollector(refuse);
    const { tracing, registry, lines, said } = await startBesideRegistry(collector.url.replace('//', '//user:secret@'));
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(said('traces cannot be sent')).toHaveLength(1);
    expect(JSON.stringify(lines)).not.toContain('secret');
  });
});

it('an operation that cannot be traced is told in the log and harms nobody', async () => {
  const collector = await startCollector();
  const { tracing, registry, said } = await startBesideRegistry(collector.url);
  const { view } = registry.open(operation());
  const broken = { ...view, timings: undefined } as unknown as OperationView;
  expect(() => tracing.operationEnded(broken)).not.toThrow();
  await tracing.stop();
  expect(said('operation was not traced')).toHaveLength(1);
});
