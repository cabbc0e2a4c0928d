import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { askedFor, grantsOf, readRbac } from '../fakes/kube-api/shipped-roles.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import {
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  NAMESPACE,
  restoreEnded,
  runJob,
  runTargetPod,
} from './kubernetes-scenario.ts';

/** What the agent may do, by the shipped manifests, and what it does: the same. That no test asks for more, KubeNode sees to. */
let kube: KubeNode;

beforeAll(async () => {
  kube = await KubeNode.start();
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

test.each([
  ['for all namespaces', undefined],
  ['for one namespace', NAMESPACE],
])('a checkpoint and a restore need every rule %s, and no other', async (_, namespace) => {
  const { roles } = readRbac(namespace);
  kube.api.setRoles(roles);
  kube.api.forgetCalls();
  const kubernetes = { leaseSeconds: 15, ...(namespace && { namespace }) };
  const agent = await kube.startAgent({ stateName: `rules-${namespace ?? 'all'}`, config: { kubernetes } });
  onTestFinished(() => agent.end('SIGKILL').then(() => undefined));
  await becomesReadyToWork(agent);

  // Long enough for a renewal of the lease.
  const declaring = kube.api.gate({ verb: 'patch', resource: 'jobs' }, 'request');
  const job = runJob(kube);
  const held = await declaring.next();
  await eventually('a renewal', () => kube.api.calls({ verb: 'update', resource: 'leases' })[0]);
  held.release();
  declaring.open();
  expect([await jobEnded(kube, job), jobStatus(kube, job)]).toEqual(['Complete', 'completed']);
  await eventOf(kube, job.podKey, 'CheckpointSucceeded');
  await eventually('the release of the lease', () => kube.api.get('leases', job.jobKey) === undefined || undefined);
  const podKey = runTargetPod(kube, job);
  await restoreEnded(kube, podKey);
  await eventOf(kube, podKey, 'RestoreSucceeded');
  expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);

  expect(askedFor(kube.api.calls())).toEqual(grantsOf(roles));
  expect(kube.api.calls().filter(({ status }) => status === 401 || status === 403)).toEqual([]);
  const namespaces = new Set(kube.api.calls().map((call) => call.namespace));
  expect(namespaces.has('')).toBe(namespace === undefined);
  await kube.deletePod(podKey);
});
