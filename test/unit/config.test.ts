import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadConfig, parseConfig, socketPath } from '../../agent/config.ts';
import { ORIGINAL_KEYS, originalKeyWarnings } from '../../agent/config-original.ts';

const LEAST = 'nodeName: node-a\nstorage: { basePath: /checkpoints }\n';

/** What is said about a configuration that is refused. */
function refusal(text: string, env: Record<string, string | undefined> = {}): string {
  try {
    parseConfig(text, env);
  } catch (error) {
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    return (error as Error).message;
  }
  throw new Error(`accepted: ${text}`);
}

const DRIVER_DIRECTORIES = [
  '/run/nvidia/driver/usr/lib/x86_64-linux-gnu',
  '/run/nvidia/driver/usr/lib64',
  '/home/kubernetes/bin/nvidia/lib64',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib64',
];

describe('the configuration', () => {
  it('needs a node and a base path, and has a default for everything else', () => {
    expect(parseConfig(LEAST)).toEqual({
      nodeName: 'node-a',
      logLevel: 'info',
      runtime: { type: 'containerd', socketPath: '' },
      storage: {
        type: 'pvc',
        accessMode: 'agentMount',
        basePath: '/checkpoints',
        key: { file: '/var/lib/snapshot-agent/record.key', create: false, previousFiles: [], acceptedDirectory: '' },
      },
      host: { procRoot: '/host/proc', cgroupRoot: '/host/cgroup' },
      paths: {
        stateDir: '/var/lib/snapshot-agent',
        runDir: '/run/snapshot-agent',
        helper: '/opt/snapshot-agent/native/build/snapshot-helper',
      },
      watch: { source: 'auto', pollMilliseconds: 500, resyncSeconds: 30 },
      kubernetes: { kubeconfig: '', namespace: '', staleSeconds: 120, leaseSeconds: 30 },
      http: { address: ':9090' },
      tracing: { endpoint: '' },
      api: {
        socketPath: '/run/snapshot-agent-api/agent.sock',
        listen: '',
        tls: { certificateFile: '', keyFile: '', clientCaFile: '' },
        clients: [],
        reflection: false,
        limits: {
          maxMessageBytes: 65_536,
          maxConnections: 64,
          maxConcurrentCalls: 64,
          maxConcurrentCallsPerCaller: 32,
          maxStreams: 256,
          maxStreamsPerCaller: 128,
          callsPerSecond: 50,
          burst: 200,
          maxCallMs: 3_600_000,
        },
        closeGraceSeconds: 5,
      },
      retention: {
        ttlSeconds: 0,
        maxArtifactsPerNamespace: 0,
        maxBytesPerNamespace: 0,
        highPercent: 0,
        lowPercent: 0,
        minAgeSeconds: 3_600,
        intervalSeconds: 600,
      },
      cuda: {
        worker: '/opt/snapshot-agent/native/build/snapshot-cuda',
        libcuda: DRIVER_DIRECTORIES.map((directory) => `${directory}/libcuda.so.1`),
        libnvml: DRIVER_DIRECTORIES.map((directory) => `${directory}/libnvidia-ml.so.1`),
        environment: {},
        startSeconds: 30,
        idleSeconds: 60,
        maxWorkers: 32,
        lockTimeoutSeconds: 10,
        callSeconds: 30,
        minimumBytesPerSecond: 268_435_456,
        proveRestore: 'live',
        podResourcesSocket: '/var/lib/kubelet/pod-resources/kubelet.sock',
        multiGpuBelowDriver590: 'warn',
      },
      checkpoint: { quiesceDelaySeconds: 10, timeoutSeconds: 3600, frozenTimeoutSeconds: 300 },
      restore: {
        restoreTimeoutSeconds: 7200,
        standbySeconds: 10,
        allowPtraceCapability: false,
        allowOlderKernel: false,
        allowImageMismatch: false,
      },
      memory: { bulkMinimumBytes: 1048576, threads: 0, workBytes: 8589934592 },
      overlay: { exclusions: ['/proc', '/sys', '/dev'] },
      criu: {
        binaryPath: '/usr/sbin/criu',
        ghostLimit: 536870912,
        logLevel: 2,
        leaveRunning: true,
        irmapScanPaths: [],
        environment: {},
      },
      limits: { parallelOperations: 4, drainSeconds: 300 },
    });
  });

  it('does not share defaults between two readings', () => {
    const first = parseConfig(LEAST);
    first.overlay.exclusions.push('/changed');
    expect(parseConfig(LEAST).overlay.exclusions).not.toContain('/changed');
  });

  it.each([
    ['nodeNam: x\n', 'nodeNam'],
    ['criu: { ghostlimit: 1 }\n', 'ghostlimit'],
    ['watch: { pollSeconds: 1 }\n', 'pollSeconds'],
    ['restore: { restoreTimeoutSecond: 1 }\n', 'restoreTimeoutSecond'],
  ])('names an unknown key: %s', (line, key) => {
    expect(refusal(LEAST + line)).toMatch(new RegExp(`Unrecognized key.*"${key}"`));
  });

  it('tells of all problems at once, each with the path of its key', () => {
    const message = refusal(
      'storage: { basePath: relative, accessMode: s3 }\nlimits: { parallelOperations: 0 }\nwatch: { pollMilliseconds: "fast" }\nbogus: 1\n',
    );
    for (const part of [
      'storage.basePath: must be an absolute, clean path',
      'storage.accessMode',
      'limits.parallelOperations',
      'watch.pollMilliseconds',
      'nodeName: is required: set it, or the environment variable NODE_NAME',
      '"bogus"',
    ])
      expect(message).toContain(part);
  });

  it.each([
    ['a file without storage', 'nodeName: a\n', 'storage'],
    ['storage without a base path', 'nodeName: a\nstorage: {}\n', 'storage.basePath'],
    ['another type of storage', `${LEAST}`.replace('{ ', '{ type: s3, '), 'storage.type: only pvc is implemented'],
    ['another runtime', `${LEAST}runtime: { type: docker }\n`, 'runtime.type'],
    ['a fraction of an operation', `${LEAST}limits: { parallelOperations: 1.5 }\n`, 'limits.parallelOperations'],
    ['a timeout of nothing', `${LEAST}checkpoint: { timeoutSeconds: 0 }\n`, 'checkpoint.timeoutSeconds'],
    [
      'a timeout beyond what a timer can hold',
      `${LEAST}checkpoint: { timeoutSeconds: 86401 }\n`,
      'checkpoint.timeoutSeconds',
    ],
    ['a log level of CRIU that does not exist', `${LEAST}criu: { logLevel: 5 }\n`, 'criu.logLevel'],
    ['a relative socket of kubelet', `${LEAST}cuda: { podResourcesSocket: k.sock }\n`, 'cuda.podResourcesSocket'],
    [
      'a socket of kubelet that no address holds',
      `${LEAST}cuda: { podResourcesSocket: /${'x'.repeat(107)} }\n`,
      'cuda.podResourcesSocket',
    ],
    ['a library of the driver by a relative path', `${LEAST}cuda: { libcuda: [libcuda.so.1] }\n`, 'cuda.libcuda.0'],
    ['a lock that is waited for without end', `${LEAST}cuda: { lockTimeoutSeconds: 0 }\n`, 'cuda.lockTimeoutSeconds'],
    ['another proof', `${LEAST}cuda: { proveRestore: never }\n`, 'cuda.proveRestore'],
    ['another rule for GPUs', `${LEAST}cuda: { multiGpuBelowDriver590: allow }\n`, 'cuda.multiGpuBelowDriver590'],
    ['a null where a section belongs', `${LEAST}criu:\n`, 'criu'],
  ])('refuses %s', (_, text, path) => {
    expect(refusal(text)).toContain(path);
  });

  it.each(['/', '/checkpoints', '/a/.hidden', '/a..b/c', '/a b', '/...'])('takes %j for a clean path', (path) => {
    expect(parseConfig(JSON.stringify({ nodeName: 'a', storage: { basePath: path } })).storage.basePath).toBe(path);
  });

  it.each([
    '',
    'relative',
    './a',
    '//',
    '//a',
    '/a/',
    '/a//b',
    '/.',
    '/..',
    '/./a',
    '/../a',
    '/a/.',
    '/a/..',
    '/a/./b',
    '/a/../b',
    '/a\n/../b',
    '/a\0',
    `/${'x'.repeat(1024)}`,
  ])('takes %j for no clean path', (path) => {
    expect(refusal(JSON.stringify({ nodeName: 'a', storage: { basePath: path } }))).toMatch(
      /storage\.basePath: (must be|is too long)/,
    );
  });
});

