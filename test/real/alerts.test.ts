import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { REPOSITORY } from './environment/host.ts';
import { promtool } from './environment/prometheus.ts';

/** The shipped alert rules on made-up series, as promtool of Prometheus evaluates them. */
const RULES = readFileSync(join(REPOSITORY, 'deploy/chart/files/alerts.yaml'), 'utf8');

interface Rule {
  readonly alert: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Series as promtool's tests have them: name with labels, and a value for each minute. */
type Series = Readonly<Record<string, string>>;

interface Case {
  readonly alert: string;
  readonly fires: Series;
  readonly at: string;
  /** Of the alert, besides the severity. */
  readonly labels: Readonly<Record<string, string>>;
  readonly description: string;
  /** What is like it and must not fire; from this minute on, where it is not the first. */
  readonly quiet: readonly (Series | readonly [from: number, Series])[];
}

const release = { job: 'snapshot', namespace: 'snapshot-system' };
const agent = { ...release, node: 'gpu-1', instance: '10.0.0.1:9090' };
const on = (labels: Readonly<Record<string, string>>) =>
  Object.entries(labels).map(([name, value]) => `${name}="${value}"`);
const of = (name: string, more: Readonly<Record<string, string>> = {}) => `${name}{${on({ ...agent, ...more })}}`;
const ended = (operation: string, result: string, what = 'count') =>
  of(`snapshot_agent_operation_duration_seconds_${what}`, { operation, result });

const CASES: readonly Case[] = [
  {
    alert: 'SnapshotAgentDown',
    fires: { [of('up')]: '1x5 0x30', [of('snapshot_agent_build_info', { version: '1' })]: '1x5 stale' },
    at: '20m',
    labels: agent,
    description: 'Node gpu-1, 10.0.0.1:9090: nothing is checkpointed or restored there. Restored workers go on.',
    quiet: [
      { [of('up')]: '1x5 0x3 1x20', [of('snapshot_agent_build_info', { version: '1' })]: '1x5 stale 1x30' },
      // Something else that is scraped.
      { [of('up')]: '0x30' },
      { [of('up')]: '1x60', [of('snapshot_agent_ready')]: '0x3 1x30 0x2 1x20' },
    ],
  },
  {
    // The pod of a new version, which has never answered, beside one that does.
    alert: 'SnapshotAgentDown',
    fires: {
      [of('up')]: '0x30',
      [of('up', { node: 'gpu-2', instance: '10.0.0.2:9090' })]: '1x30',
      [of('snapshot_agent_build_info', { node: 'gpu-2', instance: '10.0.0.2:9090', version: '1' })]: '1x30',
    },
    at: '20m',
    labels: agent,
    description: 'Node gpu-1, 10.0.0.1:9090: nothing is checkpointed or restored there. Restored workers go on.',
    quiet: [
      // In a job with other things, as of a scrape configuration for all pods, this may be one of them.
      {
        [of('up')]: '0x30',
        [of('up', { node: 'gpu-2', instance: '10.0.0.2:9090' })]: '1x30',
        [of('snapshot_agent_build_info', { node: 'gpu-2', instance: '10.0.0.2:9090', version: '1' })]: '1x30',
        [of('up', { node: 'gpu-3', instance: '10.0.0.3:80' })]: '1x30',
      },
    ],
  },
  {
    alert: 'SnapshotAgentDown',
    fires: { [of('up')]: '1x60', [of('snapshot_agent_ready')]: '1x9 0x50' },
    at: '20m',
    labels: agent,
    description: 'Node gpu-1, 10.0.0.1:9090: nothing is checkpointed or restored there. Restored workers go on.',
    quiet: [],
  },
  {
    alert: 'SnapshotWatchStale',
    fires: { [of('snapshot_agent_watch_contact_age_seconds')]: '5x5 150+60x10' },
    at: '10m',
    labels: agent,
    description: 'Node gpu-1, 10.0.0.1:9090: 6m 30s without a word. It sees no new pods, and is not ready.',
    quiet: [{ [of('snapshot_agent_watch_contact_age_seconds')]: '5x5 130x0 5x20' }],
  },
  {
    alert: 'SnapshotWatchReconnects',
    fires: { [of('snapshot_agent_watch_reconnects_total', { source: 'kubernetes', reason: 'reset' })]: '0+1x90' },
    at: '60m',
    labels: { ...agent, source: 'kubernetes' },
    description: 'Node gpu-1, 10.0.0.1:9090: the watch on kubernetes began again 30 times in half an hour.',
    quiet: [
      { [of('snapshot_agent_watch_reconnects_total', { source: 'kubernetes', reason: 'reset' })]: '0x9 1x9 2x70' },
    ],
  },
  {
    alert: 'SnapshotRestoresFail',
    fires: { [ended('restore', 'failed')]: '0+1x60', [ended('restore', 'succeeded')]: '0+2x60' },
    at: '40m',
    labels: release,
    description:
      'Agents of snapshot-system: 30 restores failed in half an hour, more than a tenth of all. Workers that should start from a checkpoint do not.',
    quiet: [
      // A few of very many.
      { [ended('restore', 'failed')]: '0x5 3x60', [ended('restore', 'succeeded')]: '0+10x60' },
      // One alone.
      { [ended('restore', 'failed')]: '0x30 1x60', [ended('restore', 'succeeded')]: '0x60' },
      { [ended('checkpoint', 'failed')]: '0+1x60', [ended('restore', 'failed')]: '0x60' },
    ],
  },
  {
    alert: 'SnapshotRestoresSlow',
    fires: {
      [ended('restore', 'succeeded')]: '0+1x3000',
      [ended('restore', 'succeeded', 'sum')]: '0+5x2880 14415+15x120',
    },
    at: '2970m',
    labels: release,
    description: 'Agents of snapshot-system: 15s on average in the last hour.',
    quiet: [
      { [ended('restore', 'succeeded')]: '0+1x3000', [ended('restore', 'succeeded', 'sum')]: '0+5x3000' },
      // One slow restore is no trend.
      {
        [ended('restore', 'succeeded')]: '0+1x1000 1000x1960 1001x60',
        [ended('restore', 'succeeded', 'sum')]: '0+5x1000 5000x1960 5100x60',
      },
    ],
  },
  {
    alert: 'SnapshotCheckpointsFail',
    fires: { [ended('checkpoint', 'failed')]: '0+1x90', [ended('checkpoint', 'succeeded')]: '0x90' },
    at: '70m',
    labels: release,
    description:
      'Agents of snapshot-system: 60 checkpoints failed in an hour, more than half of all. Workers go on starting cold.',
    quiet: [{ [ended('checkpoint', 'failed')]: '0+1x90', [ended('checkpoint', 'succeeded')]: '0+2x90' }],
  },
  {
    alert: 'SnapshotCudaProcessLost',
    // The counter is not there before.
    fires: {
      [of('snapshot_agent_operations_total', { operation: 'checkpoint', result: 'failed', code: 'CUDA_LOST' })]:
        '_x10 1x20',
    },
    at: '15m',
    labels: agent,
    description:
      'Node gpu-1, 10.0.0.1:9090: the driver did not bring a CUDA process back after its checkpoint, and its container was ended.',
    quiet: [
      {
        [of('snapshot_agent_operations_total', { operation: 'checkpoint', result: 'failed', code: 'CUDA_BUSY' })]:
          '0+1x60',
      },
      // Long ago. A Prometheus that sees it for the first time cannot know that.
      [
        61,
        {
          [of('snapshot_agent_operations_total', { operation: 'checkpoint', result: 'failed', code: 'CUDA_LOST' })]:
            '1x300',
        },
      ],
    ],
  },
  {
    alert: 'SnapshotOutcomeUnknown',
    fires: { [of('snapshot_agent_outcome_unknown_total')]: '0x5 1x20' },
    at: '10m',
    labels: agent,
    description:
      'Node gpu-1, 10.0.0.1:9090: the container was ended, as nobody can tell how far its restore came. Look why the agent died.',
    quiet: [
      { [of('snapshot_agent_outcome_unknown_total')]: '0x90' },
      [61, { [of('snapshot_agent_outcome_unknown_total')]: '2x300' }],
    ],
  },
  {
    alert: 'SnapshotTargetQuarantined',
    fires: { [of('snapshot_agent_quarantined_targets')]: '0x5 1x10' },
    at: '10m',
    labels: agent,
    description: 'Node gpu-1, 10.0.0.1:9090: 1 containers are left alone. Storage or a driver hangs in the kernel.',
    quiet: [{ [of('snapshot_agent_quarantined_targets')]: '0x5 1x0 0x30' }],
  },
  {
    alert: 'SnapshotOperationStuck',
    fires: { [of('snapshot_agent_stuck_operations', { operation: 'restore' })]: '0x5 1x20' },
    at: '20m',
    labels: { ...agent, operation: 'restore' },
    description: 'Node gpu-1, 10.0.0.1:9090: a restore is in one step for longer than any step may take.',
    quiet: [{ [of('snapshot_agent_stuck_operations', { operation: 'restore' })]: '0x5 1x2 0x60' }],
  },
  {
    alert: 'SnapshotQueueLong',
    fires: { [of('snapshot_agent_queue_depth')]: '0x5 3x60' },
    at: '40m',
    labels: agent,
    description: 'Node gpu-1, 10.0.0.1:9090: the queue was not empty for a quarter of an hour; 3 wait now.',
    quiet: [{ [of('snapshot_agent_queue_depth')]: '3x10 0x0 3x10 0x0 3x10 0x40' }],
  },
  {
    alert: 'SnapshotVolumeFull',
    fires: {
      [of('snapshot_agent_storage_free_bytes')]: '40x20',
      [of('snapshot_agent_storage_total_bytes')]: '1000x20',
      [of('snapshot_agent_storage_checked_timestamp_seconds')]: '0+60x20',
    },
    at: '15m',
    labels: release,
    description: 'Agents of snapshot-system: 4% of it is free. Checkpoints will be refused.',
    quiet: [
      {
        [of('snapshot_agent_storage_free_bytes')]: '90x20',
        [of('snapshot_agent_storage_total_bytes')]: '1000x20',
        [of('snapshot_agent_storage_checked_timestamp_seconds')]: '0+60x20',
      },
      // Seen more than a day ago.
      {
        [of('snapshot_agent_storage_free_bytes')]: '40x20',
        [of('snapshot_agent_storage_total_bytes')]: '1000x20',
        [of('snapshot_agent_storage_checked_timestamp_seconds')]: '-86400x20',
      },
    ],
  },
  {
    alert: 'SnapshotRetentionFails',
    fires: { [of('snapshot_agent_gc_failures_total')]: '0+1x180' },
    at: '150m',
    labels: release,
    description: 'Agents of snapshot-system: retention failed 120 times in two hours. The volume will fill.',
    quiet: [{ [of('snapshot_agent_gc_failures_total')]: '0x100 1x80' }],
  },
  {
    alert: 'SnapshotSignatureRefused',
    fires: { [of('snapshot_agent_signature_refusals_total', { reason: 'SIGNATURE_WRONG' })]: '0x5 1x20' },
    at: '10m',
    labels: { ...release, reason: 'SIGNATURE_WRONG' },
    description: 'Agents of snapshot-system: SIGNATURE_WRONG. A key was rotated away, or somebody wrote to the volume.',
    quiet: [{ [of('snapshot_agent_signature_refusals_total', { reason: 'SIGNATURE_WRONG' })]: '3x90' }],
  },
  {
    alert: 'SnapshotCertificateRunsOut',
    // Time begins at 0 here.
    fires: { [of('snapshot_agent_certificate_expiry_timestamp_seconds', { which: 'server' })]: '1209600x120' },
    at: '100m',
    labels: { ...agent, which: 'server' },
    description:
      'Node gpu-1, 10.0.0.1:9090: server has 13d 22h 20m 0s left. Afterwards nobody reaches the agent over TCP.',
    quiet: [
      { [of('snapshot_agent_certificate_expiry_timestamp_seconds', { which: 'client_ca' })]: '1300000x120' },
      // Renewed within the hour.
      { [of('snapshot_agent_certificate_expiry_timestamp_seconds', { which: 'server' })]: '1200000x50 7776000x120' },
    ],
  },
  {
    alert: 'SnapshotCertificatesStale',
    fires: { [of('snapshot_agent_certificates_stale')]: '0x5 1x30' },
    at: '30m',
    labels: agent,
    description:
      'Node gpu-1, 10.0.0.1:9090: it goes on with those that it had. A restart would fail. Its log says what is wrong.',
    // In the middle of a change.
    quiet: [{ [of('snapshot_agent_certificates_stale')]: '0x5 1x10 0x60' }],
  },
  {
    alert: 'SnapshotRecordKeysStale',
    fires: { [of('snapshot_agent_record_keys_stale')]: '0x5 1x30' },
    at: '30m',
    labels: agent,
    description:
      'Node gpu-1, 10.0.0.1:9090: it goes on with those that it had. A restart would fail. Its log says what is wrong.',
    quiet: [{ [of('snapshot_agent_record_keys_stale')]: '0x5 1x10 0x60' }],
  },
];

const rules = (parse(RULES) as { readonly groups: readonly { readonly rules: readonly Rule[] }[] }).groups.flatMap(
  (group) => group.rules,
);

/** Quiet is looked at again and again, so that an alert that comes and goes is seen. */
function promtoolTests({ alert, fires, at, labels, description, quiet }: Case, rule: Rule): object {
  const { summary, runbook } = rule.annotations;
  const firing = { exp_labels: { ...rule.labels, ...labels }, exp_annotations: { summary, runbook, description } };
  const series = (all: Series) => Object.entries(all).map(([name, values]) => ({ series: name, values }));
  return {
    rule_files: ['alerts.yaml'],
    evaluation_interval: '1m',
    tests: [
      {
        interval: '1m',
        input_series: series(fires),
        alert_rule_test: [{ eval_time: at, alertname: alert, exp_alerts: [firing] }],
      },
      ...quiet
        .map((one): readonly [number, Series] => ('length' in one ? (one as readonly [number, Series]) : [0, one]))
        .map(([from, one]) => ({
          interval: '1m',
          input_series: series(one),
          alert_rule_test: momentsOf(one, from).map((minute) => ({
            eval_time: `${minute}m`,
            alertname: alert,
            exp_alerts: [],
          })),
        })),
    ],
  };
}

/** At most some hundred minutes, spread over those that the series have. */
function momentsOf(all: Series, from: number): number[] {
  const minutes = Math.max(...Object.values(all).map(lengthOf)) - from;
  const every = Math.ceil(minutes / 100);
  return Array.from({ length: Math.ceil(minutes / every) }, (_, index) => from + index * every);
}

/** How many values a notation such as `0x5 1+2x10 stale` has. */
function lengthOf(values: string): number {
  return values.split(' ').reduce((sum, part) => sum + 1 + Number(/x(\d+)$/.exec(part)?.[1] ?? 0), 0);
}

describe('the alert rules', () => {
  test('are what Prometheus takes, and each has a case here', async () => {
    await promtool(['check', 'rules', 'alerts.yaml'], { 'alerts.yaml': RULES });
    expect([...new Set(CASES.map(({ alert }) => alert))].sort()).toEqual(rules.map(({ alert }) => alert).sort());
  });

  test.each(CASES)('$alert fires when it should, and only then', async (one) => {
    const rule = rules.find(({ alert }) => alert === one.alert);
    const tests = rule && promtoolTests(one, rule);
    await promtool(['test', 'rules', 'tests.yaml'], { 'alerts.yaml': RULES, 'tests.yaml': stringify(tests) });
  });
});
