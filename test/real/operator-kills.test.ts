import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type ApiCall, WRITES } from '../fakes/kube-api/calls.ts';
import { dropAll, keyOf } from './kubernetes-scenario.ts';
import { automaticGraph, referringGraph, sample, wasRestored } from './operator-samples.ts';
import { OperatedCluster } from './operator-scenario.ts';

/**
 * The operator is killed at each of its writes, before it is stored and after, and started again. Whatever the moment, each checkpoint has
 * one Job, each artifact is there, and each worker is restored.
 */
let cluster: OperatedCluster;
/** By checkpoint id: the Jobs that ever were. */
let jobs: Map<string, Set<string>>;

beforeAll(async () => {
  cluster = await OperatedCluster.start();
  jobs = new Map();
  cluster.api.onChange('jobs', ({ metadata: { name, uid } }) => {
    jobs.set(name, (jobs.get(name) ?? new Set()).add(uid));
  });
  await cluster.startOperator();
  await cluster.isUp();
});
afterEach(() => cluster.api.heal());
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.kube.cluster.leftovers()).toEqual([]);
});

/** What the operator writes, but for what it says beside its work. */
const WORK = {
  verb: WRITES,
  where: ({ userAgent, resource }: ApiCall) =>
    userAgent.startsWith('snapshot-operator') && !['leases', 'events'].includes(resource),
};

/** A write by what it is for: one that comes again after a kill is the same. */
function signature({ verb, resource, subresource, name, body }: ApiCall, moment: string): string {
  const { metadata, status, spec } = (body ?? {}) as {
    readonly metadata?: { readonly name?: string };
    readonly status?: { readonly phase?: string; readonly jobName?: string };
    readonly spec?: { readonly replicas?: number };
  };
  const { phase = '', jobName = '' } = status ?? {};
  const about = [...Object.keys(metadata ?? {}), phase, jobName, `${spec?.replicas ?? ''}`];
  return `${verb} ${resource}/${subresource} ${metadata?.name ?? name} ${about.join()} ${moment}`;
}

/** Kills the operator at every write that is new, at both moments, until it is over. Says at which. */
async function killAtEachWrite(isOver: () => boolean): Promise<string[]> {
  const killed: string[] = [];
  const gates = { answer: cluster.api.gate(WORK, 'answer'), request: cluster.api.gate(WORK, 'request') };
  const end = performance.now() + 100_000;
  while (!isOver() || gates.answer.waiting + gates.request.waiting > 0) {
    if (performance.now() > end) throw new Error(`it does not end; killed at:\n${killed.join('\n')}`);
    const moment = gates.answer.waiting > 0 ? 'answer' : 'request';
    if (gates[moment].waiting === 0) {
      await sleep(10);
      continue;
    }
    const held = await gates[moment].next();
    const write = signature(held.call, moment);
    if (killed.includes(write)) {
      held.release();
      continue;
    }
    killed.push(write);
    await cluster.operator.end('SIGKILL');
    held.drop();
    // Others that were under way at the same time die with it.
    for (const gate of Object.values(gates)) while (gate.waiting > 0) (await gate.next()).drop();
    cluster.runOutLease();
    await cluster.operator.start();
  }
  await dropAll(gates.answer);
  await dropAll(gates.request);
  return killed;
}

const phaseOf = (name: string) => cluster.checkpoint(name)?.status?.['phase'];

describe('an operator that is killed at each of its writes', () => {
  test('makes a checkpoint once, and rolls out who is restored from it', async () => {
    cluster.apply(sample('dynamocheckpoint.yaml', 'killed'));
    const killed = await killAtEachWrite(() => ['Ready', 'Failed'].includes(String(phaseOf('killed'))));
    const { checkpointID, jobName } = await cluster.phase('killed', 'Ready');
    expect(jobs.get(String(jobName))?.size).toBe(1);
    expect(cluster.hasArtifact(String(checkpointID))).toBe(true);
    for (const moment of ['request', 'answer'])
      for (const write of [/create jobs/, /dynamocheckpoints\/status killed .*Creating/, /status killed .*Ready/])
        expect(killed.filter((one) => one.endsWith(moment))).toContainEqual(expect.stringMatching(write));

    // With Immediate, a pod that is made while the operator is dead starts cold: the webhook fails open.
    cluster.apply(referringGraph('killed-graph', 'killed'));
    await killAtEachWrite(
      () => cluster.inspected('killed-graph')[2] === 'true' && cluster.pods('killed-graph').length > 0,
    );
    const [pod = ''] = await cluster.ready('killed-graph', 1);
    await wasRestored(await cluster.kube.container(keyOf(pod)), pod);
    expect(cluster.api.list('deployments')).toHaveLength(1);
  });

  test('makes an automatic checkpoint once, lets nobody start before it, and deletes it with its artifact', async () => {
    cluster.apply(automaticGraph('killed-auto', 'WaitForCheckpoint'));
    await killAtEachWrite(
      () => cluster.inspected('killed-auto')[2] === 'true' && cluster.pods('killed-auto').length > 0,
    );
    const [pod = ''] = await cluster.ready('killed-auto', 1);
    await wasRestored(await cluster.kube.container(keyOf(pod)), pod);
    const { name, id } = await cluster.checkpointed('killed-auto');
    const [job] = cluster.jobs(id);
    expect(jobs.get(String(job?.metadata.name))?.size).toBe(1);

    cluster.api.delete('dynamographdeployments', keyOf('killed-auto'));
    const killed = await killAtEachWrite(() => cluster.checkpoint(name) === undefined);
    expect(killed).not.toEqual([]);
    expect(cluster.hasArtifact(id)).toBe(false);
  });
});
