import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULT_LIMITS, type GrpcEndpoint, type GrpcOptions, startGrpc } from '../../../agent/api/grpc.ts';
import type { ArtifactView } from '../../../agent/operations/service.ts';
import type { ArtifactRecord } from '../../../agent/store/record.ts';
import { type FakeService, fakeService } from '../../fakes/agent-service.ts';
import { type LogLine, memoryLog } from '../../fakes/log.ts';
import { draft } from '../../unit/store/volume.ts';
import { connectTo, type TestClient } from './client.ts';

export interface Started {
  readonly fake: FakeService;
  readonly endpoint: GrpcEndpoint;
  readonly directory: string;
  readonly socketPath: string;
  readonly lines: LogLine[];
  /** What the metrics hook was told. */
  readonly ended: { readonly method: string; readonly code: string; readonly seconds: number }[];
  /** Why the agent is not ready. */
  readonly reasons: string[];
  /** A client of the unix socket, closed at the end. */
  readonly local: TestClient;
  audit(): LogLine[];
  stop(): Promise<void>;
}

/** The API over real sockets, with a fake of what is behind it. */
export async function startEndpoint(config: Partial<GrpcOptions> = {}, directory?: string): Promise<Started> {
  const home = directory ?? (await mkdtemp(join(tmpdir(), 'grpc-')));
  const socketPath = config.socketPath ?? join(home, 'api', 'agent.sock');
  const fake = fakeService();
  const { log, lines, said } = memoryLog();
  const ended: Started['ended'] = [];
  const reasons: string[] = [];
  const endpoint = await startGrpc({
    service: fake,
    operations: fake.operations,
    log,
    readiness: () => reasons,
    callEnded: (call) => ended.push(call),
    config: {
      socketPath,
      tcp: undefined,
      clients: () => [],
      limits: DEFAULT_LIMITS,
      reflection: false,
      closeGraceMs: 2_000,
      ...config,
    },
  });
  const local = connectTo(`unix:${socketPath}`);
  return {
    ...{ fake, endpoint, directory: home, socketPath, lines, ended, reasons, local },
    audit: () => said('grpc call'),
    stop: async () => {
      local.close();
      await endpoint.close();
      await rm(home, { recursive: true, force: true });
    },
  };
}

export function artifactOf(namespace: string, id: string, changes: Partial<ArtifactView> = {}): ArtifactView {
  const from = draft();
  const record: ArtifactRecord = {
    ...from,
    source: { ...from.source, namespace },
    cuda: {
      driver: '580.1',
      driverApi: 13_000,
      libraries: [],
      gpus: [
        {
          ...{ uuid: 'GPU-1', model: 'NVIDIA H200', memoryBytes: 1000, freeBytes: 900, usedBytes: 100 },
          ...{ mig: false, mps: false, virtualization: 'none' },
        },
      ],
      given: 'visible',
      visibleDevices: null,
      deviceOrder: null,
      processes: [{ pid: 1, deviceBytes: 100 }],
      proven: true,
      launchJob: false,
    },
    ...{ formatVersion: 1, minReader: 1, checkpointId: id, version: '1', files: [] },
  };
  return {
    id,
    version: '1',
    location: `/checkpoints/${id}/versions/1`,
    record,
    problem: undefined,
    readers: [],
    ...changes,
  };
}
