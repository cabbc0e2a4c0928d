import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { bundledParts, readBundles } from './bundle.ts';
import { billOf } from './cyclonedx.ts';
import { debianParts } from './debian.ts';
import { isNative, nativeParts } from './native.ts';
import { distinct, type Part } from './part.ts';

/**
 * main.ts IMAGE TREE ADDED [ROOT]
 *
 * Writes the bill of materials of an image into ADDED/usr/share/snapshot: bom.json (CycloneDX), licenses.txt, and the texts of the
 * licences that are not in the image anyway. ADDED is what install.sh laid out from the built tree TREE; ROOT the Debian root below it.
 * Without one the bill is of what is added alone: of a base image that is somebody else's, nothing is said.
 */

const SHARE = 'usr/share/snapshot';
const OURS = 'Apache-2.0';

interface Request {
  readonly image: string;
  readonly tree: string;
  readonly added: string;
  readonly root?: string;
}

/** Our programs among what was laid out, by the names that the build gave them. */
function programsIn(added: string, isProgram: (name: string) => boolean): string[] {
  const files = readdirSync(added, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return [...new Set(files.map(({ name }) => basename(name, '.mjs')).filter(isProgram))].sort();
}

function ourParts({ tree, added }: Request, version: string): Part[] {
  const bundles = readBundles(tree);
  const programs = programsIn(added, (name) => name in bundles || isNative(tree, name));
  if (programs.length === 0)
    throw new Error(`none of our programs is in ${added}, as far as the build in ${tree} knows: run 'make build'`);
  return programs.flatMap((name) => {
    const text = { inImage: `/${SHARE}/LICENSE` };
    const program: Part = { kind: 'application', name, version, licences: [OURS], text };
    const places = bundles[name];
    return [program, ...(places === undefined ? nativeParts(tree, name) : bundledParts(tree, name, places))];
  });
}

/** CRIU where it was built from its sources: build-criu.sh says from which. */
function builtCriu(root: string): Part[] {
  const note = join(root, SHARE, 'criu-source.txt');
  if (!existsSync(note)) return [];
  const said = new Map(
    readFileSync(note, 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.split(' ') as [string, string]),
  );
  const origin = { repository: said.get('repository') ?? '', commit: said.get('commit') ?? '' };
  const text = { inImage: '/usr/share/doc/criu/copyright' };
  const version = said.get('version') ?? '';
  return [{ kind: 'application', name: 'criu', version, licences: ['GPL-2.0-only'], text, origin }];
}

/** Copies the texts of a part's licence into the image, and says where they are. */
function placeText(part: Part, added: string): string {
  if ('inImage' in part.text) return part.text.inImage;
  const directory = `${SHARE}/licenses/${part.name.replace('/', '-')}-${part.version.replace(/[^\w.+~-]/g, '-')}`;
  mkdirSync(join(added, directory), { recursive: true });
  for (const file of part.text.copyOf) cpSync(file, join(added, directory, basename(file)), { dereference: true });
  return `/${directory}`;
}

function listed(part: Part, place: string): string {
  const within = part.within === undefined ? '' : ` (in ${part.within.join(', ')})`;
  const licences = part.licences.length === 0 ? 'see its text' : part.licences.join(', ');
  return `${part.name} ${part.version}${within}: ${licences}\n    ${place}\n`;
}

function writeBill(request: Request): void {
  const { image, tree, added, root } = request;
  const { version } = JSON.parse(readFileSync(join(tree, 'package.json'), 'utf8')) as { version: string };
  const below = root === undefined ? [] : [...debianParts(root), ...builtCriu(root)];
  const parts = distinct([...ourParts(request, version), ...below]);
  const share = join(added, SHARE);
  mkdirSync(share, { recursive: true });
  cpSync(join(tree, 'LICENSE'), join(share, 'LICENSE'));
  const lines = parts.map((part) => listed(part, placeText(part, added)));
  writeFileSync(
    join(share, 'bom.json'),
    `${JSON.stringify(billOf({ name: `snapshot-${image}`, version }, parts), null, 1)}\n`,
  );
  writeFileSync(join(share, 'licenses.txt'), lines.join(''));
}

const [image, tree, added, root] = process.argv.slice(2);
if (image === undefined || tree === undefined || added === undefined) {
  process.stderr.write('usage: main.ts IMAGE TREE ADDED [ROOT]\n');
  process.exit(2);
}
writeBill({
  image,
  tree: resolve(tree),
  added: resolve(added),
  ...(root === undefined ? {} : { root: resolve(root) }),
});
