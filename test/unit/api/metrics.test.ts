import { describe, expect, it } from 'vitest';
import { newMetrics } from '../../../agent/api/metrics.ts';
import { type Reason, SnapshotError } from '../../../agent/errors.ts';
import type { Outcome } from '../../../agent/operations/context.ts';
import type { OperationView } from '../../../agent/operations/operation.ts';
import { perform, watchedOperations } from './metrics-operations.ts';

const TIMINGS = [
  { step: 'resolve', seconds: 0.25 },
  { step: 'criu-dump', seconds: 2 },
  { step: 'finalize', seconds: 1 },
  { step: 'unaccounted', seconds: 0.5 },
];
const ended = (changes: Partial<Outcome> = {}): Outcome => ({
  result: 'succeeded',
  timings: TIMINGS,
  figures: {},
  ...changes,
});
const reason = (code: string): Reason => ({ code, message: '', found: '', wanted: '', advice: '' });
const failed = (failure: SnapshotError, changes: Partial<Outcome> = {}) =>
  ended({ result: 'failed', failure, failedStep: 'criu-dump', ...changes });

describe('an operation that ended', () => {
  it('is counted by its kind and result', async () => {
    const { open, samples } = watchedOperations();
    open().ended(ended());
    open({ kind: 'restore' }).ended(ended());
    open({ kind: 'restore' }).ended(ended());
    const seen = await samples();
    expect(seen.get('operations_total{operation="checkpoint",result="succeeded",code=""}')).toBe(1);
    expect(seen.get('operations_total{operation="restore",result="succeeded",code=""}')).toBe(2);
  });

  it('is counted as adopted where the artifact was there already', async () => {
    const { open, samples } = watchedOperations();
    open().ended(ended({ result: 'adopted' }));
    const seen = await samples();
    expect(seen.get('operations_total{operation="checkpoint",result="adopted",code=""}')).toBe(1);
    expect(seen.get('operations_total{operation="checkpoint",result="succeeded",code=""}')).toBe(0);
  });

  it('is counted with the code of its failure', async () => {
    const { open, samples } = watchedOperations();
    open().ended(failed(new SnapshotError('DUMP_FAILED', 'no')));
    expect((await samples()).get('operations_total{operation="checkpoint",result="failed",code="DUMP_FAILED"}')).toBe(
      1,
    );
  });

  it('has a duration that is the sum of its steps, unaccounted time included', async () => {
    const { open, samples } = watchedOperations();
    const handle = open();
    perform(handle, TIMINGS);
    handle.ended(ended());
    const seen = await samples();
    const steps = TIMINGS.map(({ step }) =>
      seen.get(`step_duration_seconds_sum{operation="checkpoint",step="${step}"}`),
    );
    expect(steps).toEqual(TIMINGS.map(({ seconds }) => seconds));
    expect(seen.get('operation_duration_seconds_sum{operation="checkpoint",result="succeeded"}')).toBe(3.75);
    expect(seen.get('operation_duration_seconds_count{operation="checkpoint",result="succeeded"}')).toBe(1);
  });

  it('that failed before its first step has the time since it was started', async () => {
    const { open, pass, samples } = watchedOperations();
    const handle = open();
    handle.started();
    pass(7);
    handle.ended(failed(new SnapshotError('CONTAINER_GONE', 'gone'), { timings: [] }));
    expect((await samples()).get('operation_duration_seconds_sum{operation="checkpoint",result="failed"}')).toBe(7);
  });

  it('of unknown outcome is counted on its own', async () => {
    const { metrics, open, samples } = watchedOperations();
    const { view } = open({ kind: 'restore' });
    const unknown: OperationView = { ...view, state: 'unknown', endedAtMs: view.createdAtMs };
    metrics.operations.changed({ view: unknown, ended: undefined });
    const seen = await samples();
    expect(seen.get('outcome_unknown_total')).toBe(1);
    expect(seen.get('operations_total{operation="restore",result="unknown",code=""}')).toBe(1);
  });
});

