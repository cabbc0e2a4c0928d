import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadConfig, parseConfig } from '../../agent/config.ts';
import { watchConfig } from '../../agent/config-reload.ts';
import { until } from '../fakes/cri-server.ts';
import { memoryLog } from '../fakes/log.ts';

const LEAST = 'storage: { basePath: /checkpoints }\n';
const ENV = { NODE_NAME: 'node-a' };
const CHANGED = 'configuration changed';
const WAITING = 'changes of the configuration wait for a restart of the agent';
const REFUSED = 'the configuration file is refused: what was in force stays';
const NOTHING_NEW = 'the configuration file says nothing new';
const GONE = 'the configuration file cannot be read: what was in force stays';

let dir: string;
let path: string;
let stop: AbortController;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'config-reload-'));
  path = join(dir, 'config.yaml');
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  await rm(dir, { recursive: true, force: true });
});

/** Begins to watch the file as it is now. */
function watchFile(options: { rereadMs?: number } = {}) {
  const logged = memoryLog();
  const results: string[] = [];
  const first = loadConfig(path, ENV);
  const reloaded = (result: string) => results.push(result);
  const live = watchConfig({ path, env: ENV, first, log: logged.log, reloaded, ...options }, stop.signal);
  return { live, results, ...logged };
}

const put = (text: string) => writeFile(path, `${LEAST}${text}`);
const ttl = (seconds: number) => `retention: { ttlSeconds: ${seconds} }\n`;

/** The files of a mounted ConfigMap, as kubelet lays them out and swaps them. */
async function putMounted(generation: number, text: string): Promise<void> {
  const name = `..generation-${generation}`;
  await mkdir(join(dir, name));
  await writeFile(join(dir, name, 'config.yaml'), `${LEAST}${text}`);
  await symlink(name, join(dir, '..data_tmp'));
  await rename(join(dir, '..data_tmp'), join(dir, '..data'));
  if (generation === 1) await symlink('..data/config.yaml', path);
  else await rm(join(dir, `..generation-${generation - 1}`), { recursive: true });
}

describe('the file of the configuration', () => {
  it.each([
    ['is written in place', (text: string) => put(text)],
    [
      'is replaced by renaming another over it',
      async (text: string) => {
        await writeFile(`${path}.new`, `${LEAST}${text}`);
        await rename(`${path}.new`, path);
      },
    ],
    [
      'is removed and written anew',
      async (text: string) => {
        await rm(path);
        await put(text);
      },
    ],
  ])('counts when it %s, each time', async (_, change) => {
    await put(ttl(1));
    const { live, results } = watchFile();
    for (const seconds of [2, 3, 4]) {
      await change(ttl(seconds));
      await until(() => live.current().retention.ttlSeconds === seconds, `ttlSeconds ${seconds}`);
    }
    expect(results).toEqual(['applied', 'applied', 'applied']);
  });

  it('counts when kubelet swaps the files of a ConfigMap, each time', async () => {
    await putMounted(1, ttl(1));
    const { live, said } = watchFile();
    for (const generation of [2, 3, 4]) {
      await putMounted(generation, ttl(generation));
      await until(() => live.current().retention.ttlSeconds === generation, `generation ${generation}`);
    }
    expect(said(CHANGED)).toHaveLength(3);
  });

  it('counts when it changed before the watch had begun', async () => {
    await put(ttl(1));
    const { live } = watchFile();
    await put(ttl(2));
    await until(() => live.current().retention.ttlSeconds === 2, 'the second file');
  });

  it('is read now and then where no event tells of a change: here the directory itself was replaced', async () => {
    await put(ttl(1));
    const { live, said } = watchFile({ rereadMs: 50 });
    await rm(dir, { recursive: true });
    await until(() => said(GONE).length === 1, 'the loss to be noticed');
    await mkdir(dir);
    await put(ttl(2));
    await until(() => live.current().retention.ttlSeconds === 2, 'the file in the new directory');
  });

  it('is left alone after the signal', async () => {
    await put(ttl(1));
    const { live, results } = watchFile({ rereadMs: 10 });
    await put(ttl(2));
    await until(() => live.current().retention.ttlSeconds === 2, 'the second file');
    stop.abort();
    await put(ttl(3));
    // A second watch shows that the change could have been seen.
    const again = new AbortController();
    const other = watchConfig(
      { path, env: ENV, first: parseConfig(LEAST, ENV), log: memoryLog().log, reloaded: () => undefined, rereadMs: 10 },
      again.signal,
    );
    await until(() => other.current().retention.ttlSeconds === 3, 'the third file');
    again.abort();
    expect(live.current().retention.ttlSeconds).toBe(2);
    expect(results).toEqual(['applied']);
  });
});

