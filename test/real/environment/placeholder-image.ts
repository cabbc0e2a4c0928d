import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Cluster } from './cluster.ts';
import { CACHE, host, REPOSITORY } from './host.ts';

const MAKE_IMAGE = resolve(REPOSITORY, 'deploy/images/make-image.sh');
const ASSEMBLE = resolve(REPOSITORY, 'deploy/images/archive/main.ts');

/** The configuration of an image as its archive says it, and the files of its last layer. */
export interface MadeImage {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>> & { readonly Labels: Readonly<Record<string, string>> };
  readonly layers: number;
  /** Entries of the last layer, as tar lists them. */
  readonly added: readonly string[];
}

/** The image of a workload as somebody else made it: how it is started, and what is in it. */
interface Base {
  readonly name: string;
  readonly config: object;
  /** Root directories or archives of them, the lowest first. */
  readonly layers: (directory: string) => Promise<string[]>;
}

/** An image with a shell and Python, whose entry point is a script. */
export const SHELL_BASE: Base = {
  name: 'test.local/workload-with-shell:1',
  config: {
    User: '1000:1000',
    Env: ['PATH=/usr/local/bin:/usr/bin:/bin', 'WORKER_MODE=shell'],
    Entrypoint: ['/bin/sh', '/opt/entry.sh'],
    Cmd: ['4'],
    WorkingDir: '/opt',
    Labels: { 'org.opencontainers.image.title': 'a workload', 'org.opencontainers.image.base.digest': 'sha256:0' },
  },
  layers: async (directory) => {
    const root = join(directory, 'shell');
    await mkdir(join(root, 'opt/workloads'), { recursive: true });
    for (const name of ['verdict.py', 'memory.py'])
      await copyFile(join(REPOSITORY, 'test/workloads', name), join(root, 'opt/workloads', name));
    const script = '#!/bin/sh\nexec /usr/bin/python3 -u /opt/workloads/memory.py "$@"\n';
    await writeFile(join(root, 'opt/entry.sh'), script);
    await host(['chmod', '-R', 'u=rwX,go=rX', root]);
    return [join(CACHE, 'workload-base.tar'), root];
  },
};

/** An image with one static program: no shell, no C library, no /usr. */
export const BARE_BASE: Base = {
  name: 'test.local/workload-alone:1',
  config: {
    User: '65532:65532',
    Env: ['PATH=/', 'WORKER_MODE=bare'],
    Entrypoint: ['/worker'],
    Cmd: ['tiny'],
    WorkingDir: '/',
    StopSignal: 'SIGTERM',
  },
  layers: async (directory) => {
    const root = join(directory, 'bare');
    await mkdir(root);
    const source = resolve(import.meta.dirname, 'counter.c');
    await host(['gcc', '-O2', '-Wall', '-static', '-o', join(root, 'worker'), source]);
    return [root];
  },
};

/** Makes the image of a workload as an archive of `docker save`. */
async function makeBase(base: Base, directory: string): Promise<string> {
  const layers: string[] = [];
  for (const [index, from] of (await base.layers(directory)).entries()) {
    const layer = join(directory, `layer-${index}.tar`);
    await (from.endsWith('.tar')
      ? copyFile(from, layer)
      : host(['tar', '-C', from, '--owner=0', '--group=0', '-cf', layer, '.']));
    layers.push('--layer', `${layer}=somebody`);
  }
  const image = join(directory, 'image.json');
  await writeFile(image, JSON.stringify(base.config));
  const out = join(directory, 'base');
  await host(['node', '--import', 'tsx', ASSEMBLE, '--out', out, '--name', base.name, '--image', image, ...layers]);
  await host(['tar', '-C', out, '-cf', `${out}.tar`, '.']);
  await host(['rm', '-r', out]);
  return `${out}.tar`;
}

async function inspect(archive: string, directory: string): Promise<MadeImage> {
  await mkdir(directory);
  await host(['tar', '-C', directory, '-xf', archive]);
  const json = async (name: string) => JSON.parse(await host(['cat', join(directory, name)])) as unknown;
  const [image] = (await json('manifest.json')) as { Config: string; RepoTags: string[]; Layers: string[] }[];
  if (image === undefined) throw new Error(`${archive} has no image`);
  const { config } = (await json(image.Config)) as Pick<MadeImage, 'config'>;
  const added = await host(['tar', '-tf', join(directory, image.Layers.at(-1) ?? '')]);
  await host(['rm', '-r', directory]);
  return { name: image.RepoTags[0] ?? '', config, layers: image.Layers.length, added: added.trim().split('\n') };
}

/** Makes a placeholder image over this base with the shipped script, and gives it to a cluster's runtime. Says what it is. */
export async function importPlaceholder(cluster: Cluster, base: Base): Promise<MadeImage> {
  const directory = join(cluster.directory, base.name.replace(/\W/g, '-'));
  await mkdir(directory);
  const archive = join(directory, 'placeholder.tar');
  const name = base.name.replace(':1', '-placeholder:1');
  await host([MAKE_IMAGE, 'placeholder', name, archive, await makeBase(base, directory)]);
  const made = await inspect(archive, join(directory, 'inspected'));
  await host(['ctr', '--address', cluster.socketPath, '--namespace', 'k8s.io', 'images', 'import', archive]);
  await host(['rm', '-r', directory]);
  return made;
}
