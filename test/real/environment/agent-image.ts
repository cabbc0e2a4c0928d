import { join, resolve } from 'node:path';
import { readManifest } from './agent-manifest.ts';
import type { Cluster } from './cluster.ts';
import { AGENT_ROOT, host, REPOSITORY } from './host.ts';

const MAKE_IMAGE = resolve(REPOSITORY, 'deploy/images/make-image.sh');

/** The configuration of an image, as its archive says it. */
export interface ImageConfig {
  readonly architecture: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/** Makes the agent's image without a container engine, under the name by which the manifest calls it. Returns what its archive says. */
async function makeAgentImage(archive: string): Promise<ImageConfig> {
  const [{ image }] = readManifest().pod.containers;
  await host([MAKE_IMAGE, 'agent', image, archive, AGENT_ROOT], { timeoutMs: 600_000 });
  const read = (name: string) => host(['tar', '-xOf', archive, `./${name}`]);
  const [{ Config: config = '' } = {}] = JSON.parse(await read('manifest.json')) as { Config?: string }[];
  return JSON.parse(await read(config)) as ImageConfig;
}

/** Makes the agent's image and gives it to a cluster's runtime. To be called before the cluster's first pod. */
export async function importAgentImage(cluster: Cluster): Promise<ImageConfig> {
  // A node of Kubernetes shares its mounts with pods that ask for it, and the runtime insists on that; this machine may not.
  await host(['mount', '--bind', cluster.directory, cluster.directory]);
  await host(['mount', '--make-shared', cluster.directory]);
  const archive = join(cluster.directory, 'agent-image.tar');
  const made = await makeAgentImage(archive);
  await host(['ctr', '--address', cluster.socketPath, '--namespace', 'k8s.io', 'images', 'import', archive]);
  await host(['rm', archive]);
  return made;
}
