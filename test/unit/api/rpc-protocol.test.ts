import { readFileSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { operationMessage } from '../../../agent/api/rpc-messages.ts';
import { loadProtocol } from '../../../agent/api/rpc-protocol.ts';
import { KINDS, STATES } from '../../../agent/api/rpc-requests.ts';
import { ERRORS } from '../../../agent/errors.ts';
import { FINAL_STATES, type OperationState, type OperationView } from '../../../agent/operations/operation.ts';
import { fakeService, WORKER } from '../../fakes/agent-service.ts';

const proto = readFileSync('proto/agent.proto', 'utf8');
const namesOf = (name: string) =>
  [...(new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(proto)?.[1] ?? '').matchAll(/^ {2}([A-Z_]+) =/gm)].map(
    ([, found]) => found,
  );

describe('the protocol', () => {
  it('gives every error code a status of gRPC that is one', () => {
    const wrong = Object.entries(ERRORS).filter(
      ([, { grpc }]) => typeof status[grpc] !== 'number' || grpc === ('OK' as string),
    );
    expect(wrong).toEqual([]);
  });

  it('has every state and kind that the requests know, and no other', () => {
    expect(namesOf('OperationState')).toEqual(['OPERATION_STATE_UNSPECIFIED', ...Object.keys(STATES)]);
    expect(namesOf('OperationKind')).toEqual(['OPERATION_KIND_UNSPECIFIED', ...Object.keys(KINDS)]);
  });

  it.each(Object.values(STATES))('carries an operation that is %s to a client and back', (state) => {
    const protocol = loadProtocol();
    const view: OperationView = { ...fakeService().begin(WORKER, 'request').view, state };
    const { responseSerialize, responseDeserialize } = protocol.agent['GetOperation'] ?? {};
    const bytes = responseSerialize?.(operationMessage(view, protocol));
    const found = responseDeserialize?.(bytes ?? Buffer.alloc(0)) as unknown as {
      readonly metadata: { readonly state: string };
      readonly done: boolean;
      readonly result?: string;
    };
    expect(STATES[found.metadata.state]).toBe(state);
    expect(found.done).toBe(FINAL_STATES.has(state));
    expect(found.result).toBe(resultOf(state));
  });
});

/** One that failed has an error, also where an old journal does not know why. */
function resultOf(state: OperationState): string | undefined {
  if (!FINAL_STATES.has(state)) return undefined;
  return state === 'succeeded' ? 'response' : 'error';
}
