import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { REPOSITORY } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { KubeNode, NODE } from './environment/kube-node.ts';
import { becomesReady, keyOf, NAMESPACE } from './kubernetes-scenario.ts';
import { Person, putDaemonSet } from './snapshotctl-scenario.ts';

/** The commands of docs/quickstart.md that checkpoint and restore the sample worker, as they stand there. */
let kube: KubeNode;
let person: Person;

beforeAll(async () => {
  kube = await KubeNode.start();
  await becomesReadyToWork(await kube.startAgent());
  putDaemonSet(kube, { claim: 'checkpoints' });
  person = await Person.beside(kube);
});

afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

const PAGE = readFileSync(join(REPOSITORY, 'docs/quickstart.md'), 'utf8');

/** The first of the page's commands that begins so, as its words. */
function commandOf(program: string, verb: string): string[] {
  const line = PAGE.split('\n').find((one) => one.startsWith(`${program} ${verb} `)) ?? '';
  const words = line.replaceAll('$NAMESPACE', NAMESPACE).split(' ');
  return words.slice(1);
}

/** The sample's manifest with an image that is here, on the node that is here. */
async function sampleManifest(): Promise<string> {
  const manifest = parse(readFileSync(join(REPOSITORY, 'deploy/samples/worker-pod.yaml'), 'utf8'));
  manifest.spec.containers[0].image = IMAGES.placeholder;
  manifest.spec.nodeName = NODE;
  const directory = join(kube.cluster.directory, 'quickstart');
  await mkdir(directory, { recursive: true });
  const path = join(directory, 'worker-pod.yaml');
  await writeFile(path, stringify(manifest));
  return path;
}

test('checkpoint and restore of the sample worker, with the very commands', async () => {
  const manifest = await sampleManifest();
  const run = (verb: string) =>
    person.snapshotctl(...commandOf('snapshotctl', verb).map((word) => (word === 'worker-pod.yaml' ? manifest : word)));

  const checkpoint = await run('checkpoint');
  expect(checkpoint).toMatchObject({ code: 0, stderr: '' });
  const shown = /```\n(status=completed\n[\s\S]*?)```/.exec(PAGE)?.[1] ?? '';
  expect(checkpoint.stdout).toBe(shown.replaceAll('snapshot-demo', NAMESPACE));

  expect(await run('restore')).toMatchObject({ code: 0, stderr: '' });
  const key = keyOf('sample-worker');
  await becomesReady(kube, key);
  const container = await kube.container(key);
  expect(container.output().map(({ event }) => event)).toEqual(['restored', 'serving']);
  const generate = /python3 -c \\\n {2}'(.+)'/.exec(PAGE)?.[1] ?? '';
  const { stdout } = await container.exec('python3', '-c', generate);
  expect(JSON.parse(stdout)).toMatchObject({ pod: 'sample-worker', token: 1001 });
  await kube.deletePod(key);
});
