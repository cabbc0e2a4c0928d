import { fileURLToPath } from 'node:url';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

export const AGENT_SERVICE = 'snapshot.agent.v1.SnapshotAgent';
const HEALTH_SERVICE = 'grpc.health.v1.Health';
const REFLECTION_SERVICE = 'grpc.reflection.v1.ServerReflection';

/** The messages that errors carry. */
export type DetailType = 'Status' | 'ErrorInfo' | 'RetryInfo' | 'PreconditionFailure' | 'BadRequest';

/** The services and messages of proto/, ready for a server or a client. */
export interface Protocol {
  readonly agent: ServiceDefinition;
  readonly health: ServiceDefinition;
  readonly reflection: ServiceDefinition;
  /** A message of google.rpc in its wire form. */
  encode(type: DetailType, message: object): Buffer;
  /** A message of google.rpc out of its wire form. Throws where it is none. */
  decode(type: DetailType, bytes: Buffer): object;
  /** Every package as an encoded FileDescriptorProto: one file for each, however many files it was read from. */
  readonly descriptors: readonly Buffer[];
}

/**
 * Reads proto/, which lies beside contract/ and beside dist/: two directories up from here, and from a bundle. Decoded messages have every
 * field: 0, '' and [] where it is not set, null for messages, names for enums and oneofs.
 */
export function loadProtocol(): Protocol {
  const directory = fileURLToPath(new URL('../../proto/', import.meta.url));
  const files = ['agent.proto', 'health.proto', 'reflection.proto', 'google/rpc/error_details.proto'];
  const definitions = loadSync(files, {
    includeDirs: [directory],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const service = (name: string) => definitions[name] as ServiceDefinition;
  const message = (name: string) => definitions[name] as MessageTypeDefinition<object, object>;
  return {
    agent: service(AGENT_SERVICE),
    health: service(HEALTH_SERVICE),
    reflection: service(REFLECTION_SERVICE),
    encode: (type, value) => message(`google.rpc.${type}`).serialize(value),
    decode: (type, bytes) => message(`google.rpc.${type}`).deserialize(bytes),
    descriptors: message('google.rpc.Status').fileDescriptorProtos,
  };
}