describe('a change of the configuration', () => {
  it('is told key by key, with the old and the new value', async () => {
    await put('restore: { standbySeconds: 5 }\ncheckpoint: { timeoutSeconds: 60 }\n');
    const { said } = watchFile();
    await put('checkpoint: { timeoutSeconds: 90 }\n');
    await until(() => said(CHANGED).length === 1, 'the change');
    expect(said(CHANGED)[0]?.['changed']).toEqual([
      'checkpoint.timeoutSeconds: 60 -> 90',
      'restore.standbySeconds: 5 -> 10',
    ]);
  });

  it('of a list is told as what it gained and lost', async () => {
    const client = (name: string) => `{ name: ${name}, namespaces: [team] }`;
    await put(`api: { clients: [${client('old')}, ${client('kept')}] }\n`);
    const { live, said } = watchFile();
    await put(`api: { clients: [${client('kept')}, ${client('new')}] }\n`);
    await until(() => live.current().api.clients[1]?.name === 'new', 'the new client');
    expect(said(CHANGED)[0]?.['changed']).toEqual([
      'api.clients: without {"name":"old","namespaces":["team"]}; with {"name":"new","namespaces":["team"]}',
    ]);
  });

  it('that needs a restart is named once, and its key keeps the old value', async () => {
    await put('limits: { parallelOperations: 2 }\n');
    const { live, results, said } = watchFile();
    await put(`limits: { parallelOperations: 8 }\n${ttl(1)}`);
    await until(() => live.current().retention.ttlSeconds === 1, 'the live part');
    await put(`limits: { parallelOperations: 8 }\n${ttl(2)}`);
    await until(() => live.current().retention.ttlSeconds === 2, 'the next live part');
    expect(live.current().limits.parallelOperations).toBe(2);
    expect(said(WAITING).map((line) => line['waiting'])).toEqual([['limits.parallelOperations: 2 -> 8']]);
    expect(results).toEqual(['needs-restart', 'needs-restart']);
  });

  it('that needs a restart is named again when it changes again, and when it is taken back', async () => {
    await put('limits: { parallelOperations: 2 }\n');
    const { results, said } = watchFile();
    for (const [count, parallel] of [8, 9].entries()) {
      await put(`limits: { parallelOperations: ${parallel} }\n`);
      await until(() => said(WAITING).length === count + 1, `${parallel} at once`);
    }
    await put('limits: { parallelOperations: 2 }\n');
    await until(() => said('these keys need no restart any more').length === 1, 'the taking back');
    expect(results).toEqual(['needs-restart', 'needs-restart', 'applied']);
  });

  it('of comments and order is none', async () => {
    await put('logLevel: debug\n');
    const { results, said } = watchFile();
    await until(() => said(NOTHING_NEW).length === 1, 'the first look');
    await writeFile(path, `# another comment\nlogLevel: debug\n${LEAST}`);
    await until(() => said(NOTHING_NEW).length === 2, 'the look at the other text');
    expect(results).toEqual([]);
    expect(said(CHANGED)).toEqual([]);
  });

  it.each([
    ['info', 'error'],
    ['error', 'info'],
  ])('of the log level from %s to %s takes effect, and is told', async (old, wanted) => {
    await put(`logLevel: ${old}\n`);
    const { log, said } = watchFile();
    log.level = old;
    await put(`logLevel: ${wanted}\n`);
    await until(() => log.level === wanted, 'the level');
    expect(said(CHANGED)[0]?.['changed']).toEqual([`logLevel: "${old}" -> "${wanted}"`]);
  });

  it('tells of a key of the original system that has no effect', async () => {
    await put('');
    const { said } = watchFile();
    await put('criu: { shellJob: false }\n');
    await until(() => said('configuration').length === 1, 'the warning');
    expect(said('configuration')[0]?.['warning']).toContain('criu.shellJob');
    expect(said(WAITING)).toEqual([]);
  });

  it('shows no secret: neither the environment of CRIU, nor what a URL holds, nor the text around a mistake', async () => {
    await put('criu: { environment: { TOKEN: before-s3cret } }\n');
    const { lines, said } = watchFile();
    await put(
      'criu: { environment: { TOKEN: after-s3cret } }\ntracing: { endpoint: "http://me:s3cret@collector/?key=s3cret" }\n',
    );
    await until(() => said(WAITING).length === 1, 'the change');
    expect(said(WAITING)[0]?.['waiting']).toEqual([
      'tracing.endpoint: "" -> "http://…@collector/?…"',
      'criu.environment.TOKEN: changed (its values are not shown)',
    ]);
    await put('criu: { environment: { TOKEN: "s3cret } }\n');
    await until(() => said(REFUSED).length === 1, 'the refusal');
    expect(JSON.stringify(lines)).not.toContain('s3cret');
  });
});

