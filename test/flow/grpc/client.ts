import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

/** Messages as this client sees them: what a test looks at. */
export type Answer = ReturnType<typeof JSON.parse>;

export interface Details {
  readonly code: number;
  readonly message: string;
  readonly info: Answer;
  readonly violations: readonly Answer[];
  readonly fields: readonly Answer[];
  readonly retrySeconds: number | undefined;
}

const directory = fileURLToPath(new URL('../../../proto/', import.meta.url));

function load() {
  return loadSync(['agent.proto', 'health.proto', 'reflection.proto', 'google/rpc/error_details.proto'], {
    includeDirs: [directory],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
}

export interface Watch {
  readonly seen: Answer[];
  /** Settles when the stream has ended: undefined, or the error. */
  readonly ended: Promise<grpc.ServiceError | undefined>;
  readonly call: grpc.ClientReadableStream<Answer>;
  /** Waits until a message fits. */
  until(fits: (message: Answer) => boolean): Promise<Answer>;
}

/** A plain client of the services in proto/. */
export function connectTo(target: string, credentials = grpc.credentials.createInsecure(), options: object = {}) {
  const definitions = load();
  const Client = grpc.makeGenericClientConstructor({}, 'any');
  const client = new Client(target, credentials, { 'grpc.enable_retries': 0, ...options });
  const methodOf = (path: string) => {
    const [service = '', name = ''] = path.includes('/') ? path.split('/') : ['snapshot.agent.v1.SnapshotAgent', path];
    return (definitions[service] as grpc.ServiceDefinition)[name] as grpc.MethodDefinition<object, Answer>;
  };
  const decode = (type: string, bytes: Buffer): Answer =>
    (definitions[`google.rpc.${type}`] as MessageTypeDefinition<object, object>).deserialize(bytes);

  return {
    client,
    methodOf,
    ask: (path: string, request: object = {}, call: grpc.CallOptions = {}, metadata = new grpc.Metadata()) =>
      new Promise<Answer>((resolve, reject) => {
        const { path: at, requestSerialize, responseDeserialize } = methodOf(path);
        const deadline = Date.now() + 10_000;
        client.makeUnaryRequest(
          at,
          requestSerialize,
          responseDeserialize,
          request,
          metadata,
          { deadline, ...call },
          (e, v) => (e ? reject(e) : resolve(v)),
        );
      }),
    watch: (path: string, request: object, call: grpc.CallOptions = {}): Watch => {
      const { path: at, requestSerialize, responseDeserialize } = methodOf(path);
      const stream = client.makeServerStreamRequest(at, requestSerialize, responseDeserialize, request, call);
      return follow(stream);
    },
    /** The details of an error, taken apart. */
    details: (error: grpc.ServiceError): Details => {
      const [bytes] = error.metadata.get('grpc-status-details-bin');
      if (!Buffer.isBuffer(bytes)) throw new Error(`no details: ${error.message}`);
      const status = decode('Status', bytes);
      return readStatus(status, decode);
    },
    statusDetails: (status: Answer): Details => readStatus(status, decode),
    close: () => client.close(),
  };
}

export type TestClient = ReturnType<typeof connectTo>;

function readStatus(status: Answer, decode: (type: string, bytes: Buffer) => Answer): Details {
  const all = status.details.map(({ type_url: url, value }: Answer) => {
    const type = url.replace('type.googleapis.com/google.rpc.', '');
    return { type, value: decode(type, value) };
  });
  const one = (type: string) => all.find((each: Answer) => each.type === type)?.value;
  return {
    code: status.code,
    message: status.message,
    info: one('ErrorInfo'),
    violations: one('PreconditionFailure')?.violations ?? [],
    fields: one('BadRequest')?.field_violations ?? [],
    retrySeconds: one('RetryInfo')?.retry_delay.seconds,
  };
}

function follow(call: grpc.ClientReadableStream<Answer>): Watch {
  const seen: Answer[] = [];
  const waiting = new Set<() => void>();
  const ring = () => {
    for (const wake of waiting) wake();
  };
  let isOver = false;
  call.on('data', (message) => {
    seen.push(message);
    ring();
  });
  const ended = new Promise<grpc.ServiceError | undefined>((resolve) => {
    const end = (error?: grpc.ServiceError) => {
      isOver = true;
      resolve(error);
      ring();
    };
    call.once('error', end);
    call.once('end', () => setImmediate(end));
  });
  return {
    seen,
    ended,
    call,
    until: (fits) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = seen.find(fits);
          if (found === undefined && !isOver) return;
          waiting.delete(look);
          if (found === undefined) reject(new Error(`the stream ended without it: ${JSON.stringify(seen)}`));
          else resolve(found);
        };
        waiting.add(look);
        look();
      }),
  };
}

/** The error that a call ends with. */
export async function failureOf(call: Promise<unknown>): Promise<grpc.ServiceError> {
  const [outcome] = await Promise.allSettled([call]);
  if (outcome.status === 'rejected') return outcome.reason as grpc.ServiceError;
  throw new Error(`the call succeeded: ${JSON.stringify(outcome.value)}`);
}

/** Polls until it holds; the time is a limit, not a measure. */
export async function eventually<T>(look: () => T | undefined | false, limitMs = 10_000): Promise<T> {
  const until = Date.now() + limitMs;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > until) throw new Error('it did not come to pass');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
