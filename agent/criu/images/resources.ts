import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { readFirstEntry, readImage, readOnlyEntry } from './file.ts';
import { bytesOf, inner, type Message, parseMessage, text, uint } from './wire.ts';

/** Things that the images ask for from outside of the container, or that need privileges to make. */
export interface Resources {
  /** External keys other than mounts, as CRIU writes them: `extNetNs`, `tty[8800:36]`, `file[…]`. */
  readonly externalKeys: readonly string[];
  /** Descriptors that only a privileged process can open: what it is, and the capability number for it. */
  readonly privileged: readonly { readonly what: string; readonly capability: number }[];
  /** Deleted files that are device nodes. */
  readonly devices: readonly string[];
  /** Files that CRIU reads and that an image directory of this system never has (old formats, network dumps, a `parent` link). */
  readonly unknownImages: readonly string[];
  /** True where a network namespace is to be made instead of joined. */
  readonly privateNetwork: boolean;
  /** True where AppArmor policy is to be loaded into the kernel. */
  readonly apparmorPolicy: boolean;
}

const CAP_NET_ADMIN = 12;
const CAP_NET_RAW = 13;
const CAP_SYS_ADMIN = 21;

const SOCK_RAW = 3;
/** CRIU's mark of a socket whose other end is outside of the images. */
const EXTERNAL_UNIX = 1;
const S_IFMT = 0o170000;
const DEVICES = new Set([0o020000, 0o060000]);

/** Image names of CRIU 4 dumps of containers. What is not here is refused by name. */
const KNOWN = [
  /^(inventory|pstree|files|seccomp|cgroup|remap-fpath|memfd|filelocks|tty-info|apparmor|pidfd|cpuinfo)\.img$/,
  /^(fifo-data|pipes-data|sk-queues|tty-data|eventpoll-tfd|inotify-wd|fanotify-mark)\.img$/,
  /^(core|ids|mm|fdinfo|fs|timens|pidns|utsns|mountpoints|netns|ipcns-(var|shm|msg|sem))-\d{1,10}\.img$/,
  /^(pagemap|pages|pagemap-shmem)-\d{1,20}\.img$/,
  /^(ghost-file|tcp-stream)-[0-9a-f]{1,16}\.img$/,
  /^tmpfs-(dev-)?\d{1,10}\.tar\.gz\.img$/,
  /^(stats-dump|dump\.log|stats-restore|restore\.log)$/,
];

interface Found {
  readonly externalKeys: string[];
  readonly privileged: { what: string; capability: number }[];
}

/** Looks at one entry of files.img; the numbers are the fields of CRIU's file_entry. */
function lookAtFile(file: Message, ttys: ReadonlyMap<number, string>, found: Found): void {
  const has = (number: number) => bytesOf(file, number) !== undefined;
  const id = uint(file, 2) ?? 0;
  const regular = inner(file, 3, 'regular file');
  if (regular !== undefined && uint(regular, 9)) found.externalKeys.push(`file[${text(regular, 6)}]`);
  if (has(15)) found.externalKeys.push(`external file ${id}`);
  const tty = inner(file, 19, 'terminal');
  const key = tty === undefined ? undefined : ttys.get(uint(tty, 2) ?? -1);
  if (key !== undefined) found.externalKeys.push(key);
  const unix = inner(file, 16, 'unix socket');
  if (unix !== undefined && (uint(unix, 6) ?? 0) & EXTERNAL_UNIX) found.externalKeys.push(`unix[${uint(unix, 2)}]`);
  const inet = inner(file, 4, 'inet socket');
  if (inet !== undefined && uint(inet, 4) === SOCK_RAW)
    found.privileged.push({ what: 'a raw socket', capability: CAP_NET_RAW });
  if (has(6)) found.privileged.push({ what: 'a packet socket', capability: CAP_NET_RAW });
  if (has(11)) found.privileged.push({ what: 'a TUN device', capability: CAP_NET_ADMIN });
  if (has(14)) found.privileged.push({ what: 'a fanotify group', capability: CAP_SYS_ADMIN });
  if (has(21)) found.privileged.push({ what: 'a BPF map', capability: CAP_SYS_ADMIN });
}

const EXTERNAL_TTY = 5;

/** Terminals by id that come from outside, with the key under which CRIU asks for them. */
async function externalTtys(dir: string, names: readonly string[]): Promise<Map<number, string>> {
  const ttys = new Map<number, string>();
  if (!names.includes('tty-info.img')) return ttys;
  for (const entry of (await readImage(path.join(dir, 'tty-info.img'), 'ttyInfo')).entries) {
    const tty = parseMessage(entry, 'tty-info.img');
    const hex = (number: number) => (uint(tty, number) ?? 0).toString(16);
    if (uint(tty, 2) === EXTERNAL_TTY) ttys.set(uint(tty, 1) ?? -1, `tty[${hex(8)}:${hex(13)}]`);
  }
  return ttys;
}

async function deviceGhosts(dir: string, names: readonly string[]): Promise<string[]> {
  const devices: string[] = [];
  for (const name of names.filter((candidate) => /^ghost-file-/.test(candidate))) {
    const ghost = parseMessage(await readFirstEntry(path.join(dir, name), 'ghostFile'), name);
    if (DEVICES.has((uint(ghost, 3) ?? 0) & S_IFMT)) devices.push(name);
  }
  return devices;
}

/** External keys of namespaces; a network namespace without one would be made anew. */
async function namespaceKeys(dir: string, names: readonly string[]) {
  const keys: string[] = [];
  let privateNetwork = false;
  for (const name of names) {
    const kind = /^(netns|pidns)-\d+\.img$/.exec(name)?.[1];
    if (kind !== 'netns' && kind !== 'pidns') continue;
    const entry = parseMessage(await readOnlyEntry(path.join(dir, name), kind), name);
    const key = text(entry, kind === 'netns' ? 8 : 1);
    if (key !== undefined) keys.push(key);
    else if (kind === 'netns') privateNetwork = true;
  }
  return { keys, privateNetwork };
}

/** Reads what the images need from outside. `knownNames`: files that the agent itself put beside the images. */
export async function readResources(dir: string, knownNames: readonly string[] = []): Promise<Resources> {
  const names = await readdir(dir);
  const found: Found = { externalKeys: [], privileged: [] };
  const ttys = await externalTtys(dir, names);
  for (const entry of (await readImage(path.join(dir, 'files.img'), 'files')).entries) {
    lookAtFile(parseMessage(entry, 'files.img'), ttys, found);
  }
  const { keys, privateNetwork } = await namespaceKeys(dir, names);
  const apparmor = names.includes('apparmor.img')
    ? (await readImage(path.join(dir, 'apparmor.img'), 'apparmor')).entries
    : [];
  return {
    externalKeys: [...new Set([...keys, ...found.externalKeys])],
    privileged: found.privileged,
    devices: await deviceGhosts(dir, names),
    unknownImages: names
      .filter((name) => !knownNames.includes(name) && !KNOWN.some((pattern) => pattern.test(name)))
      .sort(),
    privateNetwork,
    apparmorPolicy: apparmor.some((entry) => entry.length > 0),
  };
}
