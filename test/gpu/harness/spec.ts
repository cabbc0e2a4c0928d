/** A device node of a container, as the runtime makes it there. */
export interface DeviceNode {
  readonly path: string;
  readonly major: number;
  readonly minor: number;
}

export interface BindMount {
  readonly source: string;
  readonly destination: string;
  readonly readonly?: boolean;
}

export interface SpecRequest {
  readonly rootPath: string;
  readonly hostname: string;
  readonly args: readonly string[];
  /** NAME=value. */
  readonly env: readonly string[];
  readonly binds: readonly BindMount[];
  readonly devices: readonly DeviceNode[];
  readonly cgroupsPath: string;
  /** As container runtimes do: a cgroup namespace where there is v2 alone. */
  readonly hasCgroupNamespace: boolean;
  readonly memoryLimitBytes: number | undefined;
  readonly shmBytes: number;
}

/** What container runtimes leave to a container that is not privileged. */
const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

/** Paths that kubelet has the runtime hide or protect in every container that is not privileged. */
const MASKED = ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/scsi', '/sys/firmware'];
const READ_ONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** The OCI specification of a container as kubelet and an NVIDIA container runtime would have it made. */
export function ociSpec(request: SpecRequest) {
  const namespaces = ['pid', 'network', 'ipc', 'uts', 'mount', ...(request.hasCgroupNamespace ? ['cgroup'] : [])];
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: request.args,
      env: request.env,
      cwd: '/',
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
    },
    root: { path: request.rootPath, readonly: false },
    hostname: request.hostname,
    mounts: [...systemMounts(request.shmBytes), ...request.binds.map(bindMount)],
    linux: {
      namespaces: namespaces.map((type) => ({ type })),
      cgroupsPath: request.cgroupsPath,
      devices: request.devices.map((device) => ({ ...device, type: 'c', fileMode: 0o666, uid: 0, gid: 0 })),
      resources: {
        // To these the runtime adds what every container may do, which is to make nodes of any device (`c *:* m`): inside, the driver's
        // tools make those of the machine's other GPUs. That they may not be opened is all that tells them from its own.
        devices: [
          { allow: false, access: 'rwm' },
          ...request.devices.map(({ major, minor }) => ({ allow: true, type: 'c', major, minor, access: 'rwm' })),
        ],
        ...(request.memoryLimitBytes === undefined ? {} : { memory: { limit: request.memoryLimitBytes } }),
      },
      maskedPaths: MASKED,
      readonlyPaths: READ_ONLY,
    },
  };
}

export type OciSpec = ReturnType<typeof ociSpec>;

function systemMounts(shmBytes: number) {
  const safe = ['nosuid', 'noexec', 'nodev'];
  const mount = (destination: string, type: string, options: readonly string[]) => ({
    destination,
    type,
    source: type,
    options: [...options],
  });
  return [
    mount('/proc', 'proc', safe),
    mount('/dev', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    mount('/dev/pts', 'devpts', ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620']),
    mount('/dev/mqueue', 'mqueue', safe),
    mount('/dev/shm', 'tmpfs', [...safe, 'mode=1777', `size=${shmBytes}`]),
    mount('/sys', 'sysfs', [...safe, 'ro']),
    mount('/sys/fs/cgroup', 'cgroup', [...safe, 'relatime', 'ro']),
  ];
}

function bindMount({ source, destination, readonly = false }: BindMount) {
  return { destination, type: 'bind', source, options: ['rbind', 'rprivate', readonly ? 'ro' : 'rw'] };
}
