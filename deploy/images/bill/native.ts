import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { linkedParts } from './debian.ts';
import type { Part } from './part.ts';

/**
 * Files of this machine of which the linker took something into a program: archives by the members that it took, and start-up objects.
 * Shared libraries are not among them: they are not in the program.
 */
export function filesIn(map: string): string[] {
  const archives = [...map.matchAll(/^(\/\S+\.a)\(\S+\)/gm)].map(([, path = '']) => path);
  const objects = [...map.matchAll(/^LOAD (\/\S+\.o)$/gm)].map(([, path = '']) => path);
  return [...new Set([...archives, ...objects].map((path) => realpathSync(path)))].sort();
}

/** The package that a file belongs to. dpkg may know it by the path that it had before /lib became a link to /usr/lib. */
function packageWith(file: string): string {
  for (const path of [file, file.replace(/^\/usr/, '')]) {
    try {
      const answer = execFileSync('dpkg-query', ['--search', path], { encoding: 'utf8', stdio: 'pipe' });
      return answer.slice(0, answer.indexOf(': '));
    } catch {
      // Not by this path.
    }
  }
  throw new Error(`${file} is linked into a program and belongs to no Debian package: its licence is not known`);
}

/** Whether the build made a C program of this name. */
export function isNative(tree: string, program: string): boolean {
  return existsSync(mapOf(tree, program));
}

function mapOf(tree: string, program: string): string {
  return join(tree, 'native/build', `${program}.map`);
}

/** The packages of which a C program has pieces, as its linker's map says. To be asked on the machine that built it. */
export function nativeParts(tree: string, program: string): Part[] {
  const files = filesIn(readFileSync(mapOf(tree, program), 'utf8'));
  return linkedParts([...new Set(files.map(packageWith))].sort(), program);
}
