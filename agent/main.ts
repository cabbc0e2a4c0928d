import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Logger, pino } from 'pino';
import { newAgent } from './agent.ts';
import { type Config, loadConfig, socketPath } from './config.ts';
import { originalKeyWarnings } from './config-original.ts';
import { asSnapshotError } from './errors.ts';
import { openNative } from './host/native.ts';
import type { AgentContext } from './operations/context.ts';
import { newGuards } from './operations/guards.ts';
import { keepSwept } from './operations/housekeeping.ts';
import { openJournal } from './operations/journal.ts';
import { prepareRunDir, readNode } from './operations/node.ts';
import { recover } from './operations/recovery.ts';
import { loadRecordKeys } from './store/key.ts';
import { AGENT_VERSION } from './version.ts';
import { watchRuntime } from './watch/cri.ts';
import { openRuntime } from './watch/runtime.ts';

const USAGE = `snapshot-agent ${AGENT_VERSION}: checkpoints and restores the containers of this node's annotated pods

usage: snapshot-agent [--config FILE]

  --config FILE   configuration (YAML), default /etc/snapshot/config.yaml; keys: docs/configuration.md
  --version       print the version
  --help          print this

Runs until SIGTERM or SIGINT; operations under way may then go on for limits.drainSeconds.
Exit status: 0 stopped, 1 failed, 2 wrong usage or configuration.
`;

/** How long a quick verb of the native helper may take. */
const VERB_DEADLINE_MS = 30_000;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { config: { type: 'string' }, version: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help || values.version) {
    process.stdout.write(values.help ? USAGE : `${AGENT_VERSION}\n`);
    return 0;
  }
  const config = loadConfig(values.config ?? '/etc/snapshot/config.yaml', process.env);
  const log = pino({
    level: config.logLevel,
    base: { node: config.nodeName },
    timestamp: pino.stdTimeFunctions.isoTime,
  });
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => {
      log.info({ signal }, 'stopping');
      stop.abort();
    });
  await serve(config, log, stop.signal);
  return 0;
}

/** Starts everything in order, runs until the signal, stops in reverse. */
async function serve(config: Config, log: Logger, signal: AbortSignal): Promise<void> {
  for (const warning of originalKeyWarnings(config.criu, config.restore.nsRestorePath))
    log.warn({ warning }, 'configuration');
  const native = openNative({
    helperPath: config.paths.helper,
    procRoot: config.host.procRoot,
    deadlineMs: VERB_DEADLINE_MS,
  });
  const node = await readNode(config, native);
  await prepareRunDir(config, native);
  const { file: path, create, previousFiles } = config.storage.key;
  const keys = await loadRecordKeys({ path, create, olderPaths: previousFiles });
  const journal = await openJournal({ path: join(config.paths.stateDir, 'journal.jsonl'), bootId: node.bootId });
  for (const warning of journal.warnings) log.error({ warning }, 'journal');
  const guards = newGuards({ native, journal, log });
  const runtime = openRuntime(socketPath(config));
  const context: AgentContext = {
    config,
    runtime,
    native,
    keys,
    journal,
    node,
    log,
    restoredRoot: guards.rootOf,
    liveOperations: new Set(),
  };
  try {
    await recover(context);
    await guards.resume();
    await keepSwept(context, signal);
    log.info(
      { version: AGENT_VERSION, runtime: await runtime.version(), criu: node.criu, kernel: node.kernel },
      'started',
    );
    const pods = watchRuntime(runtime, {
      pollMs: config.watch.pollMilliseconds,
      resyncMs: config.watch.resyncSeconds * 1000,
      log,
    });
    await newAgent(context, pods, guards).run(signal);
  } finally {
    runtime.close();
    await journal.close();
    log.info('stopped');
  }
}

main().then(
  (status) => {
    process.exit(status);
  },
  (error: unknown) => {
    const isUsage = error instanceof TypeError && `${'code' in error && error.code}`.startsWith('ERR_PARSE_ARGS');
    if (isUsage) process.stderr.write(`snapshot-agent: ${error.message}\n\n${USAGE}`);
    if (isUsage) process.exit(2);
    const { code, message, advice } = asSnapshotError(error);
    process.stderr.write(`snapshot-agent: ${code}: ${message}\n${advice}\n`);
    process.exit(code === 'CONFIG_INVALID' ? 2 : 1);
  },
);
