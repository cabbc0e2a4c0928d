import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VERSION } from '../../contract/version.ts';

/** The targets of the Makefile that call a container engine. The engine is a stand-in that notes what it is asked. */
const ROOT = resolve(import.meta.dirname, '../..');
let directory: string;
let record: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'image-targets-'));
  record = join(directory, 'calls');
  for (const tool of ['docker', 'podman']) {
    const path = join(directory, tool);
    writeFileSync(path, `#!/bin/bash\nprintf '%s\\n' "\${DOCKER_BUILDKIT:-} ${tool}" "$@" >"${record}"\n`);
    chmodSync(path, 0o755);
  }
});
afterEach(() => rmSync(directory, { recursive: true }));

function make(...args: readonly string[]): string {
  const { CRIU_REPO: _repo, CRIU_REF: _ref, MAKEFLAGS: _flags, MAKELEVEL: _level, ...env } = process.env;
  const PATH = `${directory}:${process.env['PATH']}`;
  return execFileSync('make', ['--no-print-directory', ...args], {
    cwd: ROOT,
    env: { ...env, PATH },
    encoding: 'utf8',
    stdio: 'pipe',
  });
}

/** What the engine was asked, an argument each. */
function asked(...args: readonly string[]): string[] {
  make(...args);
  return readFileSync(record, 'utf8').trimEnd().split('\n');
}

/** The values of an option that is given any number of times. */
function valuesOf(call: readonly string[], option: string): string[] {
  return call.filter((_, index) => call[index - 1] === option).sort();
}

function refusal(...args: readonly string[]): string {
  try {
    make(...args);
  } catch (error) {
    return (error as { stderr: string }).stderr.trim();
  }
  throw new Error(`make ${args.join(' ')} did not fail`);
}

describe('docker-build-agent', () => {
  it('builds with the base of versions.env and no CRIU of its own, and says from what and when', () => {
    const call = asked('docker-build-agent', 'IMG=registry.example.com/agent:1');
    expect(call.slice(0, 4)).toEqual(['1 docker', 'build', '--platform', 'linux/amd64']);
    expect(valuesOf(call, '-f')).toEqual(['deploy/images/agent/Dockerfile']);
    expect(valuesOf(call, '-t')).toEqual(['registry.example.com/agent:1']);
    expect(valuesOf(call, '--build-arg')).toEqual(['BASE=debian:trixie-slim']);
    expect(valuesOf(call, '--label')).toEqual([
      expect.stringMatching(/^org\.opencontainers\.image\.created=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      expect.stringMatching(/^org\.opencontainers\.image\.revision=[0-9a-f]{40}(-dirty)?$/),
    ]);
    expect(call.at(-1)).toBe('.');
  });

  it('has a name without IMG, passes CRIU_REPO and CRIU_REF on, and takes another engine, base and archive', () => {
    const given = ['CRIU_REPO=https://example.com/criu.git', 'CRIU_REF=my branch', 'MIRROR=http://example.com/debian'];
    const call = asked('docker-build-agent', 'CONTAINER_TOOL=podman', 'BASE_IMG=debian@sha256:1', ...given);
    expect(call[0]).toBe('1 podman');
    expect(valuesOf(call, '-t')).toEqual([`snapshot-agent:${VERSION}`]);
    expect(valuesOf(call, '--build-arg')).toEqual(['BASE=debian@sha256:1', ...given].sort());
  });
});

it('a base is pinned by its digest, beside its tag', () => {
  const call = asked('docker-build-operator', 'BASE_DIGEST=sha256:12');
  expect(valuesOf(call, '--build-arg')).toEqual(['BASE=debian:trixie-slim@sha256:12']);
});

describe('docker-build-operator', () => {
  it('builds with the base of versions.env, under a name of its own', () => {
    const call = asked('docker-build-operator', 'OPERATOR_IMG=registry.example.com/operator:1');
    expect(call.slice(0, 4)).toEqual(['1 docker', 'build', '--platform', 'linux/amd64']);
    expect(valuesOf(call, '-f')).toEqual(['deploy/images/operator/Dockerfile']);
    expect(valuesOf(call, '-t')).toEqual(['registry.example.com/operator:1']);
    expect(valuesOf(call, '--build-arg')).toEqual(['BASE=debian:trixie-slim']);
    expect(valuesOf(asked('docker-build-operator'), '-t')).toEqual([`snapshot-operator:${VERSION}`]);
  });
});

describe('docker-build-placeholder', () => {
  const given = [
    'PLACEHOLDER_BASE_IMG=registry.example.com/vllm:1',
    'PLACEHOLDER_IMG=registry.example.com/placeholder:1',
  ];

  it('builds upon the base image', () => {
    const call = asked('docker-build-placeholder', ...given);
    expect(call.slice(0, 4)).toEqual(['1 docker', 'build', '--platform', 'linux/amd64']);
    expect(valuesOf(call, '-f')).toEqual(['deploy/images/placeholder/Dockerfile']);
    expect(valuesOf(call, '-t')).toEqual(['registry.example.com/placeholder:1']);
    expect(valuesOf(call, '--build-arg')).toEqual([
      'BASE=debian:trixie-slim',
      'PLACEHOLDER_BASE_IMG=registry.example.com/vllm:1',
    ]);
    // The revision that the base's own label names is the base's.
    expect(valuesOf(call, '--label')).toEqual([expect.stringMatching(/^org\.opencontainers\.image\.created=/)]);
  });

  it('takes CRIU_REPO and CRIU_REF, and says that there is no CRIU in it', () => {
    expect(make('docker-build-placeholder', ...given)).not.toContain('CRIU');
    expect(make('docker-build-placeholder', ...given, 'CRIU_REF=criu-dev')).toContain('a placeholder carries no CRIU');
    expect(valuesOf(readFileSync(record, 'utf8').split('\n'), '--build-arg')).toContain('CRIU_REF=criu-dev');
  });

  it.each([
    [[], 'say which image the workload has today with PLACEHOLDER_BASE_IMG='],
    [given.slice(0, 1), 'say what the placeholder image is to be called with PLACEHOLDER_IMG='],
  ])('given %j says what is missing', (some, sentence) => {
    expect(refusal('docker-build-placeholder', ...some)).toContain(`docker-build-placeholder: ${sentence}`);
  });
});

describe('the targets that push', () => {
  it('push what they are given', () => {
    expect(asked('docker-push-agent', 'IMG=r/agent:1')).toEqual([' docker', 'push', 'r/agent:1']);
    expect(asked('docker-push-operator', 'OPERATOR_IMG=r/operator:1')).toEqual([' docker', 'push', 'r/operator:1']);
    expect(asked('docker-push-placeholder', 'PLACEHOLDER_IMG=r/placeholder:1')).toEqual([
      ' docker',
      'push',
      'r/placeholder:1',
    ]);
  });

  it.each(['docker-push-agent', 'docker-push-operator', 'docker-push-placeholder'])(
    '%s wants to be told what',
    (target) => {
      expect(refusal(target)).toMatch(
        new RegExp(`${target}: say which image is to be pushed with (PLACEHOLDER_|OPERATOR_)?IMG=`),
      );
    },
  );
});
