import { type ChannelCredentials, type ChannelOptions, credentials } from '@grpc/grpc-js';

/** Where an agent listens, and how it is known to be one. Certificates are PEM. */
export type AgentAddress =
  | { readonly socketPath: string }
  | {
      /** `host:port`, an IPv6 host in brackets. */
      readonly address: string;
      /** Who signed the agent's certificate. */
      readonly ca: Buffer;
      readonly certificate: Buffer;
      readonly key: Buffer;
      /** The name in the agent's certificate: all agents have the same, whatever address they are called at. */
      readonly serverName: string;
    };

/** The longest path that the kernel takes for a unix socket. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** What is inside an artifact takes 4 MiB at most. */
const MAX_ANSWER_BYTES = 16 << 20;
/** An agent that died with its node says nothing: after this silence it is asked whether it is there. */
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_ANSWER_MS = 15_000;

interface Channel {
  readonly target: string;
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
}

/** What grpc-js takes for an address. Throws where a certificate or key is no PEM. */
export function channelTo(address: AgentAddress): Channel {
  const options: ChannelOptions = {
    // Each client has connections of its own: to close it closes them.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.max_receive_message_length': MAX_ANSWER_BYTES,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_timeout_ms': KEEPALIVE_ANSWER_MS,
    'grpc.initial_reconnect_backoff_ms': 250,
    'grpc.max_reconnect_backoff_ms': 5_000,
    // What may be asked again is known one level higher: to start an operation is safe by its request id, to delete is not.
    'grpc.enable_retries': 0,
  };
  if ('socketPath' in address)
    return { target: `unix:${address.socketPath}`, credentials: credentials.createInsecure(), options };
  const { ca, key, certificate, serverName } = address;
  return {
    target: address.address,
    credentials: credentials.createSsl(ca, key, certificate),
    options: { ...options, 'grpc.ssl_target_name_override': serverName, 'grpc.default_authority': serverName },
  };
}
