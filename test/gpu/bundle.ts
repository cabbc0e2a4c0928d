import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { copyFile, cp, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { AGENT_ROOT, CACHE, host, REPOSITORY } from '../real/environment/host.ts';

/**
 * Makes .gpu/: all that the GPU tests need on a machine where nothing can be installed. Two archives, which gpu-test.sh unpacks into one
 * tree that has the shape of the repository, so that the tests find their files as they do here.
 */

const BUNDLE = join(REPOSITORY, '.gpu');
/** What travels to such a machine together: the bundle, and the files that git tracks. */
const LIMIT_BYTES = 64 << 20;
/** Compiled from test/gpu/run.ts. As deep below the root as the sources that look for the repository from where they lie. */
const PROGRAM = 'test/gpu/program';

/** What of the agent's root directory the agent and its tools never open. */
const LEFT_OUT = [
  'boot',
  'home',
  'media',
  'mnt',
  'opt',
  'root',
  'srv',
  'usr/games',
  'usr/include',
  'usr/local',
  'usr/share/[!n]*',
  'usr/share/nodejs/corepack',
  'usr/src',
  'var',
  'usr/bin/{apt,dpkg,deb,gpg,gpgv,perl,systemd,localedef}*',
  'usr/lib/{apt,dpkg,systemd,locale,debian-installer,udev}',
  'usr/lib/x86_64-linux-gnu/{perl*,systemd,gconv,security,libapt*,libdb-5*,libsystemd*,libsepol*,libsqlite3*,libmvec*}',
  'usr/lib/x86_64-linux-gnu/engines-3',
];

async function archiveRoot(): Promise<string> {
  const archive = join(BUNDLE, 'root.tar.xz');
  const stampFile = join(CACHE, 'gpu-root.stamp');
  const stamp = createHash('sha256')
    .update(readFileSync(`${AGENT_ROOT}.stamp`))
    .update(LEFT_OUT.join('\n'))
    .digest('hex');
  if (existsSync(archive) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return archive;
  const excluded = LEFT_OUT.flatMap(alternatives).map((pattern) => `--exclude=./.cache/agent-root/${pattern}`);
  await pack(archive, [...excluded, '-C', REPOSITORY, './.cache/agent-root']);
  writeFileSync(stampFile, stamp);
  return archive;
}

/** tar knows no braces. */
function alternatives(pattern: string): string[] {
  const [, before = '', list, after = ''] = /^(.*)\{(.*)\}(.*)$/.exec(pattern) ?? [];
  return list === undefined ? [pattern] : list.split(',').map((one) => `${before}${one}${after}`);
}

async function pack(archive: string, args: readonly string[]): Promise<void> {
  const unfinished = `${archive}.new`;
  const tar = ['tar', '--wildcards', '--anchored', '--numeric-owner', '--use-compress-program=xz -T0 -6', '-cf'];
  await host(['env', ...tar, unfinished, ...args], { timeoutMs: 600_000 });
  await rename(unfinished, archive);
}

async function compileProgram(directory: string): Promise<void> {
  await build({
    entryPoints: [join(REPOSITORY, 'test/gpu/run.ts')],
    outfile: join(directory, PROGRAM, 'run.mjs'),
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    legalComments: 'none',
    logLevel: 'warning',
    banner: { js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);" },
  });
}

async function archiveProgram(): Promise<string> {
  const archive = join(BUNDLE, 'program.tar.xz');
  const work = await mkdtemp(join(tmpdir(), 'gpu-bundle-'));
  const take = async (from: string, to = from) => {
    await mkdir(dirname(join(work, to)), { recursive: true });
    await cp(join(REPOSITORY, from), join(work, to), { recursive: true });
  };
  try {
    await compileProgram(work);
    await take('dist/agent/snapshot-agent.mjs');
    await take('proto');
    // How the agent is started stands in it.
    await take('deploy/images/agent/install.sh');
    await take('test/gpu/workers');
    await take('test/workloads');
    await take('test/preload');
    for (const name of ['agent-root.sh', 'cgroup-v2.sh'])
      await take(`test/real/environment/${name}`, `${PROGRAM}/${name}`);
    for (const name of (await readdir(join(REPOSITORY, 'native/build'))).filter((one) => /^snapshot-[a-z]+$/.test(one)))
      await take(`native/build/${name}`);
    await takeRunc(work);
    await pack(archive, ['-C', work, '.']);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return archive;
}

/** runc cannot be started through another loader, as it starts itself again: it uses that machine's C library. */
async function takeRunc(work: string): Promise<void> {
  await mkdir(join(work, 'bin'), { recursive: true });
  await mkdir(join(work, 'lib'), { recursive: true });
  const runc = (await host(['which', 'runc'])).trim();
  await copyFile(runc, join(work, 'bin/runc'));
  for (const line of (await host(['ldd', runc])).split('\n')) {
    const [, name, path] = /^\s*(libseccomp\.so\S*) => (\S+)/.exec(line) ?? [];
    if (name !== undefined && path !== undefined) await copyFile(path, join(work, 'lib', name));
  }
}

async function main(): Promise<void> {
  if (!existsSync(AGENT_ROOT)) throw new Error("the agent's root directory is not there: run 'make setup'");
  await mkdir(BUNDLE, { recursive: true });
  const archives = await Promise.all([archiveRoot(), archiveProgram()]);
  const tracked = (await host(['git', '-C', REPOSITORY, 'ls-files', '-z'])).split('\0').filter((name) => name !== '');
  const sizes = {
    ...Object.fromEntries(archives.map((path) => [path.slice(REPOSITORY.length + 1), statSync(path).size])),
    'tracked files': tracked.reduce((sum, name) => sum + sizeOf(join(REPOSITORY, name)), 0),
  };
  for (const [name, bytes] of Object.entries(sizes)) process.stdout.write(`${name}: ${mebibytes(bytes)} MiB\n`);
  const all = Object.values(sizes).reduce((sum, bytes) => sum + bytes, 0);
  if (all > LIMIT_BYTES) throw new Error(`${mebibytes(all)} MiB in all, more than ${mebibytes(LIMIT_BYTES)} MiB`);
  process.stdout.write(`gpu-bundle: ready, ${mebibytes(all)} MiB in all\n`);
}

const mebibytes = (bytes: number) => (bytes / (1 << 20)).toFixed(1);
/** A tracked file that was removed and not yet committed has none. */
const sizeOf = (path: string) => (existsSync(path) ? statSync(path).size : 0);

await main();
