import { join } from 'node:path';
import { CONTROL_DIR_ENV, DEFAULT_CONTROL_DIR, KUBELET_LABELS } from '../../../contract/keys.ts';
import { Container } from './container.ts';
import type { Cri, SandboxConfig } from './cri.ts';
import { IMAGES } from './images.ts';
import type { Mount, PodDirectory } from './pod-directory.ts';

export interface PodRequest {
  readonly name: string;
  /** A new one without it. */
  readonly uid?: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly hostNetwork?: boolean;
  /** One PID namespace for all containers of the pod. */
  readonly sharePid?: boolean;
  /** Its containers may be privileged. */
  readonly privileged?: boolean;
}

export interface ContainerRequest {
  readonly name?: string;
  /** Which of the environment's images, or another one that was imported. */
  readonly image?: string;
  readonly command: readonly string[];
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly workingDirectory?: string;
  readonly mounts?: readonly Mount[];
  /** Device nodes, made in the container's /dev like those of this machine. */
  readonly devices?: readonly { readonly container_path: string; readonly host_path: string }[];
  /** A volume for checkpoints, at its mount path or another: podMount mode. */
  readonly volume?: { readonly hostPath: string; readonly mountPath?: string };
  /** Has a control directory, as pods for this system do; on unless switched off. */
  readonly control?: boolean;
  readonly user?: number;
  readonly group?: number;
  readonly readOnlyRoot?: boolean;
  readonly tty?: boolean;
  readonly stdin?: boolean;
  /** `RuntimeDefault`, or the absolute path of a profile; unconfined without it. */
  readonly seccomp?: string;
  readonly noNewPrivileges?: boolean;
  readonly addCapabilities?: readonly string[];
  readonly dropCapabilities?: readonly string[];
  readonly privileged?: boolean;
  readonly memoryLimitBytes?: number;
  /** Counts restarts of a container of the same name, as kubelet does. */
  readonly attempt?: number;
}

/** Paths that kubelet has the runtime hide or protect in every container that is not privileged. */
const MASKED = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
];
const READ_ONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** The command of one of the test workloads, as it lies in the workload image. */
export function workload(name: string, ...args: readonly string[]): string[] {
  return ['/usr/bin/python3', '-u', `/opt/workloads/${name}.py`, ...args];
}

function seccompOf(profile: string | undefined): object {
  if (profile === undefined) return { profile_type: 'Unconfined' };
  if (profile === 'RuntimeDefault') return { profile_type: 'RuntimeDefault' };
  return { profile_type: 'Localhost', localhost_ref: profile };
}

/** A pod, made by asking the container runtime as kubelet would. */
export class Pod {
  readonly sandboxId: string;
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  /** Its address; empty with the host's network. */
  readonly ip: string;
  readonly directory: PodDirectory;
  readonly #cri: Cri;
  readonly #config: SandboxConfig;

  constructor(cri: Cri, made: { sandboxId: string; config: SandboxConfig; ip: string; directory: PodDirectory }) {
    this.#cri = cri;
    this.#config = made.config;
    this.sandboxId = made.sandboxId;
    this.uid = made.config.metadata.uid;
    this.name = made.config.metadata.name;
    this.namespace = made.config.metadata.namespace;
    this.ip = made.ip;
    this.directory = made.directory;
  }

  async createContainer(request: ContainerRequest): Promise<Container> {
    const name = request.name ?? 'main';
    const attempt = request.attempt ?? 0;
    const withControl = request.control ?? true;
    const mounts = [...(await this.directory.mountsFor(name)), ...(request.mounts ?? [])];
    if (withControl) mounts.push(await this.directory.controlMount(name, DEFAULT_CONTROL_DIR));
    if (request.volume)
      mounts.push({ container_path: request.volume.mountPath ?? '/checkpoints', host_path: request.volume.hostPath });
    const env = {
      POD_NAME: this.name,
      POD_IP: this.ip,
      ...(withControl ? { [CONTROL_DIR_ENV]: DEFAULT_CONTROL_DIR } : {}),
      ...request.env,
    };
    const logPath = join(name, `${attempt}.log`);
    const config = {
      metadata: { name, attempt },
      image: { image: request.image ?? IMAGES.workload },
      command: request.command,
      args: request.args ?? [],
      working_dir: request.workingDirectory ?? '/',
      envs: Object.entries(env).map(([key, value]) => ({ key, value: Buffer.from(value) })),
      mounts,
      devices: (request.devices ?? []).map((device) => ({ ...device, permissions: 'rwm' })),
      labels: {
        [KUBELET_LABELS.containerName]: name,
        [KUBELET_LABELS.podName]: this.name,
        [KUBELET_LABELS.podNamespace]: this.namespace,
        [KUBELET_LABELS.podUid]: this.uid,
      },
      annotations: { 'io.kubernetes.container.restartCount': String(attempt) },
      log_path: logPath,
      tty: request.tty ?? false,
      stdin: request.stdin ?? false,
      linux: {
        resources: { memory_limit_in_bytes: request.memoryLimitBytes ?? 0 },
        security_context: this.#security(request),
      },
    };
    const id = await this.#cri.createContainer(this.sandboxId, config, this.#config);
    const controlDirectory = withControl ? this.directory.controlDirectory(name) : undefined;
    return new Container(this.#cri, { id, name, controlDirectory, logFile: join(this.#config.log_directory, logPath) });
  }

  /** Creates a container and starts it. */
  async run(request: ContainerRequest): Promise<Container> {
    return (await this.createContainer(request)).start();
  }

  /** A container that waits to be restored into: the placeholder image with its own command, unless `request` says otherwise. */
  async runPlaceholder(request: Partial<ContainerRequest> = {}): Promise<Container> {
    const env = { DYN_SNAPSHOT_RESTORE_STANDBY: '1', ...request.env };
    return this.run({ image: IMAGES.placeholder, command: ['/usr/local/bin/snapshot-standby'], ...request, env });
  }

  /** Ends and removes the pod with all its containers. */
  async remove(): Promise<void> {
    await this.#cri.removePodSandbox(this.sandboxId);
  }

  #security(request: ContainerRequest): object {
    const privileged = request.privileged ?? false;
    return {
      namespace_options: this.#config.linux.security_context['namespace_options'],
      privileged,
      readonly_rootfs: request.readOnlyRoot ?? false,
      no_new_privs: request.noNewPrivileges ?? false,
      seccomp: seccompOf(request.seccomp),
      capabilities: {
        add_capabilities: request.addCapabilities ?? [],
        drop_capabilities: request.dropCapabilities ?? [],
      },
      masked_paths: privileged ? [] : MASKED,
      readonly_paths: privileged ? [] : READ_ONLY,
      ...(request.user === undefined ? {} : { run_as_user: { value: request.user } }),
      ...(request.group === undefined ? {} : { run_as_group: { value: request.group } }),
    };
  }
}