describe('a refusal', () => {
  it('counts once for each different reason', async () => {
    const { open, samples } = watchedOperations();
    const reasons = [reason('IO_URING'), reason('VOLUME_SPACE'), reason('IO_URING')];
    const failure = new SnapshotError('CHECKPOINT_REFUSED', 'no', { reasons });
    open().ended(ended({ result: 'refused', failure }));
    const seen = await samples();
    expect(seen.get('refusals_total{reason="IO_URING"}')).toBe(1);
    expect(seen.get('refusals_total{reason="VOLUME_SPACE"}')).toBe(1);
    expect(seen.has('refusals_total{reason="CHECKPOINT_REFUSED"}')).toBe(false);
  });

  it('without reasons counts under its code', async () => {
    const { open, samples } = watchedOperations();
    open().ended(ended({ result: 'refused', failure: new SnapshotError('ARTIFACT_FOREIGN', 'not yours') }));
    expect((await samples()).get('refusals_total{reason="ARTIFACT_FOREIGN"}')).toBe(1);
  });

  it('is not what a failure counts as', async () => {
    const { open, samples } = watchedOperations();
    open().ended(failed(new SnapshotError('DUMP_FAILED', 'no')));
    expect([...(await samples()).keys()].filter((name) => name.startsWith('refusals_total'))).toEqual([]);
  });

  it.each(['SIGNATURE_MISSING', 'KEY_UNKNOWN', 'SIGNATURE_WRONG'])(
    'for its signature (%s) is counted apart',
    async (code) => {
      const { open, samples } = watchedOperations();
      const name = `signature_refusals_total{reason="${code}"}`;
      expect((await samples()).get(name)).toBe(0);
      const failure = new SnapshotError('ARTIFACT_UNSIGNED', 'no', { reasons: [reason(code)] });
      open({ kind: 'restore' }).ended(ended({ result: 'refused', failure }));
      const seen = await samples();
      expect([seen.get(name), seen.get(`refusals_total{reason="${code}"}`)]).toEqual([1, 1]);
    },
  );
});

describe('operations that are not over', () => {
  it('show as queued, waiting and running, and then no more', async () => {
    const { open, samples } = watchedOperations();
    const now = async () => {
      const seen = await samples();
      const names = [
        'queue_depth',
        'operations_waiting{operation="restore"}',
        'operations_in_flight{operation="restore"}',
      ];
      return names.map((name) => seen.get(name));
    };
    const handle = open({ kind: 'restore' });
    expect(await now()).toEqual([1, 0, 0]);
    handle.waiting('the artifact is not there yet');
    expect(await now()).toEqual([0, 1, 0]);
    handle.started();
    expect(await now()).toEqual([0, 0, 1]);
    handle.ended(ended());
    expect(await now()).toEqual([0, 0, 0]);
  });

  it('tell how long they were queued, once', async () => {
    const { open, pass, samples } = watchedOperations();
    const handle = open();
    pass(3);
    handle.waiting('it is not ready');
    pass(4);
    handle.started();
    const seen = await samples();
    expect([seen.get('queue_wait_seconds_sum'), seen.get('queue_wait_seconds_count')]).toEqual([3, 1]);
  });

  it('are stuck when one step is past the deadline, whatever progress it reports', async () => {
    const { metrics, open, pass, samples } = watchedOperations();
    const stuck = async () => (await samples()).get('stuck_operations{operation="checkpoint"}');
    expect(await stuck()).toBeUndefined();
    metrics.readAtScrape({ stepDeadlineSeconds: (kind) => (kind === 'checkpoint' ? 60 : 600) });
    const handle = open();
    open({ kind: 'restore' }).started();
    handle.started();
    handle.step('stage', 'undone');
    pass(50);
    handle.step('criu-dump', 'undone');
    pass(50);
    expect(await stuck()).toBe(0);
    handle.progress(1, 2);
    pass(11);
    expect(await stuck()).toBe(1);
    expect((await samples()).get('stuck_operations{operation="restore"}')).toBe(0);
    handle.ended(ended());
    expect(await stuck()).toBe(0);
  });

  it('are not stuck while they wait', async () => {
    const { metrics, open, pass, samples } = watchedOperations();
    metrics.readAtScrape({ stepDeadlineSeconds: () => 60 });
    open().waiting('the worker is not ready yet');
    pass(3600);
    expect((await samples()).get('stuck_operations{operation="checkpoint"}')).toBe(0);
  });
});

