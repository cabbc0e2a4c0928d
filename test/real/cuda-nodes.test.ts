import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container } from './environment/container.ts';
import { beatsOn, type GpuNode, gpuConfig, gpuDirectory, lastBeat, makeGpuNode, runGpuSource } from './gpu-scenario.ts';
import { finished, markReady, operationEnd, readRecord, restored, type Source } from './scenario.ts';

/**
 * The driver's tools make nodes of all GPUs of the machine wherever they may. The containers here make them themselves, by the numbers of
 * GPUs that no driver answers for; whether they may be opened, the device cgroups decide that containerd and runc have made.
 */
const NOT_OPENED = 'device nodes of GPUs that the container may not open';
const NOT_KNOWN = 'GPUs count that the container may not be allowed to open';

/** Makes the node of a GPU that the container has not got, as the driver's tools do. */
async function makeNode(container: Container, minor: number): Promise<void> {
  const made = await container.exec('mknod', `/dev/nvidia${minor}`, 'c', '195', `${minor}`);
  expect(made, made.stderr).toMatchObject({ exitCode: 0 });
}

const opening = async (container: Container, minor: number) =>
  (await container.exec('sh', '-c', `exec 3<>/dev/nvidia${minor}`)).stderr.trim();

describe.each(['machine', 'v2'] as const)('where containers have cgroups as on a %s', (cgroups) => {
  let cluster: Cluster;
  let agent: Agent;
  let node: GpuNode;

  beforeAll(async () => {
    cluster = await Cluster.start({ cgroups });
    node = makeGpuNode(gpuDirectory(cluster), 2);
    agent = await cluster.startAgent({ config: gpuConfig(node.standin.directory) });
  });
  afterAll(async () => {
    await cluster?.stop();
    expect(cluster?.leftovers()).toEqual([]);
  });

  const said = (msg: string, source: Source) =>
    agent.logs().filter((line) => line['msg'] === msg && `${line['container']}`.includes(`/${source.pod.name}`));
  const uuids = (artifact: string) => {
    const { cuda } = readRecord(artifact) as { cuda: { gpus: readonly { uuid: string }[] } };
    return cuda.gpus.map(({ uuid }) => uuid);
  };
  const uuid = (index: number) => node.gpus[index]?.uuid ?? '';

  test('a container with one GPU that made a node of another one is a container with one GPU', async () => {
    const source = await runGpuSource(cluster, node.visible(0));
    const { hash } = lastBeat(source.container);
    await makeNode(source.container, 1);
    // No driver answers here, but the one is asked and the other is not.
    expect(await opening(source.container, 0)).toMatch(/No such device or address/);
    expect(await opening(source.container, 1)).toMatch(/Operation not permitted/);
    await markReady(source.container);
    const { artifact } = await finished(cluster, agent, source);
    expect(uuids(artifact)).toEqual([uuid(0)]);
    expect(said(NOT_OPENED, source)).toEqual([expect.objectContaining({ closed: ['/dev/nvidia1'] })]);
    expect(await beatsOn(source.container)).toMatchObject({ hash });

    const target = await restored(cluster, agent, source, node.visible(1));
    expect(await beatsOn(target.container)).toMatchObject({ hash, on: [uuid(1)] });
  });

  test('a privileged container may open all that it sees', async () => {
    const privileged = { pod: { privileged: true }, privileged: true };
    const source = await runGpuSource(cluster, node.visible(0), privileged);
    await makeNode(source.container, 1);
    expect(await opening(source.container, 1)).toMatch(/No such device or address/);
    await markReady(source.container);
    // Where it comes to with it is another matter: a root that a privileged container could have mounted may be refused.
    const { operationId } = await operationEnd(agent, 'checkpoint', source.container);
    const warned = agent.logs().filter((line) => line['operationId'] === operationId && 'warning' in line);
    expect(warned.map(({ warning }) => warning)).toContainEqual(
      expect.objectContaining({ code: 'GPU_SEVERAL', found: expect.stringMatching(/^2 GPUs/) }),
    );
    expect(said(NOT_OPENED, source)).toEqual([]);
  });

  test('an agent that does not reach the cgroups counts every node, and says so', async () => {
    await agent.end('SIGTERM');
    const config = { ...gpuConfig(node.standin.directory), host: { cgroupRoot: '/usr' } };
    agent = await cluster.startAgent({ config });
    const source = await runGpuSource(cluster, node.visible(0));
    await makeNode(source.container, 1);
    await markReady(source.container);
    const { artifact } = await finished(cluster, agent, source);
    expect(uuids(artifact)).toEqual([uuid(0), uuid(1)]);
    expect(said(NOT_KNOWN, source)).toEqual([
      expect.objectContaining({ reason: expect.stringMatching(/^join cgroup failed: .*cgroup\.procs/) }),
    ]);
  });
});
