import { describe, expect, it } from 'vitest';
import { watchedOperations } from './metrics-operations.ts';

describe('events that other rooms tell', () => {
  it.each([
    ['a reconnect', 'watch_reconnects_total{source="kubernetes",reason="too-old"}'],
    ['a refused request', 'kubernetes_request_failures_total{verb="patch",code="409"}'],
    ['a request without an answer', 'kubernetes_request_failures_total{verb="watch",code="no-answer"}'],
    ['a server that fails', 'kubernetes_request_failures_total{verb="list",code="5xx"}'],
    ['another refusal', 'kubernetes_request_failures_total{verb="get",code="4xx"}'],
    ['a status that is no failure', 'kubernetes_request_failures_total{verb="other",code="other"}'],
    ['an annotation written again', 'annotations_redriven_total'],
    ['a lease', 'lease_events_total{kind="lost"}'],
    ['a configuration that was read again', 'config_reloads_total{result="needs-restart"}'],
    ['a deletion', 'gc_deleted_total{reason="ttl"}'],
    ['a deletion that failed', 'gc_failures_total'],
    ['a call', 'grpc_calls_total{method="Checkpoint",code="ABORTED"}'],
    ['a call of another service', 'grpc_calls_total{method="Health.Check",code="OK"}'],
  ])('count %s', async (_, name) => {
    const { metrics, samples } = watchedOperations();
    const { events } = metrics;
    expect((await samples()).get(name) ?? 0).toBe(0);
    events.watchReconnected('kubernetes', 'too-old');
    events.requestFailed('patch', 409);
    events.requestFailed('watch', undefined);
    events.requestFailed('list', 503);
    events.requestFailed('get', 418);
    events.requestFailed('connect', 101);
    events.annotationRedriven();
    events.leaseChanged('lost');
    events.configReloaded('needs-restart');
    events.artifactCollected('ttl', 4096);
    events.collectionFailed();
    events.callEnded({ method: 'Checkpoint', code: 'ABORTED', seconds: 0.1 });
    events.callEnded({ method: 'Health.Check', code: 'OK', seconds: 0.1 });
    expect((await samples()).get(name)).toBe(1);
  });

  it('show the volume as last seen, and when', async () => {
    const { metrics, samples } = watchedOperations();
    const beforeSeconds = Date.now() / 1000;
    metrics.events.storageSeen({ freeBytes: 10, totalBytes: 100 });
    metrics.events.storageSeen({ freeBytes: 0, totalBytes: 100 });
    metrics.events.artifactsSeen({ count: 3, bytes: 90 });
    const seen = await samples();
    const names = ['storage_free_bytes', 'storage_total_bytes', 'artifacts', 'artifact_bytes'];
    expect(names.map((name) => seen.get(name))).toEqual([0, 100, 3, 90]);
    expect(seen.get('storage_checked_timestamp_seconds')).toBeGreaterThanOrEqual(beforeSeconds);
  });

  it('show what the node can and what it cannot, as last seen', async () => {
    const { metrics, samples } = watchedOperations();
    const seen = (name: string, available: boolean) => ({ name, available, detail: '' });
    metrics.events.capabilitiesSeen([seen('criu', true), seen('runtime-events', false)]);
    metrics.events.capabilitiesSeen([seen('runtime-events', true)]);
    const after = await samples();
    expect(after.get('capability{name="criu"}')).toBe(1);
    expect(after.get('capability{name="runtime-events"}')).toBe(1);
    metrics.events.capabilitiesSeen([seen('criu', false)]);
    expect((await samples()).get('capability{name="criu"}')).toBe(0);
  });

  it('sum what was deleted, by reason', async () => {
    const { metrics, samples } = watchedOperations();
    metrics.events.artifactCollected('ttl', 10);
    metrics.events.artifactCollected('ttl', 5);
    metrics.events.artifactCollected('watermark', 7);
    const seen = await samples();
    expect(seen.get('gc_deleted_bytes_total{reason="ttl"}')).toBe(15);
    expect(seen.get('gc_deleted_bytes_total{reason="watermark"}')).toBe(7);
  });

  it('measure how long an event waited, and how long a call took', async () => {
    const { metrics, samples } = watchedOperations();
    metrics.events.eventHandled(0.02);
    metrics.events.callEnded({ method: 'WatchOperation', code: 'OK', seconds: 30 });
    const seen = await samples();
    expect([seen.get('event_latency_seconds_count'), seen.get('event_latency_seconds_sum')]).toEqual([1, 0.02]);
    expect(seen.get('grpc_call_duration_seconds_sum{method="WatchOperation"}')).toBe(30);
  });

  it('never throw for a clock that was set back', async () => {
    const { metrics, samples } = watchedOperations();
    metrics.events.eventHandled(-3);
    metrics.events.callEnded({ method: 'Restore', code: 'OK', seconds: Number.NaN });
    metrics.events.artifactCollected('ttl', -1);
    const seen = await samples();
    expect(seen.get('event_latency_seconds_sum')).toBe(0);
    expect(seen.get('grpc_call_duration_seconds_sum{method="Restore"}')).toBe(0);
    expect(seen.get('gc_deleted_bytes_total{reason="ttl"}')).toBe(0);
  });

  it('count values that nobody expects as other', async () => {
    const { metrics, samples } = watchedOperations();
    for (let index = 0; index < 100; index += 1) {
      metrics.events.watchReconnected('kubernetes', `why-${index}`);
      metrics.events.callEnded({ method: `M${index}`, code: `${index}`, seconds: 0 });
      metrics.events.leaseChanged(`kind-${index}`);
      metrics.events.artifactCollected(`rule-${index}`, 1);
      metrics.events.capabilitiesSeen([{ name: `can-${index}`, available: true, detail: '' }]);
    }
    const seen = [...(await samples()).keys()];
    const series = (name: string) => seen.filter((key) => key.startsWith(`${name}{`)).length;
    expect(series('watch_reconnects_total')).toBe(25);
    expect(series('grpc_calls_total')).toBe(41);
    expect(series('lease_events_total')).toBe(13);
    expect(series('gc_deleted_total')).toBe(13);
    expect(series('capability')).toBe(41);
  });
});
