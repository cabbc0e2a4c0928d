import { afterAll, beforeAll, expect, test } from 'vitest';
import { LABELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import { workload } from './environment/pod.ts';
import { checkpointed, restored } from './scenario.ts';

let cluster: Cluster;
let agent: Agent;
beforeAll(async () => {
  cluster = await Cluster.start();
  agent = await cluster.startAgent();
});
afterAll(async () => cluster?.stop());
test('a placeholder that takes its time to write down whose container it is', async () => {
  const source = await checkpointed(cluster, agent, {
    command: workload('worker', '8'),
    pod: { labels: { [LABELS.jobName]: 'job' } },
  });
  await source.container.ended();
  await source.pod.remove();
  const slow = ['/bin/sh', '-c', `sleep 3; exec ${workload('worker').join(' ')}`];
  const target = await restored(cluster, agent, source, { command: slow });
  const resumed = await target.container.waitForOutput('that it resumes', (line) => line['resumed'] === true);
  expect(resumed).toMatchObject({ identity: target.pod.name, host: target.pod.name });
});
