import { setMaxListeners } from 'node:events';
import { Server, type ServerOptions } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';
import type { Operations } from '../operations/operation.ts';
import type { AgentService } from '../operations/service.ts';
import { reflectionCalls } from './grpc-reflection.ts';
import { healthCalls } from './health.ts';
import { type Limits, newGate } from './limits.ts';
import { newRefusals } from './refusals.ts';
import { artifactCalls } from './rpc-artifacts.ts';
import { type Desk, readable } from './rpc-call.ts';
import { operationCalls } from './rpc-operations.ts';
import type { Protocol } from './rpc-protocol.ts';

/** What the API is made of, whatever it listens at. */
export interface ServerInput {
  readonly service: AgentService;
  readonly operations: Operations;
  readonly log: Logger;
  /** Why the agent is not ready; empty where it is. */
  readiness(): readonly string[];
  callEnded(call: { readonly method: string; readonly code: string; readonly seconds: number }): void;
  readonly config: { readonly limits: Limits; readonly reflection: boolean };
}

/** A request beyond maxMessageBytes gets an answer with details up to here; beyond, gRPC itself cuts it off. */
const TRANSPORT_EXTRA_BYTES = 1 << 20;
const KEEPALIVE_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
const IDLE_MS = 300_000;
/** The stages of the end: first streams, then all the rest. */
export class Closing {
  readonly #began = new AbortController();
  readonly #streams = new AbortController();
  readonly #calls = new AbortController();

  constructor() {
    setMaxListeners(0, this.began, this.streams, this.calls);
  }
  /** No more is taken, and health says so. */
  get began(): AbortSignal {
    return this.#began.signal;
  }
  get streams(): AbortSignal {
    return this.#streams.signal;
  }
  get calls(): AbortSignal {
    return this.#calls.signal;
  }
  endStreams(): void {
    this.#began.abort();
    this.#streams.abort(new SnapshotError('SHUTTING_DOWN', 'the agent is stopping'));
  }
  endCalls(): void {
    this.#calls.abort(new SnapshotError('SHUTTING_DOWN', 'the agent is stopping'));
  }
}

/** The services of one listener. Nothing listens yet. */
export function newServer(
  input: ServerInput,
  made: {
    readonly identity: Pick<Desk, 'identify' | 'peerOf' | 'strangerOf'>;
    readonly options: ServerOptions;
    readonly protocol: Protocol;
    readonly closing: Closing;
  },
): Server {
  const { limits, reflection } = input.config;
  const { protocol, closing } = made;
  const server = new Server({
    'grpc.max_receive_message_length': limits.maxMessageBytes + TRANSPORT_EXTRA_BYTES,
    'grpc.max_concurrent_streams': limits.maxConcurrentCallsPerCaller + limits.maxStreamsPerCaller,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    'grpc.max_connection_idle_ms': IDLE_MS,
    'grpc.enable_channelz': 0,
    ...made.options,
  });
  const desk: Desk = {
    ...made.identity,
    gate: newGate(limits),
    refusals: newRefusals(input.log),
    protocol,
    log: input.log,
    maxCallMs: limits.maxCallMs,
    callEnded: (call) => input.callEnded(call),
    end: { call: closing.calls, stream: closing.streams },
  };
  const bounded = (service: Protocol['agent']) => readable(service, limits.maxMessageBytes);
  server.addService(bounded(protocol.agent), { ...operationCalls(desk, input), ...artifactCalls(desk, input.service) });
  const health = { readiness: () => input.readiness(), closing: closing.began };
  server.addService(bounded(protocol.health), healthCalls(desk, health));
  if (reflection) server.addService(bounded(protocol.reflection), reflectionCalls(desk));
  return server;
}