describe('the name of the node', () => {
  const unnamed = 'storage: { basePath: /c }\n';

  it('is that of the environment, whatever the file says', () => {
    expect(parseConfig(LEAST, { NODE_NAME: 'node-b' }).nodeName).toBe('node-b');
    expect(parseConfig(unnamed, { NODE_NAME: 'node-b' }).nodeName).toBe('node-b');
  });

  it('is that of the file where the environment has none, or an empty one', () => {
    expect(parseConfig(LEAST, { NODE_NAME: '' }).nodeName).toBe('node-a');
    expect(parseConfig(LEAST, {}).nodeName).toBe('node-a');
  });

  it('must be somewhere', () => {
    expect(refusal(unnamed, { NODE_NAME: '' })).toContain('nodeName: is required');
    expect(refusal(`nodeName: ''\n${unnamed}`)).toContain('nodeName: is required');
  });
});

describe('text that is no configuration', () => {
  it.each([
    ['a list', '- a\n- b\n', 'must be a YAML mapping'],
    ['a scalar', 'just text', 'must be a YAML mapping'],
    ['broken YAML', 'a: [1,', 'is no YAML'],
    ['a key twice', `${LEAST}logLevel: info\nlogLevel: warn\n`, 'is no YAML'],
    ['two documents', `${LEAST}---\n${LEAST}`, 'is no YAML'],
    ['an alias, of which bombs are made', 'a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n', 'is no YAML'],
  ])('is refused: %s', (_, text, message) => {
    expect(refusal(text)).toContain(message);
  });

  it('is answered at once where a bomb would fill the memory', () => {
    const levels = 'abcdefghijklmnop'.split('');
    const bomb = levels.map((name, n) => {
      const value = n === 0 ? 'x' : `*${levels[n - 1]}`;
      return `${name}: &${name} [${Array(10).fill(value).join(', ')}]`;
    });
    const began = performance.now();
    refusal(bomb.join('\n'));
    expect(performance.now() - began).toBeLessThan(500);
  });

  it('is an empty file like one that says nothing', () => {
    for (const text of ['', '# nothing\n', '---\n']) expect(refusal(text, { NODE_NAME: 'a' })).toContain('storage');
  });
});

