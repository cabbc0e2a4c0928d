import { resolve } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

export interface SandboxConfig {
  readonly metadata: { name: string; uid: string; namespace: string; attempt: number };
  readonly hostname: string;
  readonly log_directory: string;
  readonly labels: Record<string, string>;
  readonly annotations: Record<string, string>;
  readonly linux: { cgroup_parent: string; security_context: Record<string, unknown> };
}

export interface ContainerView {
  readonly id: string;
  readonly pod_sandbox_id: string;
  readonly metadata: { readonly name: string; readonly attempt: number };
  readonly state: ContainerState;
}

type ContainerState = 'CONTAINER_CREATED' | 'CONTAINER_RUNNING' | 'CONTAINER_EXITED' | 'CONTAINER_UNKNOWN';

export interface ContainerStatus {
  readonly id: string;
  readonly state: ContainerState;
  readonly exit_code: number;
  readonly reason: string;
  readonly message: string;
  readonly started_at: string;
  readonly finished_at: string;
  readonly log_path: string;
}

/** Of the runtime's own description of a container: PID of its first process (0 once it ended), and the OCI specification. */
export interface ContainerInfo {
  readonly pid: number;
  readonly snapshotKey: string;
  readonly runtimeSpec: { readonly mounts: readonly { readonly destination: string; readonly source: string }[] };
}

const definition = grpc.loadPackageDefinition(
  loadSync(resolve(import.meta.dirname, 'cri-test.proto'), {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  }),
);
const RuntimeService = (definition['runtime'] as { v1: { RuntimeService: grpc.ServiceClientConstructor } }).v1
  .RuntimeService;

/** The calls to a container runtime that the tests make. */
export class Cri {
  readonly #client: grpc.Client;

  constructor(socketPath: string) {
    this.#client = new RuntimeService(`unix://${socketPath}`, grpc.credentials.createInsecure());
  }

  close(): void {
    this.#client.close();
  }

  #call<Response>(method: string, request: object, deadlineMs = 60_000): Promise<Response> {
    const call = (this.#client as unknown as Record<string, (...args: unknown[]) => void>)[method];
    return new Promise((done, failed) => {
      call?.call(
        this.#client,
        request,
        { deadline: Date.now() + deadlineMs },
        (error: Error | null, response: Response) => {
          if (error)
            failed(
              new Error(`CRI ${method}: ${(error as grpc.ServiceError).details || error.message}`, { cause: error }),
            );
          else done(response);
        },
      );
    });
  }

  async version(): Promise<{ name: string; version: string }> {
    const answer = await this.#call<{ runtime_name: string; runtime_version: string }>('Version', {}, 2000);
    return { name: answer.runtime_name, version: answer.runtime_version };
  }

  /** Conditions that are not met, such as a network that is not set up. */
  async unmetConditions(): Promise<string[]> {
    const answer = await this.#call<{ status: { conditions: { type: string; status: boolean; message: string }[] } }>(
      'Status',
      {},
      2000,
    );
    return answer.status.conditions.filter((one) => !one.status).map((one) => `${one.type}: ${one.message}`);
  }

  async runPodSandbox(config: SandboxConfig): Promise<string> {
    return (await this.#call<{ pod_sandbox_id: string }>('RunPodSandbox', { config })).pod_sandbox_id;
  }

  async podIp(sandboxId: string): Promise<string> {
    const answer = await this.#call<{ status: { network: { ip: string } | null } }>('PodSandboxStatus', {
      pod_sandbox_id: sandboxId,
    });
    return answer.status.network?.ip ?? '';
  }

  async sandboxIds(): Promise<string[]> {
    return (await this.#call<{ items: { id: string }[] }>('ListPodSandbox', {})).items.map((item) => item.id);
  }

  async removePodSandbox(id: string): Promise<void> {
    await this.#call('StopPodSandbox', { pod_sandbox_id: id });
    await this.#call('RemovePodSandbox', { pod_sandbox_id: id });
  }

  async createContainer(sandboxId: string, config: object, sandboxConfig: SandboxConfig): Promise<string> {
    const request = { pod_sandbox_id: sandboxId, config, sandbox_config: sandboxConfig };
    return (await this.#call<{ container_id: string }>('CreateContainer', request)).container_id;
  }

  async startContainer(id: string): Promise<void> {
    await this.#call('StartContainer', { container_id: id });
  }

  async stopContainer(id: string, timeoutSeconds: number): Promise<void> {
    await this.#call('StopContainer', { container_id: id, timeout: timeoutSeconds }, timeoutSeconds * 1000 + 60_000);
  }

  async removeContainer(id: string): Promise<void> {
    await this.#call('RemoveContainer', { container_id: id });
  }

  async containers(): Promise<ContainerView[]> {
    return (await this.#call<{ containers: ContainerView[] }>('ListContainers', {})).containers;
  }

  async containerStatus(id: string): Promise<{ status: ContainerStatus; info: ContainerInfo }> {
    const request = { container_id: id, verbose: true };
    const answer = await this.#call<{ status: ContainerStatus; info: Record<string, string> }>(
      'ContainerStatus',
      request,
    );
    return { status: answer.status, info: JSON.parse(answer.info['info'] ?? '{}') as ContainerInfo };
  }

  async exec(
    id: string,
    command: readonly string[],
    timeoutSeconds: number,
  ): Promise<{ stdout: string; stderr: string; exitCode: number }> {
    const request = { container_id: id, cmd: command, timeout: timeoutSeconds };
    const deadline = timeoutSeconds * 1000 + 10_000;
    const answer = await this.#call<{ stdout: Buffer; stderr: Buffer; exit_code: number }>(
      'ExecSync',
      request,
      deadline,
    );
    return { stdout: answer.stdout.toString(), stderr: answer.stderr.toString(), exitCode: answer.exit_code };
  }
}
