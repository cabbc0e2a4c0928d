import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The configuration of an image, as its archive has it: what is not touched here stays as it is. */
export interface ImageConfig {
  readonly architecture: string;
  readonly os: string;
  readonly config?: { readonly Labels?: Readonly<Record<string, string>> | null };
  readonly rootfs: { readonly type: 'layers'; readonly diff_ids: readonly string[] };
  readonly history?: readonly object[];
}

/** An image that another one is put upon. */
export interface BaseImage {
  readonly name: string | undefined;
  readonly config: ImageConfig;
  /** Its layers' files, in order; they may be compressed. */
  readonly layers: readonly string[];
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: { readonly architecture: string };
}

const json = <T>(path: string) => JSON.parse(readFileSync(path, 'utf8')) as T;

/** Reads the only image of an unpacked archive, as `docker save`, `podman save` and `skopeo copy` make them. Throws where there are several. */
export function readBase(directory: string): BaseImage {
  if (existsSync(join(directory, 'manifest.json'))) return fromDockerArchive(directory);
  if (existsSync(join(directory, 'index.json'))) return fromOciLayout(directory);
  throw new Error('the archive of the base image has neither manifest.json nor index.json');
}

function only<T>(all: readonly T[]): T {
  const [one, another] = all;
  if (one === undefined || another !== undefined)
    throw new Error(`the archive has ${all.length} images for amd64, and the base must be one: save it alone`);
  return one;
}

function fromDockerArchive(directory: string): BaseImage {
  const all = json<{ Config: string; RepoTags?: string[] | null; Layers: string[] }[]>(
    join(directory, 'manifest.json'),
  );
  const { Config, RepoTags, Layers } = only(all);
  return {
    name: RepoTags?.[0],
    config: json(join(directory, Config)),
    layers: Layers.map((layer) => join(directory, layer)),
  };
}

function fromOciLayout(directory: string): BaseImage {
  const blob = ({ digest }: Descriptor) => join(directory, 'blobs', ...digest.split(':'));
  let found = only(json<{ manifests: Descriptor[] }>(join(directory, 'index.json')).manifests);
  const { annotations = {} } = found;
  const name = annotations['io.containerd.image.name'] ?? annotations['org.opencontainers.image.ref.name'];
  if (/index|manifest\.list/.test(found.mediaType)) {
    const { manifests } = json<{ manifests: Descriptor[] }>(blob(found));
    found = only(manifests.filter(({ platform }) => platform?.architecture === 'amd64'));
  }
  const { config, layers } = json<{ config: Descriptor; layers: Descriptor[] }>(blob(found));
  return { name, config: json(blob(config)), layers: layers.map(blob) };
}