describe('the configuration file', () => {
  it('is read', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'config-'));
    try {
      const path = join(directory, 'config.yaml');
      await writeFile(path, LEAST);
      expect(loadConfig(path, {}).nodeName).toBe('node-a');
      expect(() => loadConfig(join(directory, 'missing.yaml'), {})).toThrow(
        expect.objectContaining({
          code: 'CONFIG_INVALID',
          message: expect.stringMatching(/missing\.yaml cannot be read.*ENOENT/),
        }),
      );
      expect(() => loadConfig(directory, {})).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe('the socket of the runtime', () => {
  it.each([
    ['{ type: containerd }', '/run/containerd/containerd.sock'],
    ['{ type: crio }', '/var/run/crio/crio.sock'],
    ['{ type: crio, socketPath: /other.sock }', '/other.sock'],
  ])('of %s is %s', (runtime, path) => {
    expect(socketPath(parseConfig(`${LEAST}runtime: ${runtime}\n`))).toBe(path);
  });
});

describe("the original system's keys", () => {
  const read = (criu: object) => parseConfig(JSON.stringify({ nodeName: 'a', storage: { basePath: '/c' }, criu })).criu;
  const rows = Object.entries(ORIGINAL_KEYS);

  it.each(rows.flatMap(([key, { same }]) => same.map((value) => [key, value] as const)))(
    'are accepted without a word where they say what happens anyway: %s %j',
    (key, value) => {
      expect(originalKeyWarnings(read({ [key]: value }), undefined)).toEqual([]);
    },
  );

  it.each(rows.filter(([, { otherwise }]) => otherwise === 'warn').map(([key]) => key))(
    'are accepted with a warning that names them: %s',
    (key) => {
      const [warning, ...others] = originalKeyWarnings(read({ [key]: 'something else' }), undefined);
      expect(others).toEqual([]);
      expect(warning).toContain(`criu.${key}: "something else" has no effect: ${ORIGINAL_KEYS[key]?.why}`);
    },
  );

  it.each(rows.filter(([, { otherwise }]) => otherwise === 'refuse'))(
    'are refused where following them would do harm: %s',
    (key, { why }) => {
      const text = JSON.stringify({ nodeName: 'a', storage: { basePath: '/c' }, criu: { [key]: 'something else' } });
      expect(refusal(text)).toContain(`criu.${key}: is refused: ${why}`);
    },
  );

  it('are nothing but scalars', () => {
    for (const [key] of rows) {
      const text = JSON.stringify({ nodeName: 'a', storage: { basePath: '/c' }, criu: { [key]: ['list'] } });
      expect(refusal(text), key).toContain(`criu.${key}`);
    }
  });

  it('have the defaults of the original chart accepted, and say which of them have no effect', () => {
    const chart = {
      ghostLimit: 536870912,
      logLevel: 4,
      workDir: '/var/criu-work',
      leaveRunning: true,
      shellJob: true,
      tcpClose: false,
      tcpEstablished: true,
      fileLocks: true,
      orphanPtsMaster: true,
      extUnixSk: true,
      linkRemap: true,
      extMasters: true,
      manageCgroupsMode: 'soft',
      rstSibling: true,
      mntnsCompatMode: false,
      evasiveDevices: true,
      forceIrmap: true,
      autoDedup: false,
      lazyPages: false,
      libDir: '',
      allowUprobes: true,
      skipInFlight: true,
    };
    const warnings = originalKeyWarnings(read(chart), '/usr/local/bin/nsrestore');
    expect(warnings.map((warning) => warning.split(/:? /)[0])).toEqual([
      'criu.workDir',
      'criu.extUnixSk',
      'criu.logLevel',
      'restore.nsRestorePath',
    ]);
  });
});
