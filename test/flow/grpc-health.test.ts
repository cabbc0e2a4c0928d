import { status } from '@grpc/grpc-js';
import descriptor from 'protobufjs/ext/descriptor/index.js';
import { afterEach, describe, expect, it } from 'vitest';
import type { GrpcOptions } from '../../agent/api/grpc.ts';
import { type Answer, failureOf, type TestClient } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanUp.splice(0).reverse()) await clean();
});

async function start(config: Partial<GrpcOptions> = {}): Promise<Started> {
  const started = await startEndpoint(config);
  cleanUp.push(() => started.stop());
  return started;
}

describe('health', () => {
  const path = 'grpc.health.v1.Health';

  it('follows the readiness of the agent', async () => {
    const { local, reasons } = await start();
    const service = 'snapshot.agent.v1.SnapshotAgent';
    expect(await local.ask(`${path}/Check`)).toEqual({ status: 'SERVING' });
    reasons.push('the watch is stale');
    expect(await local.ask(`${path}/Check`, { service })).toEqual({ status: 'NOT_SERVING' });
    expect((await local.ask(`${path}/List`)).statuses).toEqual({
      '': { status: 'NOT_SERVING' },
      [service]: { status: 'NOT_SERVING' },
    });
  });

  it('does not know other services', async () => {
    const { local } = await start();
    expect((await failureOf(local.ask(`${path}/Check`, { service: 'other' }))).code).toBe(status.NOT_FOUND);
    const watch = local.watch(`${path}/Watch`, { service: 'other' });
    expect(await watch.until(() => true)).toEqual({ status: 'SERVICE_UNKNOWN' });
    watch.call.cancel();
    await watch.ended;
  });

  it('tells a watch of each change, and NOT_SERVING before the server ends it', async () => {
    const { local, reasons, endpoint } = await start();
    const watch = local.watch(`${path}/Watch`, {});
    await watch.until((message) => message.status === 'SERVING');
    reasons.push('the runtime does not answer');
    await watch.until((message) => message.status === 'NOT_SERVING');
    reasons.length = 0;
    await expect.poll(() => watch.seen.length, { timeout: 5_000 }).toBe(3);
    await endpoint.close();
    expect((await watch.ended)?.code).toBe(status.UNAVAILABLE);
    expect(watch.seen.map((message) => message.status)).toEqual(['SERVING', 'NOT_SERVING', 'SERVING', 'NOT_SERVING']);
  });

  it('is too frequent for the log at its usual level', async () => {
    const { local, audit } = await start();
    await local.ask(`${path}/Check`);
    expect(audit()).toMatchObject([{ level: 20, method: 'Health.Check' }]);
  });
});

describe('reflection', () => {
  /** One question of the reflection protocol. */
  function reflect({ client, methodOf }: TestClient, request: object): Promise<Answer> {
    const { path, requestSerialize, responseDeserialize } = methodOf(
      'grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    );
    const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
    const answers: Answer[] = [];
    return new Promise((resolve, reject) => {
      call.on('data', (answer: Answer) => answers.push(answer)).on('error', reject);
      call.on('end', () => resolve(answers[0]));
      call.write(request);
      call.end();
    });
  }

  it('is not there unless it is asked for', async () => {
    const { local } = await start();
    expect((await failureOf(reflect(local, { list_services: '*' }))).code).toBe(status.UNIMPLEMENTED);
  });

  it('lists the services', async () => {
    const { local } = await start({ reflection: true });
    const { list_services_response: list } = await reflect(local, { list_services: '*' });
    expect(list.service.map(({ name }: { name: string }) => name).sort()).toEqual([
      'grpc.health.v1.Health',
      'grpc.reflection.v1.ServerReflection',
      'snapshot.agent.v1.SnapshotAgent',
    ]);
  });

  it.each([
    ['file_containing_symbol', 'snapshot.agent.v1.SnapshotAgent'],
    ['file_containing_symbol', 'snapshot.agent.v1.SnapshotAgent.Checkpoint'],
    ['file_containing_symbol', 'snapshot.agent.v1.OperationMetadata.FiguresEntry'],
    ['file_by_filename', 'snapshot_agent_v1.proto'],
  ])('answers %s %s with all that a client needs to call the agent', async (question, name) => {
    const { local } = await start({ reflection: true });
    const answer = await reflect(local, { [question]: name });
    const bytes: Buffer[] = answer.file_descriptor_response.file_descriptor_proto;
    const files = bytes.map((one) => decodeFile(one));
    expect(files[0].name).toBe('snapshot_agent_v1.proto');
    const home = new Map(files.flatMap((file) => typesOf(file).map((type) => [type, file.name] as const)));
    for (const file of files)
      for (const type of referredIn(file)) expect([file.name, ...(file.dependency ?? [])]).toContain(home.get(type));
    const entry = files[0].messageType.find((one: Answer) => one.name === 'OperationMetadata').nestedType[0];
    expect(entry).toMatchObject({ name: 'FiguresEntry', options: { mapEntry: true } });
  });

  it.each([
    { file_by_filename: 'nothing.proto' },
    { file_containing_symbol: 'snapshot.agent.v1.Nothing' },
    { all_extension_numbers_of_type: 'snapshot.agent.v1.Operation' },
  ])('says NOT_FOUND to %o', async (request) => {
    const { local } = await start({ reflection: true });
    expect((await reflect(local, request)).error_response.error_code).toBe(status.NOT_FOUND);
  });
});

function decodeFile(bytes: Uint8Array): Answer {
  return descriptor.FileDescriptorProto.toObject(descriptor.FileDescriptorProto.decode(bytes));
}

/** Full names of the types of a file, as descriptors refer to them. */
function typesOf(file: Answer): string[] {
  const below = (scope: string, types: Answer[] = []): string[] =>
    types.flatMap(({ name, nestedType, enumType }) => [
      `${scope}.${name}`,
      ...below(`${scope}.${name}`, nestedType),
      ...below(`${scope}.${name}`, enumType),
    ]);
  return [...below(`.${file.package}`, file.messageType), ...below(`.${file.package}`, file.enumType)];
}

/** Every type that fields and methods of a file name. */
function referredIn(file: Answer): string[] {
  const inTypes = (types: Answer[] = []): string[] =>
    types.flatMap(({ field = [], nestedType }) => [
      ...field.flatMap(({ typeName }: Answer) => (typeName ? [typeName] : [])),
      ...inTypes(nestedType),
    ]);
  const inMethods = (file.service ?? []).flatMap(({ method }: Answer) =>
    method.flatMap(({ inputType, outputType }: Answer) => [inputType, outputType]),
  );
  return [...inTypes(file.messageType), ...inMethods];
}
