import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Part } from './part.ts';

/** What `node build.mjs` notes: the places of the npm packages that each bundle has parts of. */
export type Bundles = Readonly<Record<string, readonly string[]>>;

/** Throws where the tree is not built. */
export function readBundles(tree: string): Bundles {
  return JSON.parse(readFileSync(join(tree, 'dist/packages.json'), 'utf8')) as Bundles;
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
}

/** The npm packages in a bundle. */
export function bundledParts(tree: string, program: string, places: readonly string[]): Part[] {
  return places.map((place): Part => {
    const directory = join(tree, place);
    const { name, version, license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest;
    const texts = readdirSync(directory).filter((file) => /^(licen[cs]e|copying|notice)([.-].*)?$/i.test(file));
    return {
      kind: 'library',
      name,
      version,
      purl: `pkg:npm/${name.replace('@', '%40')}@${encodeURIComponent(version)}`,
      licences: license === undefined ? [] : [license],
      text: { copyOf: texts.sort().map((file) => join(directory, file)) },
      within: [program],
    };
  });
}
