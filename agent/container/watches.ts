import { lstat, readdir, readFile } from 'node:fs/promises';
import { readDescriptors, type TreeProcess } from './tree.ts';

/** No more entries of the container's files are looked at than this, so that a huge root filesystem does not hold up a checkpoint. */
const MAX_ENTRIES = 300_000;
/** Where watched files usually lie comes first; kernel filesystems never. */
const FIRST = ['/tmp', '/app', '/etc', '/var', '/opt', '/home', '/srv', '/data', '/root', '/run'];
const NEVER = new Set(['/proc', '/sys', '/dev']);

/**
 * Directories that CRIU must search to find what inotify descriptors watch: an overlay cannot open a file by its handle, and
 * CRIU only knows inode numbers. Done before the freeze. Only inode numbers are read and no symlink is followed; the
 * result is a path that CRIU resolves inside the container.
 */
export async function watchedDirectories(procRoot: string, tree: readonly TreeProcess[]): Promise<string[]> {
  const inodes = new Set<number>();
  for (const { stat } of tree)
    for (const [fd, target] of await readDescriptors(procRoot, stat.pid)) {
      if (target !== 'anon_inode:inotify') continue;
      const info = await readFile(`${procRoot}/${stat.pid}/fdinfo/${fd}`, 'utf8').catch(() => '');
      for (const [, ino] of info.matchAll(/^inotify wd:\S+ ino:([0-9a-f]+) /gm))
        inodes.add(Number.parseInt(ino ?? '', 16));
    }
  const main = tree[0];
  if (inodes.size === 0 || main === undefined) return [];
  return findInodes(`${procRoot}/${main.stat.pid}/root`, inodes);
}

/** Walks the tree below `root` breadth first, and collects the directories that hold a wanted inode or are one, the root last. */
async function findInodes(root: string, wanted: Set<number>): Promise<string[]> {
  const top = (await readdir(root).catch(() => [])).map((name) => `/${name}`).filter((path) => !NEVER.has(path));
  const queue = ['', ...FIRST.filter((path) => top.includes(path)), ...top];
  const found = new Set<string>();
  const seen = new Set<string>();
  let looked = 0;
  for (let at = 0; at < queue.length && wanted.size > 0 && looked < MAX_ENTRIES; at++) {
    const directory = queue[at] ?? '';
    if (seen.has(directory)) continue;
    seen.add(directory);
    // `root` itself is procfs's link into the container, which is to be followed; nothing below it is.
    const stat = await lstat(root + (directory || '/')).catch(() => undefined);
    if (!stat?.isDirectory()) continue;
    if (wanted.delete(stat.ino)) found.add(directory || '/');
    const { files, directories } = await entriesOf(root, directory);
    if (directory !== '') queue.push(...directories);
    looked += files.length + directories.length;
    // CRIU searches a directory with all below it: of the root directory only the file itself is named.
    for (const { name, ino } of files) if (wanted.delete(ino)) found.add(directory || `/${name}`);
  }
  return [...found].toSorted((a, b) => Number(a === '/') - Number(b === '/'));
}

async function entriesOf(
  root: string,
  directory: string,
): Promise<{ files: { name: string; ino: number }[]; directories: string[] }> {
  const entries = await readdir(root + directory, { withFileTypes: true }).catch(() => []);
  const files = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async ({ name }) => {
        const stat = await lstat(`${root}${directory}/${name}`).catch(() => undefined);
        return { name, ino: stat?.ino ?? -1 };
      }),
  );
  return {
    files,
    directories: entries.filter((entry) => entry.isDirectory()).map((entry) => `${directory}/${entry.name}`),
  };
}
