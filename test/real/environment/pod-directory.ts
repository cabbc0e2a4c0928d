import { randomBytes } from 'node:crypto';
import { chmod, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface Mount {
  readonly container_path: string;
  readonly host_path: string;
  readonly readonly?: boolean;
}

/** The files that kubelet keeps for a pod and mounts into its containers. */
export class PodDirectory {
  readonly path: string;
  readonly #token: string;

  private constructor(path: string) {
    this.path = path;
    this.#token = join(path, 'volumes/kubernetes.io~projected/kube-api-access');
  }

  static async make(parent: string, pod: { uid: string; name: string; namespace: string }): Promise<PodDirectory> {
    const directory = new PodDirectory(join(parent, pod.uid));
    await mkdir(directory.#token, { recursive: true });
    await directory.projectToken({
      token: `token-of-${pod.name}`,
      namespace: pod.namespace,
      'ca.crt': 'no certificate\n',
    });
    return directory;
  }

  /** Content of the projected volume: a dated directory, the link `..data` to it, and a link for each file. */
  async projectToken(files: Readonly<Record<string, string>>): Promise<void> {
    const dated = `..2026_01_01_00_00_00.${randomBytes(4).readUInt32LE()}`;
    await mkdir(join(this.#token, dated));
    for (const [name, content] of Object.entries(files)) {
      await writeFile(join(this.#token, dated, name), content, { mode: 0o644 });
      await symlink(join('..data', name), join(this.#token, name)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
    }
    await symlink(dated, join(this.#token, '..data.new'));
    await rename(join(this.#token, '..data.new'), join(this.#token, '..data'));
  }

  async writeHosts(address: string, hostname: string): Promise<void> {
    const own = address ? `${address}\t${hostname}\n` : '';
    const text = `# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n${own}`;
    await writeFile(join(this.path, 'etc-hosts'), text);
  }

  /** Where a container's control files are on this machine. */
  controlDirectory(container: string): string {
    return join(this.path, 'volumes/kubernetes.io~empty-dir/snapshot-control', container);
  }

  /** What kubelet mounts into every container; a new termination log for each attempt. */
  async mountsFor(container: string): Promise<Mount[]> {
    const own = join(this.path, 'containers', container);
    const terminationLog = join(own, randomBytes(4).toString('hex'));
    await mkdir(own, { recursive: true });
    await writeFile(terminationLog, '', { mode: 0o666 });
    return [
      { container_path: '/etc/hosts', host_path: join(this.path, 'etc-hosts') },
      { container_path: '/dev/termination-log', host_path: terminationLog },
      { container_path: '/var/run/secrets/kubernetes.io/serviceaccount', host_path: this.#token, readonly: true },
    ];
  }

  async controlMount(container: string, containerPath: string): Promise<Mount> {
    const path = this.controlDirectory(container);
    // As kubelet makes emptyDir volumes and their subPath directories: any user of the container may write.
    await mkdir(path, { recursive: true });
    await chmod(path, 0o777);
    return { container_path: containerPath, host_path: path };
  }
}
