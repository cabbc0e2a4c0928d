import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type CgroupMode, withCgroups } from './cgroups.ts';
import { Cri } from './cri.ts';
import { CACHE, eventually, host } from './host.ts';
import { IMAGES, removeOlder } from './images.ts';
import { cniPluginDirectory } from './network.ts';

const SOCKET = 'containerd.sock';

/** A containerd of its own: own root, state, socket, network configuration, and no other process's pods. */
export interface Containerd {
  readonly socketPath: string;
  /** Holds the overlay snapshots, and so the upper directories of the containers' root filesystems. */
  readonly root: string;
  readonly cri: Cri;
  stop(): Promise<void>;
}

const RUNC_WITHOUT_CONTROLLERS = join(import.meta.dirname, 'runc-without-controllers.mjs');

function configuration(directory: string, cniPlugins: string, cgroups: CgroupMode): string {
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "${directory}/${SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${IMAGES.pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "${cgroups === 'v2' ? RUNC_WITHOUT_CONTROLLERS : ''}"
        Root = "${directory}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${cniPlugins}"
    conf_dir = "${directory}/cni"
`;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(timer);
}

interface Daemon {
  readonly cri: Cri;
  stop(): Promise<void>;
  explain(): string;
}

/** Starts containerd in `directory`, which holds a `cni` directory already, and waits until it answers. */
async function startDaemon(directory: string, cgroups: CgroupMode = 'machine'): Promise<Daemon> {
  const configFile = join(directory, 'containerd.toml');
  const log = join(directory, 'containerd.log');
  await mkdir(join(directory, 'root'), { recursive: true });
  await writeFile(configFile, configuration(directory, cniPluginDirectory(), cgroups));
  const out = openSync(log, 'a');
  // A process group of its own: an interrupt at the terminal must reach the tests first, which then clean up.
  const [program = '', ...args] = withCgroups(cgroups, ['containerd', '--config', configFile]);
  const child = spawn(program, args, { stdio: ['ignore', out, out], detached: true });
  closeSync(out);
  const cri = new Cri(join(directory, SOCKET));
  const explain = () => readFileSync(log, 'utf8').split('\n').slice(-15).join('\n');
  const stop = async () => {
    cri.close();
    await end(child);
  };
  try {
    await eventually(
      'containerd to answer',
      async () => {
        if (child.exitCode !== null) throw new Error(`containerd ended with ${child.exitCode}\n${explain()}`);
        return cri.version().catch(() => undefined);
      },
      { explain },
    );
  } catch (error) {
    await stop();
    throw error;
  }
  return { cri, stop, explain };
}

/**
 * A containerd root in which the images are imported and unpacked already, made once: that takes seconds. Nothing writes to it
 * any more, so that clusters can have hard links to its files.
 */
async function seedRoot(imageArchive: string): Promise<string> {
  const seed = join(CACHE, `containerd-${basename(imageArchive, '.tar')}`);
  if (existsSync(seed)) return join(seed, 'root');
  const work = await mkdtemp(join(CACHE, 'containerd-new-'));
  try {
    await mkdir(join(work, 'cni'));
    const daemon = await startDaemon(work);
    try {
      await host(['ctr', '--address', join(work, SOCKET), '--namespace', 'k8s.io', 'images', 'import', imageArchive]);
    } finally {
      await daemon.stop();
    }
    // Another run may have made it meanwhile.
    await rename(work, seed).catch((error: NodeJS.ErrnoException) => {
      if (!existsSync(seed)) throw error;
    });
    await removeOlder(/^containerd-images-[0-9a-f]{16}$/, basename(seed));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return join(seed, 'root');
}

async function copySeed(seed: string, root: string): Promise<void> {
  // Files of image layers and blobs are never written; the databases are. Without hard links across file systems, all is copied.
  await host(['cp', '--archive', '--link', seed, root]).catch(async () => {
    await rm(root, { recursive: true, force: true });
    await host(['cp', '--archive', seed, root]);
  });
  const databases = (await host(['find', seed, '-name', '*.db', '-printf', '%P\n'])).trim().split('\n');
  for (const name of databases) {
    await rm(join(root, name));
    await copyFile(join(seed, name), join(root, name));
  }
}

/** Starts containerd with the images in `directory`, which holds a `cni` directory already, and waits until it can run pods. */
export async function startContainerd(
  directory: string,
  imageArchive: string,
  cgroups: CgroupMode,
): Promise<Containerd> {
  await copySeed(await seedRoot(imageArchive), join(directory, 'root'));
  const daemon = await startDaemon(directory, cgroups);
  try {
    await eventually(
      'containerd to be ready for pods',
      async () => ((await daemon.cri.unmetConditions()).length === 0 ? true : undefined),
      {
        explain: async () => `${(await daemon.cri.unmetConditions()).join('\n')}\n${daemon.explain()}`,
      },
    );
  } catch (error) {
    await daemon.stop();
    throw error;
  }
  return { socketPath: join(directory, SOCKET), root: join(directory, 'root'), cri: daemon.cri, stop: daemon.stop };
}
