import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { readImage } from './file.ts';
import { corrupt, type Message, parseMessage, required, text, uint } from './wire.ts';

/** A mount of the images. Mount points are absolute inside the container. */
export interface ImageMount {
  /** Number of the mount namespace whose table it is in. */
  readonly namespace: number;
  readonly id: number;
  readonly parent: number;
  readonly mountPoint: string;
  readonly fstype: string;
  readonly source: string;
  /** The part of the filesystem that is mounted, "/" for all of it. */
  readonly root: string;
  /** MS_ flags of mount(2). */
  readonly flags: number;
  /** The external key (as in `--external mnt[KEY]`), undefined for a mount that CRIU makes itself. */
  readonly externalKey: string | undefined;
  readonly usesPlugin: boolean;
}

/** Filesystems by CRIU's number; `auto` is named by the image, and so by whoever wrote it. */
const FSTYPES = [
  'unsupported',
  'proc',
  'sysfs',
  'devtmpfs',
  'binfmt_misc',
  'tmpfs',
  'devpts',
  'simfs',
  'pstore',
  'securityfs',
  'fusectl',
  'debugfs',
  'cgroup',
  'aufs',
  'mqueue',
  'fuse',
  'auto',
  'overlay',
  'autofs',
  'tracefs',
  'reserved',
  'reserved',
  'reserved',
  'cgroup2',
] as const;

function readMount(message: Message, namespace: number): ImageMount {
  const code = required(uint(message, 1), message, 'the filesystem');
  const root = required(text(message, 6), message, 'the root');
  const mountPoint = required(text(message, 7), message, 'the mount point');
  if (!mountPoint.startsWith('/') || mountPoint.split('/').includes('..')) {
    throw corrupt(`${message.name}: mount point ${mountPoint} is not absolute and plain`);
  }
  const oldStyleExternal = uint(message, 13) === 1 ? root : undefined;
  return {
    namespace,
    id: required(uint(message, 2), message, 'the id'),
    parent: required(uint(message, 4), message, 'the parent'),
    mountPoint,
    fstype: FSTYPES[code] ?? `unknown (${code})`,
    source: text(message, 8) ?? '',
    root,
    flags: required(uint(message, 5), message, 'the flags'),
    externalKey: text(message, 18) ?? oldStyleExternal,
    usesPlugin: uint(message, 12) === 1,
  };
}

/** All mounts of all mount namespaces of the images, in file order. */
export async function readMounts(dir: string): Promise<ImageMount[]> {
  const mounts: ImageMount[] = [];
  for (const name of (await readdir(dir)).sort()) {
    const namespace = /^mountpoints-(\d{1,10})\.img$/.exec(name)?.[1];
    if (namespace === undefined) continue;
    const { entries } = await readImage(path.join(dir, name), 'mountpoints');
    for (const [index, entry] of entries.entries()) {
      mounts.push(readMount(parseMessage(entry, `${name} entry ${index}`), Number(namespace)));
    }
  }
  return mounts;
}
