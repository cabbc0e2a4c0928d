import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Part } from './part.ts';

const FIELDS = ['Package', 'Version', 'Architecture', 'source:Package', 'source:Version'] as const;

/** A package as dpkg has it. */
interface Package {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sourceName: string;
  readonly sourceVersion: string;
}

/** The installed packages of a Debian root, or those of them that are named. Throws where dpkg knows one of these not. */
function packagesOf(root: string, names: readonly string[] = []): Package[] {
  const format = `${FIELDS.map((field) => `\${${field}}`).join('\t')}\t\${db:Status-Status}\n`;
  const query = [`--admindir=${join(root, 'var/lib/dpkg')}`, '--show', `--showformat=${format}`, ...names];
  const lines = execFileSync('dpkg-query', query, { encoding: 'utf8', maxBuffer: 16 << 20 })
    .trim()
    .split('\n');
  return lines
    .map((line) => line.split('\t'))
    .filter((fields) => fields.at(-1) === 'installed')
    .map(([name = '', version = '', architecture = '', sourceName = '', sourceVersion = '']) => {
      return { name, version, architecture, sourceName, sourceVersion };
    });
}

/** What the copyright file of a Debian package calls its licences. Files of the old form name them by the texts that they refer to. */
export function licencesIn(copyright: string): string[] {
  const stated = [...copyright.matchAll(/^License:[ \t]*(\S.*)$/gm)].map(([, name = '']) => name.trim());
  const referred = [...copyright.matchAll(/\/usr\/share\/common-licenses\/([\w.-]*\w)/g)].map(([, name = '']) => name);
  return [...new Set(stated.length > 0 ? stated : referred)].sort();
}

function purlOf({ name, version, architecture }: Package, codename: string): string {
  return `pkg:deb/debian/${encodeURIComponent(name)}@${encodeURIComponent(version)}?arch=${architecture}&distro=${codename}`;
}

function release(root: string): { codename: string; version: string } {
  const text = readFileSync(join(root, 'etc/os-release'), 'utf8');
  return {
    codename: /^VERSION_CODENAME=(\w+)$/m.exec(text)?.[1] ?? 'none',
    version: readFileSync(join(root, 'etc/debian_version'), 'utf8').trim(),
  };
}

function partOf(root: string, one: Package): Omit<Part, 'text'> & { copyright: string } {
  const { name, version, sourceName, sourceVersion } = one;
  const copyright = `/usr/share/doc/${name}/copyright`;
  const path = join(root, copyright);
  if (!existsSync(path))
    throw new Error(`${path} is not there: the root was made without the copyright files of its packages`);
  return {
    kind: 'library',
    name,
    version,
    purl: purlOf(one, release(root).codename),
    licences: licencesIn(readFileSync(path, 'utf8')),
    copyright,
    ...(sourceName === name && sourceVersion === version ? {} : { source: `${sourceName} ${sourceVersion}` }),
  };
}

/** The packages of an image's Debian root, and the system itself. Their licences' texts are in the image already. */
export function debianParts(root: string): Part[] {
  const system: Part = {
    kind: 'operating-system',
    name: 'debian',
    version: release(root).version,
    licences: [],
    text: { inImage: '/usr/share/common-licenses' },
  };
  const packages = packagesOf(root).map((one): Part => {
    const { copyright, ...part } = partOf(root, one);
    return { ...part, text: { inImage: copyright } };
  });
  return [system, ...packages];
}

/** Packages of this machine of which a program has pieces: their licences' texts are to be copied. */
export function linkedParts(names: readonly string[], within: string): Part[] {
  if (names.length === 0) return [];
  return packagesOf('/', names).map((one): Part => {
    const { copyright, ...part } = partOf('/', one);
    return { ...part, text: { copyOf: [copyright] }, within: [within] };
  });
}
