import type { ArtifactContents, CapturedProcess } from '../operations/service.ts';
import { checkpointMessage, type Encoder, named } from './rpc-messages.ts';

const STATES: Readonly<Record<CapturedProcess['state'], string>> = {
  alive: 'ALIVE',
  stopped: 'STOPPED',
  // CRIU's two words for a process that has ended.
  zombie: 'ENDED',
  dead: 'ENDED',
};

/** What is inside an artifact as CheckpointContents of proto/agent.proto. */
export function contentsMessage(contents: ArtifactContents, protocol: Encoder) {
  return {
    checkpoint: checkpointMessage(contents.artifact, protocol),
    processes: contents.processes.map(processMessage),
    files: contents.files.map(({ path, size, sha256 }) => ({ path, bytes: size, digest: sha256 })),
    processes_left_out: contents.processesLeftOut,
    files_left_out: contents.filesLeftOut,
    file_bytes_left_out: contents.fileBytesLeftOut,
    removed_paths: contents.removedPaths,
  };
}

function processMessage(process: CapturedProcess) {
  return {
    pid: process.pid,
    parent_pid: process.ppid,
    name: process.comm,
    threads: process.threads,
    cuda: process.cuda,
    memory_bytes: process.memoryBytes,
    stored_bytes: process.storedBytes,
    areas: process.areas.map(areaMessage),
    areas_left_out: process.areasLeftOut,
    bytes_left_out: process.bytesLeftOut,
    device_bytes: process.deviceBytes,
    state: `PROCESS_STATE_${STATES[process.state]}`,
  };
}

function areaMessage(area: CapturedProcess['areas'][number]) {
  return {
    start: area.start,
    end: area.end,
    kind: named('MEMORY_KIND', area.kind),
    path: area.path,
    protection: area.protection,
    stored_bytes: area.storedBytes,
    bulk_bytes: area.bulkBytes,
    shared: area.shared,
  };
}
