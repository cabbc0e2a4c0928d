import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Agent } from './environment/agent.ts';
import { httpPort } from './environment/agent-metrics.ts';
import { Cluster } from './environment/cluster.ts';
import { eventually, REPOSITORY } from './environment/host.ts';
import { workload } from './environment/pod.ts';
import { Prometheus, promtool } from './environment/prometheus.ts';
import { checkpointed, markReady, operationEnd, restored, runSource } from './scenario.ts';

/** Dashboard and alerts as a real Prometheus has them, of a real agent that has checkpointed, restored and refused something. */
let cluster: Cluster;
let agent: Agent;
let prometheus: Prometheus;

const FILES = join(REPOSITORY, 'deploy/chart/files');

beforeAll(async () => {
  cluster = await Cluster.start();
  // With a rule of retention, as only then artifacts are counted.
  agent = await cluster.startAgent({ config: { retention: { ttlSeconds: 86_400, intervalSeconds: 10 } } });
  const labels = { namespace: 'snapshot-system', node: 'test-node' };
  prometheus = await Prometheus.start(
    { address: `127.0.0.1:${await httpPort(agent)}`, labels },
    join(FILES, 'alerts.yaml'),
  );
});

afterAll(async () => {
  await prometheus?.stop();
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

/** What these have needs a cluster, callers, something to delete, or something that goes wrong. */
const EMPTY = [
  'All failures since the agents started',
  'Bytes deleted by retention',
  'Deleted by retention',
  'Failures by code',
  'Leases of checkpoint Jobs',
  'Requests to the Kubernetes API that failed',
  'Since the watch last heard anything',
  'Time of gRPC calls',
  'Watches that began again',
  'gRPC calls',
];

interface Panel {
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
}

/** As Grafana would ask, with everything chosen and a window of ten minutes. */
function queriesOf({ targets = [] }: Panel): string[] {
  return targets.map(({ expr }) =>
    expr.replaceAll(/\$(?:namespace|node)\b/g, '.*').replaceAll(/\$(?:window|__range)\b/g, '10m'),
  );
}

test('every query of the dashboard is answered, and every alert can be evaluated', async () => {
  const count = 'snapshot_agent_operation_duration_seconds_count{result="succeeded"}';
  // increase() sees what changes between two looks, so the first must come before.
  await eventually('the first look', async () => ((await prometheus.query(count)).length === 2 ? true : undefined));

  const source = await checkpointed(cluster, agent, { command: workload('memory', '64') });
  await restored(cluster, agent, source);
  const shared = await runSource(cluster, { command: workload('memory', '4'), pod: { sharePid: true } });
  await markReady(shared.container);
  expect(await operationEnd(agent, 'checkpoint', shared.container)).toMatchObject({ result: 'refused' });
  await eventually(
    'a look at all three, and at the artifact',
    async () => {
      const artifacts = await prometheus.query('snapshot_agent_artifacts > 0');
      const ended = await prometheus.query('sum(snapshot_agent_operation_duration_seconds_count)');
      // The refusal is the last, and its series has a rate only after two looks.
      const looks = await prometheus.query('min(count_over_time(snapshot_agent_refusals_total[10m]))');
      return Number(ended[0]?.value[1]) >= 3 && Number(looks[0]?.value[1]) >= 2 && artifacts.length === 1
        ? true
        : undefined;
    },
    { timeoutMs: 40_000 },
  );

  const { panels } = JSON.parse(readFileSync(join(FILES, 'dashboard.json'), 'utf8')) as { panels: readonly Panel[] };
  const empty = new Set<string>();
  for (const panel of panels)
    for (const query of queriesOf(panel)) if ((await prometheus.query(query)).length === 0) empty.add(panel.title);
  expect([...empty].sort()).toEqual([...EMPTY].sort());

  const rules = await eventually('that all rules were evaluated', async () => {
    const all = await prometheus.rules();
    return all.every(({ health }) => health !== 'unknown') ? all : undefined;
  });
  expect(rules.filter(({ health }) => health !== 'ok')).toEqual([]);
  expect(rules.length).toBeGreaterThan(0);
});

test("the agent's metrics are as Prometheus wants them", async () => {
  const text = await (await fetch(`http://127.0.0.1:${await httpPort(agent)}/metrics`)).text();
  // promtool reads them from its standard input.
  const own = text.split('\n').filter((line) => /snapshot_agent_/.test(line));
  expect(own.filter((line) => line.startsWith('# TYPE')).length).toBeGreaterThan(30);
  await promtool(['check', 'metrics'], { stdin: `${own.join('\n')}\n` });
});
