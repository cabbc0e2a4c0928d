import { setTimeout as pause } from 'node:timers/promises';
import { status, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { SnapshotError } from '../errors.ts';
import { type Desk, PlainStatus, stream, unary } from './rpc-call.ts';
import { AGENT_SERVICE } from './rpc-protocol.ts';

/** Names that can be asked for; the empty one is the whole server. */
const NAMES = ['', AGENT_SERVICE];
const LOOK_EVERY_MS = 1_000;

interface HealthRequest {
  readonly service: string;
}

export interface HealthOptions {
  /** Why the agent is not ready; empty where it is. */
  readiness(): readonly string[];
  /** Aborts when the server begins to stop. */
  readonly closing: AbortSignal;
}

/** grpc.health.v1: SERVING as long as the agent is ready. A server that stops is NOT_SERVING before it ends its watches. */
export function healthCalls(desk: Desk, { readiness, closing }: HealthOptions): UntypedServiceImplementation {
  const state = () => ({ status: !closing.aborted && readiness().length === 0 ? 'SERVING' : 'NOT_SERVING' });
  // A watch ends by itself, once it has told the last state.
  const method = (name: string) => ({ name: `Health.${name}`, isProbe: true, endsWith: 'call' as const });
  return {
    Check: unary<HealthRequest>(desk, method('Check'), ({ service }) => {
      if (NAMES.includes(service)) return state();
      throw new PlainStatus(status.NOT_FOUND, 'there is no service of this name');
    }),
    List: unary(desk, method('List'), () => ({
      statuses: Object.fromEntries(NAMES.map((name) => [name, state()])),
    })),
    Watch: stream<HealthRequest>(desk, method('Watch'), async ({ service }, { signal }, send) => {
      const look = () => (NAMES.includes(service) ? state() : { status: 'SERVICE_UNKNOWN' });
      let told = '';
      while (!signal.aborted) {
        const now = look();
        if (now.status !== told) await send(now);
        told = now.status;
        if (closing.aborted) throw new SnapshotError('SHUTTING_DOWN', 'the agent is stopping');
        await pause(LOOK_EVERY_MS, undefined, { signal: closing }).catch(() => undefined);
      }
    }),
  };
}