describe('labels', () => {
  it('stay bounded however many different values there are', async () => {
    const { open, samples } = watchedOperations();
    for (let index = 0; index < 300; index += 1) {
      const failure = new SnapshotError('RESTORE_REFUSED', 'no', { reasons: [reason(`MADE_UP_${index}`)] });
      const timings = [{ step: `step-${index}`, seconds: 1 }];
      open({ kind: 'restore' }).ended(ended({ result: 'refused', failure, timings }));
    }
    const seen = await samples();
    const names = [...seen.keys()];
    expect(names.filter((name) => name.startsWith('refusals_total'))).toHaveLength(201);
    expect(seen.get('refusals_total{reason="other"}')).toBe(100);
    expect(names.filter((name) => name.startsWith('step_duration_seconds_count'))).toHaveLength(65);
    expect(seen.get('step_duration_seconds_count{operation="restore",step="other"}')).toBe(236);
  });

  it.each(['lower_case', 'WITH SPACE', 'a"quote', ''])('do not take %j for a reason', async (code) => {
    const { open, samples } = watchedOperations();
    const failure = new SnapshotError('RESTORE_REFUSED', 'no', { reasons: [reason(code)] });
    open().ended(ended({ result: 'refused', failure }));
    expect((await samples()).get('refusals_total{reason="other"}')).toBe(1);
  });

  it('never name a pod, a container, a namespace or an artifact', async () => {
    const { metrics, open } = watchedOperations();
    const target = {
      namespace: 'secret-ns',
      pod: 'secret-pod',
      podUid: 'secret-uid',
      container: 'secret-c',
      containerId: 'secret-id',
    };
    const handle = open({
      target,
      checkpointId: 'secret-artifact',
      version: 'secret-version',
      traceId: 'secret-trace',
    });
    perform(handle, TIMINGS);
    handle.ended(failed(new SnapshotError('DUMP_FAILED', 'secret-message')));
    const text = await metrics.registry.metrics();
    expect(text).toContain('code="DUMP_FAILED"');
    expect(text).not.toContain('secret');
  });
});

describe('what is read at a scrape', () => {
  it('has no value before its source is there', async () => {
    const { samples } = watchedOperations();
    const seen = await samples();
    for (const name of [
      'quarantined_targets',
      'watch_contact_age_seconds',
      'watched_pods',
      'storage_free_bytes',
      'ready',
      'certificates_stale',
      'record_keys_stale',
      'certificate_expiry_timestamp_seconds{which="server"}',
    ])
      expect(seen.has(name), name).toBe(false);
  });

  it('comes from sources that are given one after the other', async () => {
    const { metrics, samples } = watchedOperations();
    let pods = 3;
    metrics.readAtScrape({ watchedPods: () => pods, watchContactAgeSeconds: () => 1.5 });
    metrics.readAtScrape({ quarantinedTargets: () => 2, isReady: () => pods > 3 });
    expect((await samples()).get('ready')).toBe(0);
    pods = 4;
    const seen = await samples();
    const names = ['watched_pods', 'watch_contact_age_seconds', 'quarantined_targets', 'ready'];
    expect(names.map((name) => seen.get(name))).toEqual([4, 1.5, 2, 1]);
  });

  it('says until when certificates are good, and whether files that changed cannot be used', async () => {
    const { metrics, samples } = watchedOperations();
    let isStale = true;
    metrics.readAtScrape({
      certificateExpiriesMs: () => ({ server: 1_700_000_000_000, client_ca: 1_800_000_000_000 }),
      areCertificatesStale: () => !isStale,
      areRecordKeysStale: () => isStale,
    });
    const seen = await samples();
    const expiry = (which: string) => seen.get(`certificate_expiry_timestamp_seconds{which="${which}"}`);
    expect([expiry('server'), expiry('client_ca')]).toEqual([1_700_000_000, 1_800_000_000]);
    expect([seen.get('certificates_stale'), seen.get('record_keys_stale')]).toEqual([0, 1]);
    isStale = false;
    const after = await samples();
    expect([after.get('certificates_stale'), after.get('record_keys_stale')]).toEqual([1, 0]);
  });

  it('loses its value where its source fails or has none, and costs no other metric', async () => {
    const { metrics, samples } = watchedOperations();
    let isBroken = false;
    metrics.readAtScrape({
      watchedPods: () => {
        if (isBroken) throw new Error('broken');
        return 3;
      },
      watchContactAgeSeconds: () => (isBroken ? undefined : 1),
      quarantinedTargets: () => 0,
    });
    expect((await samples()).get('watched_pods')).toBe(3);
    isBroken = true;
    const seen = await samples();
    expect([seen.has('watched_pods'), seen.has('watch_contact_age_seconds')]).toEqual([false, false]);
    expect(seen.get('quarantined_targets')).toBe(0);
  });

  it('is kept apart for two agents in one process', async () => {
    const build = { version: '1', criu: '4.2', kernel: '6.12', runtime: 'containerd' };
    const [one, other] = [newMetrics(build), newMetrics(build)];
    one.events.collectionFailed();
    expect(await one.registry.metrics()).toContain('snapshot_agent_gc_failures_total 1');
    expect(await other.registry.metrics()).toContain('snapshot_agent_gc_failures_total 0');
  });
});
