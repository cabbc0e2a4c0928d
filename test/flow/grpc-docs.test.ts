import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS } from '../../agent/api/grpc.ts';
import { loadProtocol } from '../../agent/api/rpc-protocol.ts';
import { REMEMBERED } from '../../agent/operations/fair-share.ts';
import { MAX_INSPECTIONS, MAX_VERIFICATIONS } from '../../agent/operations/requests.ts';
import { makeAuthority } from './grpc/certificates.ts';
import { eventually } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

const page = readFileSync('docs/api.md', 'utf8');
const example = /```js\n([\s\S]*?)```/.exec(page)?.[1] ?? '';

let directory: string;
let started: Started;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'grpc-docs-'));
  const authority = await makeAuthority(directory, 'cluster');
  const server = await authority.issue('agent', { names: 'DNS:localhost' });
  const client = await authority.issue('snapshot-operator');
  await copyFile(authority.file, join(directory, 'ca.crt'));
  await copyFile(client.certFile, join(directory, 'tls.crt'));
  await copyFile(client.keyFile, join(directory, 'tls.key'));
  const files = { certificateFile: server.certFile, keyFile: server.keyFile, clientCaFile: authority.file };
  const clients = [{ name: 'snapshot-operator', namespaces: ['team-a'] }];
  started = await startEndpoint({ tcp: { ...files, address: '127.0.0.1:0' }, clients: () => clients });
});
afterEach(async () => {
  await started.stop();
  await rm(directory, { recursive: true, force: true });
});

describe('docs/api.md', () => {
  it.each(['unix', 'tcp'] as const)('has an example that works over %s', async (listener) => {
    const { fake, endpoint, socketPath } = started;
    const port = endpoint.addresses.tcp?.split(':').at(-1);
    const env =
      listener === 'unix' ? { AGENT: `unix:${socketPath}` } : { AGENT: `localhost:${port}`, CERTIFICATES: directory };
    const args = ['--input-type=module', '-e', example, '--', 'team-a', 'worker-0', 'main', 'ckpt'];
    const running = promisify(execFile)(process.execPath, args, { env: { ...process.env, ...env }, timeout: 20_000 });
    const found = eventually(() => fake.operations.list()[0]?.id, 15_000);
    const name = await Promise.race([found, running.then(({ stderr }) => Promise.reject(new Error(stderr)))]);
    fake.handle(name).step('criu-dump', 'undone');
    fake.end(name);
    const { stdout } = await running;
    expect(stdout.trim().split('\n').slice(-2)).toEqual([expect.stringContaining('OPERATION_STATE_SUCCEEDED'), 'done']);
  });

  it('has every method, and no other', () => {
    const table = page.slice(page.indexOf('## Methods'), page.indexOf('**Requests.**'));
    const named = [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);
    expect(named).toEqual(Object.keys(loadProtocol().agent));
  });

  it('has the limits as they are', () => {
    const value = (limit: string) =>
      page
        .split('\n')
        .find((line) => line.startsWith(`| ${limit}`))
        ?.split('|')[2]
        ?.trim();
    const { maxConcurrentCallsPerCaller: calls, maxStreamsPerCaller: streams, callsPerSecond, burst } = DEFAULT_LIMITS;
    expect(value('size of a request')).toBe(`${DEFAULT_LIMITS.maxMessageBytes / 1024} KiB`);
    expect(value('connections')).toBe(String(DEFAULT_LIMITS.maxConnections));
    expect(value('calls at once')).toBe(`${calls}, ${DEFAULT_LIMITS.maxConcurrentCalls}`);
    expect(value('streams at once')).toBe(`${streams}, ${DEFAULT_LIMITS.maxStreams}`);
    expect(value('calls of one caller')).toBe(`${callsPerSecond}; ${burst}`);
    expect(value('`VerifyCheckpoint` at once')).toBe(String(MAX_VERIFICATIONS));
    expect(value('`InspectCheckpoint` at once')).toBe(String(MAX_INSPECTIONS));
    expect(value('ended operations')).toBe(`${REMEMBERED.inAll}; ${REMEMBERED.each}`);
    expect(value('duration of a call')).toBe(`${DEFAULT_LIMITS.maxCallMs / 3_600_000} h`);
  });
});
