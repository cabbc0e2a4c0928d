import { randomUUID } from 'node:crypto';
import { type Answer, connectTo, type TestClient } from '../../flow/grpc/client.ts';
import type { Agent } from '../../real/environment/agent.ts';
import { eventually } from '../../real/environment/host.ts';
import type { RuncContainer } from './container.ts';

/** How an operation came out, as the agent's own API tells it. */
export interface Finished {
  readonly succeeded: boolean;
  readonly state: string;
  /** What failed, with the agent's code and every reason, or ''. */
  readonly problem: string;
  readonly code: string;
  readonly failedStep: string;
  /** From the request to the operation's end, as the caller saw it. */
  readonly wallSeconds: number;
  readonly requestedAtMs: number;
  readonly steps: readonly { readonly step: string; readonly seconds: number }[];
  readonly figures: Readonly<Record<string, number>>;
}

export interface AskedFor {
  readonly id: string;
  readonly version?: string;
  readonly after?: 'resume' | 'stop';
  readonly waitSeconds?: number;
  /** Told of every message about the operation, as it comes. */
  readonly onStep?: (step: string, operation: Answer) => void;
}

/** A client of a running agent: starts operations and follows them to their end. */
export class Operations {
  readonly client: TestClient;

  private constructor(client: TestClient) {
    this.client = client;
  }

  static async connect(agent: Agent): Promise<Operations> {
    await agent.waitForLog('the agent to be up', (line) => line['msg'] === 'started');
    const client = connectTo(`unix:${agent.apiSocket}`);
    await eventually('the API to answer', () => client.ask('GetNodeInfo').catch(() => undefined));
    return new Operations(client);
  }

  async checkpoint(container: RuncContainer, asked: AskedFor): Promise<Finished> {
    const after = `AFTER_CHECKPOINT_${(asked.after ?? 'resume').toUpperCase()}`;
    return this.#follow('Checkpoint', container, { ...request(container, asked), after }, asked);
  }

  async restore(container: RuncContainer, asked: AskedFor): Promise<Finished> {
    return this.#follow('Restore', container, request(container, asked), asked);
  }

  close(): void {
    this.client.close();
  }

  async #follow(method: string, container: RuncContainer, body: object, asked: AskedFor): Promise<Finished> {
    const requestedAtMs = Date.now();
    const startedAt = performance.now();
    const begun = await this.client.ask(method, body);
    const watch = this.client.watch('WatchOperation', { name: begun.name });
    watch.call.on('data', (message: Answer) => asked.onStep?.(message.metadata.step, message));
    const last = await watch.until(({ done }) => done);
    const wallSeconds = (performance.now() - startedAt) / 1000;
    await watch.ended;
    return { ...this.#outcome(last, container), wallSeconds, requestedAtMs };
  }

  #outcome(last: Answer, container: RuncContainer): Omit<Finished, 'wallSeconds' | 'requestedAtMs'> {
    const { metadata, error } = last;
    const details = last.result === 'error' ? this.client.statusDetails(error) : undefined;
    const reasons = details?.violations.map(({ type, description }) => `${type}: ${description}`) ?? [];
    return {
      succeeded: last.result === 'response',
      state: metadata.state,
      problem: details === undefined ? '' : [`${container.pod.name}: ${details.message}`, ...reasons].join('\n'),
      code: details?.info.reason ?? '',
      failedStep: details === undefined ? '' : metadata.step,
      steps: metadata.timings,
      figures: metadata.figures,
    };
  }
}

function request(container: RuncContainer, { id, version = '', waitSeconds = 0 }: AskedFor): object {
  return {
    request_id: randomUUID(),
    target: { container_id: container.id },
    checkpoint_id: id,
    version,
    wait_seconds: waitSeconds,
  };
}

/** Throws with everything that was said where an operation did not succeed. */
export function requireSuccess(finished: Finished, agent: Agent): Finished {
  if (finished.succeeded) return finished;
  const warnings = agent.logs().filter(({ level }) => Number(level) >= 40);
  const lines = warnings.slice(-5).map((line) => JSON.stringify(line).slice(0, 1_000));
  throw new Error(`failed in step ${finished.failedStep}: ${finished.problem}\n${lines.join('\n')}`);
}
