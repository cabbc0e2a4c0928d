import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readImage } from './file.ts';
import { inner, parseMessage, required, text, uint } from './wire.ts';

/** A file that areas of memory can be mapped from. */
export interface MappedFile {
  /** Inside the container, as /proc/PID/maps has it. */
  readonly path: string;
  readonly isDevice: boolean;
  /** For a memfd: the id of the images of its content. */
  readonly content: number | undefined;
}

/** What the kernel calls shared memory that nobody named; CRIU takes it for a memfd of that name. */
const UNNAMED = '/dev/zero';
const S_IFMT = 0o170000;
const CHARACTER_DEVICE = 0o020000;

/** Regular files, device nodes and memfds of files.img by id. Others cannot be mapped. */
export async function readMappedFiles(dir: string): Promise<ReadonlyMap<number, MappedFile>> {
  const inodes = await readMemfds(dir);
  const found = new Map<number, MappedFile>();
  for (const entry of (await readImage(join(dir, 'files.img'), 'files')).entries) {
    const file = parseMessage(entry, 'files.img');
    const id = required(uint(file, 2), file, 'the id');
    const regular = inner(file, 3, 'regular file');
    const memfd = inner(file, 20, 'memfd');
    if (regular !== undefined) {
      const isDevice = ((uint(regular, 10) ?? 0) & S_IFMT) === CHARACTER_DEVICE;
      found.set(id, { path: required(text(regular, 6), regular, 'the path'), isDevice, content: undefined });
    } else if (memfd !== undefined) {
      const inode = inodes.get(required(uint(memfd, 5), memfd, 'the inode'));
      found.set(id, { path: inode?.path ?? '', isDevice: false, content: inode?.content });
    }
  }
  return found;
}

/** The memfds by the number that files.img has for each. */
async function readMemfds(dir: string): Promise<ReadonlyMap<number, Pick<MappedFile, 'path' | 'content'>>> {
  const inodes = new Map<number, Pick<MappedFile, 'path' | 'content'>>();
  if (!(await readdir(dir)).includes('memfd.img')) return inodes;
  for (const entry of (await readImage(join(dir, 'memfd.img'), 'memfd')).entries) {
    const inode = parseMessage(entry, 'memfd.img');
    const name = required(text(inode, 1), inode, 'the name');
    const path = name === UNNAMED ? '' : `/memfd:${name}`;
    inodes.set(required(uint(inode, 7), inode, 'the inode'), { path, content: uint(inode, 5) });
  }
  return inodes;
}
