import { type handleBidiStreamingCall, status, type UntypedServiceImplementation } from '@grpc/grpc-js';
import descriptor, { type IDescriptorProto, type IFileDescriptorProto } from 'protobufjs/ext/descriptor/index.js';
import { type Desk, perform } from './rpc-call.ts';

interface ReflectionRequest {
  readonly host: string;
  readonly message_request?: string;
  readonly file_by_filename?: string;
  readonly file_containing_symbol?: string;
}

type File = IFileDescriptorProto & { readonly name: string; readonly package: string };

/** Files by their name and by every symbol in them. Each answer holds the file and all others: there are few, and they need each other. */
interface FileIndex {
  readonly services: readonly string[];
  find(nameOrSymbol: string): readonly Buffer[] | undefined;
}

/**
 * Reads encoded FileDescriptorProtos as protobufjs makes them, and mends what other implementations refuse in them: names of types are
 * relative, imports are missing, and the entries of maps have no name of their own kind.
 */
function indexFiles(encoded: readonly Buffer[]): FileIndex {
  const files = encoded.map((bytes) => descriptor.FileDescriptorProto.decode(bytes) as unknown as File);
  const index = () => new Map(files.flatMap((file) => symbolsOf(file).map((symbol) => [symbol, file] as const)));
  const relative = index();
  for (const file of files) mend(file, relative);
  const symbols = index();
  const bytes = new Map(files.map((file) => [file, encode(file)]));
  const services = files.flatMap((file) => (file.service ?? []).map(({ name = '' }) => `${file.package}.${name}`));
  return {
    services,
    find: (name) => {
      const file = files.find((each) => each.name === name) ?? symbols.get(name);
      if (file === undefined) return undefined;
      return [file, ...files.filter((other) => other !== file)].map((each) => bytes.get(each) ?? Buffer.alloc(0));
    },
  };
}

function encode(file: File): Buffer {
  return Buffer.from(descriptor.FileDescriptorProto.encode(file as object).finish());
}

function symbolsOf(file: File): string[] {
  const ofType = (scope: string, type: IDescriptorProto): string[] => {
    const name = `${scope}.${type.name}`;
    const members = [...(type.field ?? []), ...(type.oneofDecl ?? []), ...(type.enumType ?? [])];
    const nested = (type.nestedType ?? []).flatMap((each) => ofType(name, each));
    return [name, ...members.map((member) => `${name}.${member.name}`), ...nested];
  };
  const ofService = (file.service ?? []).flatMap(({ name, method = [] }) => [
    `${file.package}.${name}`,
    ...method.map((each) => `${file.package}.${name}.${each.name}`),
  ]);
  const enums = (file.enumType ?? []).map(({ name }) => `${file.package}.${name}`);
  return [...(file.messageType ?? []).flatMap((type) => ofType(file.package, type)), ...ofService, ...enums];
}

function mend(file: File, symbols: ReadonlyMap<string, File>): void {
  const imports = new Set<string>();
  /** The rule of protobuf: the innermost scope that has the name. */
  const resolve = (scope: string, name: string): string => {
    for (let within = scope; ; within = within.slice(0, Math.max(0, within.lastIndexOf('.')))) {
      const full = within === '' ? name : `${within}.${name}`;
      const home = symbols.get(full);
      if (home !== undefined) {
        if (home !== file) imports.add(home.name);
        return `.${full}`;
      }
      if (within === '') return name;
    }
  };
  const mendType = (scope: string, type: IDescriptorProto): void => {
    const full = `${scope}.${type.name}`;
    for (const field of type.field ?? []) if (field.typeName) field.typeName = resolve(full, field.typeName);
    for (const nested of type.nestedType ?? []) {
      mendType(full, nested);
      if (nested.options?.mapEntry) renameEntry(type, nested, full);
    }
  };
  for (const type of file.messageType ?? []) mendType(file.package, type);
  for (const method of (file.service ?? []).flatMap(({ method: all = [] }) => all)) {
    method.inputType = resolve(file.package, method.inputType ?? '');
    method.outputType = resolve(file.package, method.outputType ?? '');
  }
  file.dependency = [...imports].sort();
}

function renameEntry(type: IDescriptorProto, entry: IDescriptorProto, scope: string): void {
  const old = `.${scope}.${entry.name}`;
  entry.name = `${entry.name}Entry`;
  for (const field of type.field ?? []) if (field.typeName === old) field.typeName = `.${scope}.${entry.name}`;
}

/** grpc.reflection.v1: what clients such as grpcurl ask to learn the API. */
export function reflectionCalls(desk: Desk): UntypedServiceImplementation {
  const index = indexFiles(desk.protocol.descriptors);
  const info: handleBidiStreamingCall<ReflectionRequest, object> = (call) => {
    const method = { name: 'ServerReflection.ServerReflectionInfo', kind: 'stream' } as const;
    perform(desk, call, method, async () => {
      // Without destroying it: the other half is still to end.
      for await (const request of call.iterator({ destroyOnReturn: false }) as AsyncIterable<ReflectionRequest>) {
        const isTaken = call.write({ valid_host: request.host, original_request: request, ...answer(index, request) });
        if (!isTaken) await new Promise((resolve) => call.once('drain', resolve).once('close', resolve));
      }
    }).then(
      () => call.end(),
      (error: unknown) => call.emit('error', error),
    );
  };
  return { ServerReflectionInfo: info };
}

function answer(index: FileIndex, request: ReflectionRequest): object {
  const { message_request: kind, file_by_filename: file = '', file_containing_symbol: symbol = '' } = request;
  if (kind === 'list_services')
    return { list_services_response: { service: index.services.map((name) => ({ name })) } };
  const isFile = kind === 'file_by_filename' || kind === 'file_containing_symbol';
  const found = isFile ? index.find(kind === 'file_by_filename' ? file : symbol) : undefined;
  if (found !== undefined) return { file_descriptor_response: { file_descriptor_proto: found } };
  // There are no extensions: proto3 has none.
  return { error_response: { error_code: status.NOT_FOUND, error_message: 'nothing of this name is known here' } };
}
