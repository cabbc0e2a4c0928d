import type { ArtifactRecord } from '../store/record.ts';

/** Mounts of one record, and the bytes that their names may have: clients take 4 MiB in one answer. */
const MAX_MOUNTS = 1_000;
const MOUNT_BYTES = 256 * 1024;

/** The record of an artifact as CheckpointRecord of proto/agent.proto. `listed`: without what is long. */
export function recordMessage(record: ArtifactRecord, detail: 'full' | 'listed') {
  const { source, process, memory } = record;
  const mounts = detail === 'full' ? mountsWithin(record.mounts) : [];
  return {
    create_time: timestamp(Date.parse(record.createdAt)),
    operation_id: record.operationId,
    trace_id: record.traceId,
    agent_version: record.agent.version,
    source: {
      node: source.node,
      namespace: source.namespace,
      pod: source.pod,
      pod_uid: source.podUid,
      container: source.container,
      container_id: source.containerId,
      image: source.image,
      image_id: source.imageId,
    },
    platform: platformMessage(record, detail),
    sizes: sizesMessage(record),
    processes: process.count,
    threads: process.threads,
    pause_seconds: record.pauseSeconds,
    timings: record.timings,
    min_reader: record.minReader,
    memory_limit_bytes: memory.limitBytes ?? 0,
    resident_bytes: memory.residentBytes,
    mounts: mounts.map(({ mountPoint, fstype }) => ({ mount_point: mountPoint, filesystem: fstype })),
    mounts_left_out: record.mounts.length - mounts.length,
    terminal: process.tty !== undefined,
    pod_ips: source.podIps,
    private_ipc: record.namespaces.ipc === 'private',
    control_dir: process.controlDir ?? '',
  };
}

function platformMessage({ platform, cuda }: ArtifactRecord, detail: 'full' | 'listed') {
  const { cpu } = platform;
  return {
    arch: platform.arch,
    kernel: platform.kernel,
    criu: platform.criu,
    cpu_vendor: cpu.vendor,
    gpu_driver: cuda?.driver ?? '',
    gpu_models: cuda?.gpus.map(({ model }) => model) ?? [],
    gpu_proven: cuda?.proven ?? false,
    cpu_family: cpu.family,
    cpu_model: cpu.model,
    cpu_features: detail === 'full' ? cpu.features : [],
    cgroup_version: platform.cgroupVersion,
    gpus:
      cuda?.gpus.map(({ uuid, model, memoryBytes, usedBytes }) => ({
        ...{ uuid, model, memory_bytes: memoryBytes, used_bytes: usedBytes },
      })) ?? [],
    cuda_version: cuda?.driverApi ?? 0,
    cuda_libraries: cuda?.libraries ?? [],
  };
}

function sizesMessage({ sizes, cuda, files }: ArtifactRecord) {
  return {
    criu_bytes: sizes.criuBytes,
    bulk_bytes: sizes.bulkBytes,
    zero_bytes: sizes.zeroBytes,
    rootfs_bytes: sizes.rootfsBytes,
    shm_bytes: sizes.shmBytes,
    device_bytes: cuda?.processes.reduce((sum, { deviceBytes }) => sum + deviceBytes, 0) ?? 0,
    total_bytes: files.reduce((sum, { size }) => sum + size, 0),
    files: files.length,
  };
}

/** The first that there is room for. */
function mountsWithin(mounts: ArtifactRecord['mounts']): ArtifactRecord['mounts'] {
  let room = MOUNT_BYTES;
  const end = mounts.findIndex(({ mountPoint, fstype }) => {
    room -= Buffer.byteLength(mountPoint) + fstype.length + 16;
    return room < 0;
  });
  return mounts.slice(0, Math.min(MAX_MOUNTS, end < 0 ? mounts.length : end));
}

/** google.protobuf.Timestamp; undefined where there is none. */
export function timestamp(ms: number | undefined) {
  if (ms === undefined) return undefined;
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.round((ms - seconds * 1000) * 1e6) };
}
