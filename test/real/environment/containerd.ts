import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Cri } from './cri.ts';
import { eventually, host } from './host.ts';
import { IMAGES } from './images.ts';

/** A containerd of its own: own root, state, socket, network configuration, and no other process's pods. */
export interface Containerd {
  readonly socketPath: string;
  /** Holds the overlay snapshots, and so the upper directories of the containers' root filesystems. */
  readonly root: string;
  readonly cri: Cri;
  stop(): Promise<void>;
}

function configuration(directory: string, cniPluginDirectory: string): string {
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "${directory}/containerd.sock"
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
        Root = "${directory}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${cniPluginDirectory}"
    conf_dir = "${directory}/cni"
`;
}

function tail(file: string): string {
  return readFileSync(file, 'utf8').split('\n').slice(-15).join('\n');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(timer);
}

/** Starts containerd in `directory`, which holds a `cni` directory already, and waits until it can run pods. */
export async function startContainerd(
  directory: string,
  imageArchive: string,
  cniPluginDirectory: string,
): Promise<Containerd> {
  const socketPath = join(directory, 'containerd.sock');
  const configFile = join(directory, 'containerd.toml');
  const log = join(directory, 'containerd.log');
  await mkdir(join(directory, 'root'), { recursive: true });
  await writeFile(configFile, configuration(directory, cniPluginDirectory));
  const out = openSync(log, 'a');
  // A process group of its own: an interrupt at the terminal must reach the tests first, which then clean up.
  const child = spawn('containerd', ['--config', configFile], { stdio: ['ignore', out, out], detached: true });
  const cri = new Cri(socketPath);
  const explain = () => tail(log);
  try {
    await eventually(
      'containerd to answer',
      async () => {
        if (child.exitCode !== null) throw new Error(`containerd ended with ${child.exitCode}\n${tail(log)}`);
        return cri.version().catch(() => undefined);
      },
      { explain },
    );
    await host(['ctr', '--address', socketPath, '--namespace', 'k8s.io', 'images', 'import', imageArchive]);
    await eventually(
      'containerd to be ready for pods',
      async () => ((await cri.unmetConditions()).length === 0 ? true : undefined),
      { explain: async () => `${(await cri.unmetConditions()).join('\n')}\n${tail(log)}` },
    );
  } catch (error) {
    cri.close();
    await end(child);
    throw error;
  }
  return {
    socketPath,
    root: join(directory, 'root'),
    cri,
    stop: async () => {
      cri.close();
      await end(child);
    },
  };
}
