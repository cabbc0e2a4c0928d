import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Json } from '../fakes/kube-api/resources.ts';
import { REPOSITORY } from './environment/host.ts';
import { keyOf, NAMESPACE } from './kubernetes-scenario.ts';
import { jsonpath, sample, wasRestored, wasStartedCold } from './operator-samples.ts';
import { CLAIM, OperatedCluster } from './operator-scenario.ts';

/**
 * The Quick Start of the original with the commands of docs/quickstart.md, from an applied DynamoCheckpoint to restored pods, with real pods
 * and real CRIU. What kubectl does with each command is done here.
 */
const PAGE = readFileSync(join(REPOSITORY, 'docs/quickstart.md'), 'utf8').replaceAll('$NAMESPACE', NAMESPACE);
const SECTION = /^## With the operator\n[\s\S]*?(?=^## )/m.exec(PAGE)?.[0] ?? '';

/** The groups of the one command of the section that is so. */
function command(pattern: RegExp): string[] {
  const found = [...SECTION.matchAll(new RegExp(pattern, 'gm'))];
  expect(found).toHaveLength(1);
  return found[0]?.slice(1) ?? [];
}

describe.each(['agentMount', 'podMount'] as const)('%s', (accessMode) => {
  let cluster: OperatedCluster;

  beforeAll(async () => {
    cluster = await OperatedCluster.start({ accessMode });
    await cluster.startOperator();
    await cluster.isUp();
  });
  afterAll(async () => {
    await cluster?.stop();
    expect(cluster?.kube.cluster.leftovers()).toEqual([]);
  });

  const apply = (file: string) => {
    command(new RegExp(`^kubectl apply -f (${file.replaceAll('.', '\\.')}) -n ${NAMESPACE}$`));
    cluster.apply(sample(file));
  };

  test('a DynamoCheckpoint is Pending, Creating while its Job runs, and Ready once the artifact is there', async () => {
    const phases: unknown[] = [];
    const stop = cluster.api.onChange('dynamocheckpoints', ({ status }) => phases.push(status?.['phase']));
    apply('dynamocheckpoint.yaml');
    const waiting =
      /^kubectl wait --for=jsonpath='\{\.status\.phase\}'=(\w+) dynamocheckpoint\/(\S+) -n demo --timeout=30m$/;
    const [phase = '', name = ''] = command(waiting);
    const status = await cluster.phase(name, phase);
    stop();
    expect([...new Set(phases)]).toEqual([undefined, 'Pending', 'Creating', 'Ready']);
    const { checkpointID: id, jobName } = status as Record<string, string>;
    expect(status).toMatchObject({ identityHash: id, createdAt: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect(jobName).toBe(`checkpoint-job-${id}-1`);
    expect(cluster.hasArtifact(String(id))).toBe(true);
    expect(cluster.api.get('jobs', keyOf(String(jobName)))?.status).toMatchObject({ succeeded: 1 });
    expect(cluster.api.get('persistentvolumeclaims', keyOf(CLAIM)) !== undefined).toBe(accessMode === 'podMount');

    const [columns = ''] = command(/^kubectl get dckpt -n demo -o custom-columns=(\S+)$/);
    const pairs = columns.split(',').map((one) => one.split(':') as [string, string]);
    const row = pairs.map(([, path]) => jsonpath(cluster.checkpoint(name), `{${path}}`));
    const [, shown = ''] = /```\n(NAME .*\n.*)\n```/.exec(SECTION) ?? [];
    expect(shown.split('\n').map((line) => line.split(/ +/))).toEqual([pairs.map(([title]) => title), row]);
  });

  test('the worker of a DynamoGraphDeployment with its checkpointRef is restored', async () => {
    apply('dynamographdeployment-checkpointref.yaml');
    const [pod = ''] = await cluster.ready('sample-checkpointref', 1);
    await wasRestored(await cluster.kube.container(keyOf(pod)), pod);
    await cluster.ready('sample-checkpointref', 1, 'Frontend');
    const word = jsonpath(cluster.graph('sample-checkpointref'), '{.status.checkpoints.SampleWorker.checkpointName}');
    expect(word).toBe('sample-worker');
  });

  test('workers are checkpointed by themselves, and what is scaled up is restored', async () => {
    apply('dynamographdeployment-auto.yaml');
    const [name = '', path = ''] = command(/^kubectl get dgd (\S+) -n demo -o jsonpath='(.*)'$/);
    const [cold = ''] = await cluster.ready(name, 1);
    const printed = () => jsonpath(cluster.graph(name), path);
    const [checkpoint = '', id = ''] = await cluster.waitFor('that its checkpoint is ready', () => {
      const lines = printed().split('\n');
      return lines[2] === 'true' ? lines : undefined;
    });
    expect(cluster.checkpoint(checkpoint)?.status).toMatchObject({ phase: 'Ready', checkpointID: id });
    wasStartedCold(await cluster.kube.container(keyOf(cold)));

    const [patched = '', body = ''] = command(/^kubectl patch dgd (\S+) -n demo --type=merge -p '(.*)'$/);
    cluster.api.patch('dynamographdeployments', keyOf(patched), JSON.parse(body) as Json);
    const [, restored = ''] = await cluster.ready(name, 2);
    await wasRestored(await cluster.kube.container(keyOf(restored)), restored);

    const [deleted = ''] = command(/^kubectl delete (dgd\/\S+ .*) -n demo$/);
    const kinds = { dgd: 'dynamographdeployments', dckpt: 'dynamocheckpoints' } as const;
    for (const [kind = '', one = ''] of deleted.split(' ').map((word) => word.split('/')))
      cluster.api.delete(kinds[kind as keyof typeof kinds], keyOf(one));
    const left = () => [...cluster.api.list('dynamographdeployments'), ...cluster.api.list('dynamocheckpoints')].length;
    await cluster.waitFor('that all is gone', () => (left() === 0 ? true : undefined));
    expect(cluster.hasArtifact(id)).toBe(false);
  });
});