describe('a file that is wrong', () => {
  it.each([
    ['with an unknown key', 'retntion: {}\n', /retntion/],
    ['with a wrong value', 'retention: { ttlSeconds: -1 }\n', /retention\.ttlSeconds/],
    ['where two keys do not agree', 'retention: { highPercent: 50, lowPercent: 60 }\n', /retention\.lowPercent/],
    ['with a key that the agent refuses', 'criu: { lazyPages: true }\n', /criu\.lazyPages/],
    ['that is no YAML', 'retention: [\n', /no YAML.*line 4/],
  ])('%s is refused as a whole, in one line', async (_, text, problem) => {
    await put(ttl(1));
    const { live, results, said } = watchFile();
    await put(`logLevel: debug\n${text}`);
    await until(() => results.length === 1, 'the refusal');
    expect(results).toEqual(['refused']);
    expect(said(REFUSED).map((line) => line['problem'])).toEqual([expect.stringMatching(problem)]);
    expect(said(REFUSED)[0]?.['problem']).not.toContain('\n');
    expect(live.current()).toMatchObject({ logLevel: 'info', retention: { ttlSeconds: 1 } });
  });

  it('names all its mistakes at once', async () => {
    await put('');
    const { said } = watchFile();
    await put('logLevel: loud\nretention: { ttlSeconds: -1 }\n');
    await until(() => said(REFUSED).length === 1, 'the refusal');
    expect(said(REFUSED)[0]?.['problem']).toMatch(/logLevel: .*; retention\.ttlSeconds: /);
  });

  it.each([
    ['wrong', () => put('logLevel: loud\n'), REFUSED],
    ['empty', () => writeFile(path, ''), REFUSED],
    ['gone', () => rm(path), GONE],
  ])('and then is mended is in force again: it was %s', async (_, damage, message) => {
    await put(ttl(1));
    const { live, results, said } = watchFile({ rereadMs: 20 });
    await damage();
    await until(() => said(message).length === 1, 'the refusal');
    expect(live.current().retention.ttlSeconds).toBe(1);
    await put(ttl(1));
    await until(() => results.length === 2, 'the file in force');
    expect(results).toEqual(['refused', 'applied']);
    // Read many times meanwhile, and told once.
    expect(said(message)).toHaveLength(1);
    expect(said('the configuration file is in force again')).toHaveLength(1);
  });
});
