import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { type BaseImage, type ImageConfig, readBase } from './base.ts';

/**
 * main.ts --out DIR --name NAME --image image.json --layer FILE=WHAT... [--base DIR]
 *
 * Puts an image together in the new directory DIR, in the form of `docker save`, which becomes an archive with tar: the layers FILE (which
 * are moved), said to be made by WHAT, above those of the image in --base, an unpacked archive. What image.json says is added to what the
 * base says. SOURCE_DATE_EPOCH, where it is set, is when the image was made; without it that is left as the base has it.
 */

const BASE_NAME = 'org.opencontainers.image.base.name';
const BASE_DIGEST = 'org.opencontainers.image.base.digest';

const EMPTY: BaseImage = {
  name: undefined,
  config: { architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } },
  layers: [],
};

async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** The labels: what the base says, without what is not true of this image, and then what image.json says. */
function labelsOf(base: BaseImage, own: object | undefined): Record<string, string> {
  const { [BASE_NAME]: _name, [BASE_DIGEST]: _digest, ...kept } = base.config.config?.Labels ?? {};
  return { ...kept, ...(base.name === undefined ? {} : { [BASE_NAME]: base.name }), ...own };
}

function created(): object {
  const seconds = process.env['SOURCE_DATE_EPOCH'];
  return seconds === undefined ? {} : { created: new Date(Number(seconds) * 1000).toISOString() };
}

/** Moves the layers to where the archive has them, those of the base first. */
async function placeLayers(out: string, base: BaseImage, added: readonly string[]) {
  const names: string[] = [];
  const place = (file: string, digest: string) => {
    const name = `${digest}.tar`;
    names.push(name);
    // An image may have the same layer twice: older archives have a link then.
    if (!existsSync(join(out, name))) renameSync(realpathSync(file), join(out, name));
  };
  base.layers.forEach((file, index) => {
    place(file, base.config.rootfs.diff_ids[index]?.replace('sha256:', '') ?? basename(file));
  });
  const history: object[] = [];
  const digests: string[] = [];
  for (const one of added) {
    const [file = '', what = ''] = one.split('=');
    const digest = await digestOf(file);
    digests.push(`sha256:${digest}`);
    history.push({ created_by: what });
    place(file, digest);
  }
  return { names, digests, history };
}

/** What is asked for. Throws where something is missing, or where the base is for another machine. */
function readRequest() {
  const text = { type: 'string' } as const;
  const options = { out: text, name: text, image: text, base: text };
  const { values } = parseArgs({ options: { ...options, layer: { type: 'string', multiple: true } } });
  const { out, name, image, layer: added = [] } = values;
  if (out === undefined || name === undefined || image === undefined)
    throw new Error('--out, --name and --image are needed');
  const base = values.base === undefined ? EMPTY : readBase(values.base);
  const { architecture, os } = base.config;
  if (architecture !== 'amd64' || os !== 'linux')
    throw new Error(`the base image is for ${os}/${architecture}, and images are made for linux/amd64 only`);
  return { out, name, image, base, added };
}

async function main(): Promise<void> {
  const { out, name, image, base, added } = readRequest();
  mkdirSync(out);
  const { names, digests, history } = await placeLayers(out, base, added);
  const own = JSON.parse(readFileSync(image, 'utf8')) as { Labels?: Record<string, string> };
  const below = base.config.rootfs.diff_ids;
  const config: ImageConfig = {
    ...base.config,
    ...created(),
    config: { ...base.config.config, ...own, Labels: labelsOf(base, own.Labels) },
    rootfs: { type: 'layers', diff_ids: [...below, ...digests] },
    history: [...(base.config.history ?? below.map(() => ({ created_by: 'not known' }))), ...history],
  };
  const written = JSON.stringify(config, null, 1);
  const id = createHash('sha256').update(written).digest('hex');
  writeFileSync(join(out, `${id}.json`), written);
  const manifest = [{ Config: `${id}.json`, RepoTags: [name], Layers: names }];
  writeFileSync(join(out, 'manifest.json'), JSON.stringify(manifest));
  process.stdout.write(`sha256:${id}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`archive: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
