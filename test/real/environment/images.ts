import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, copyFile, link, lstat, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { CACHE, host, REPOSITORY } from './host.ts';

/** Images that every cluster has. Workload and placeholder share their layers but the placeholder's last one. */
export const IMAGES = {
  pause: 'test.local/pause:1',
  workload: 'test.local/workload:1',
  placeholder: 'test.local/placeholder:1',
} as const;

const HERE = resolve(REPOSITORY, 'test/real/environment');
const STANDBY = resolve(REPOSITORY, 'native/build/snapshot-standby');

interface Blob {
  readonly digest: string;
  readonly size: number;
  readonly path: string;
}

interface ImagePlan {
  readonly name: string;
  readonly layers: readonly Blob[];
  readonly command: readonly string[];
}

async function blobOf(path: string): Promise<Blob> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return { digest: hash.digest('hex'), size: (await lstat(path)).size, path };
}

/** The digest of a file that changes rarely, remembered beside it. */
async function rememberedBlob(path: string): Promise<Blob> {
  const { size, mtimeMs } = await lstat(path);
  const memory = `${path}.digest`;
  const state = `${size} ${mtimeMs}`;
  const [known, digest] = existsSync(memory) ? (await readFile(memory, 'utf8')).split('\n') : [];
  if (known === state && digest) return { digest, size, path };
  const blob = await blobOf(path);
  await writeFile(memory, `${state}\n${blob.digest}\n`);
  return blob;
}

/** Writes an OCI image layout with these images as one archive, as `ctr images import` takes it. */
async function writeArchive(archive: string, images: readonly ImagePlan[], work: string): Promise<void> {
  const layout = join(work, 'layout');
  const blobs = join(layout, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const addLayer = async (layer: Blob) => {
    const path = join(blobs, layer.digest);
    if (!existsSync(path)) await link(layer.path, path);
    return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: `sha256:${layer.digest}`, size: layer.size };
  };
  const addJson = async (mediaType: string, value: unknown) => {
    const text = JSON.stringify(value);
    const digest = createHash('sha256').update(text).digest('hex');
    await writeFile(join(blobs, digest), text);
    return { mediaType, digest: `sha256:${digest}`, size: Buffer.byteLength(text) };
  };
  const manifests: object[] = [];
  for (const image of images) {
    const layers = await Promise.all(image.layers.map(addLayer));
    const config = await addJson('application/vnd.oci.image.config.v1+json', {
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: image.command },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.digest) },
      history: layers.map(() => ({ created_by: 'test environment' })),
    });
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const manifest = await addJson(mediaType, { schemaVersion: 2, mediaType, config, layers });
    manifests.push({ ...manifest, annotations: { 'io.containerd.image.name': image.name } });
  }
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  const unfinished = join(work, 'images.tar');
  await host(['tar', '-C', layout, '-cf', unfinished, 'oci-layout', 'index.json', 'blobs']);
  await rename(unfinished, archive);
}

/** A layer whose bytes depend on nothing but names, modes and contents. */
async function layerOf(directory: string, archive: string): Promise<Blob> {
  await host([
    'tar',
    '-C',
    directory,
    '--sort=name',
    '--mtime=@0',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-cf',
    archive,
    '.',
  ]);
  return blobOf(archive);
}

/** Files that the files workload finds in its image and then changes, removes or replaces. */
async function writeImageFiles(root: string): Promise<void> {
  const files: Record<string, string> = {
    'removed.txt': 'removed by the workload\n',
    'appended.txt': 'from the image\n',
    'mode.txt': 'mode 0644 in the image\n',
    'owner.txt': 'owned by root in the image\n',
    'renamed.txt': 'renamed by the workload\n',
    'replaced-by-directory': 'a file in the image\n',
    'removed-directory/one.txt': 'one\n',
    'removed-directory/sub/two.txt': 'two\n',
    'opaque/old-one.txt': 'hidden once the directory is made anew\n',
    'opaque/sub/old-two.txt': 'hidden too\n',
    'kept/untouched.txt': 'untouched\n',
  };
  for (const [name, content] of Object.entries(files)) {
    const path = join(root, 'srv/image', name);
    await mkdir(resolve(path, '..'), { recursive: true });
    await writeFile(path, content);
  }
}

async function workloadLayer(work: string): Promise<Blob> {
  const root = join(work, 'workloads');
  const scripts = join(root, 'opt/workloads');
  await mkdir(scripts, { recursive: true });
  const source = resolve(REPOSITORY, 'test/workloads');
  for (const name of readdirSync(source).filter((one) => one.endsWith('.py')))
    await copyFile(join(source, name), join(scripts, name));
  await writeImageFiles(root);
  await host(['chmod', '-R', 'u=rwX,go=rX', root]);
  return layerOf(root, join(work, 'workloads.tar'));
}

async function programLayer(
  work: string,
  name: string,
  target: string,
  place: (path: string) => Promise<unknown>,
): Promise<Blob> {
  const root = join(work, name);
  await mkdir(resolve(join(root, target), '..'), { recursive: true });
  await place(join(root, target));
  await chmod(join(root, target), 0o755);
  return layerOf(root, join(work, `${name}.tar`));
}

/**
 * Makes the archive with all images, or finds the one made before. The archive is named after what is in it, so that runs at
 * the same time do not disturb each other.
 */
export async function imageArchive(): Promise<string> {
  const baseArchive = join(CACHE, 'workload-base.tar');
  const makeRoot = resolve(REPOSITORY, 'deploy/images/make-root.sh');
  await host([makeRoot, join(HERE, 'workload-packages.txt'), baseArchive], { timeoutMs: 600_000 });
  const work = await mkdtemp(join(CACHE, 'images-'));
  try {
    const base = await rememberedBlob(baseArchive);
    const workloads = await workloadLayer(work);
    const pause = await programLayer(work, 'pause', 'pause', (path) =>
      host(['gcc', '-Os', '-static', '-o', path, join(HERE, 'pause.c')]),
    );
    const images: ImagePlan[] = [
      { name: IMAGES.pause, layers: [pause], command: ['/pause'] },
      { name: IMAGES.workload, layers: [base, workloads], command: ['/usr/bin/python3'] },
    ];
    if (existsSync(STANDBY)) {
      const target = 'usr/local/bin/snapshot-standby';
      const standby = await programLayer(work, 'standby', target, (path) => copyFile(STANDBY, path));
      images.push({ name: IMAGES.placeholder, layers: [base, workloads, standby], command: [`/${target}`] });
    }
    const plan = JSON.stringify(
      images.map(({ name, layers, command }) => [name, command, layers.map((layer) => layer.digest)]),
    );
    const key = createHash('sha256')
      .update(plan)
      .update(readFileSync(import.meta.filename))
      .digest('hex')
      .slice(0, 16);
    const archive = join(CACHE, `images-${key}.tar`);
    if (!existsSync(archive)) {
      await writeArchive(archive, images, work);
      await removeOlder(/^images-[0-9a-f]{16}\.tar$/, basename(archive));
    }
    return archive;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Removes from the cache what earlier builds made under such names, but for the last two: another run may be using them. */
export async function removeOlder(names: RegExp, current: string): Promise<void> {
  const others = readdirSync(CACHE).filter((name) => names.test(name) && name !== current);
  const dated = await Promise.all(
    others.map(async (name) => ({ name, time: (await lstat(join(CACHE, name))).mtimeMs })),
  );
  dated.sort((a, b) => b.time - a.time);
  for (const { name } of dated.slice(2)) await rm(join(CACHE, name), { recursive: true, force: true });
}
