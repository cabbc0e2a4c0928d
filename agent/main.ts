import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { VERSION } from '../contract/version.ts';
import { loadConfig } from './config.ts';
import { originalKeyWarnings } from './config-original.ts';
import { watchConfig } from './config-reload.ts';
import { asSnapshotError } from './errors.ts';
import { serve } from './serve.ts';

const USAGE = `snapshot-agent ${VERSION}: checkpoints and restores the containers of this node's annotated pods

usage: snapshot-agent [--config FILE]

  --config FILE   configuration (YAML), default /etc/snapshot/config.yaml; keys: docs/configuration.md
  --version       print the version
  --help          print this

Runs until SIGTERM or SIGINT; operations under way may then go on for limits.drainSeconds.
Exit status: 0 stopped, 1 failed, 2 wrong usage or configuration.
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { config: { type: 'string' }, version: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help || values.version) {
    process.stdout.write(values.help ? USAGE : `${VERSION}\n`);
    return 0;
  }
  const path = values.config ?? '/etc/snapshot/config.yaml';
  const config = loadConfig(path, process.env);
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
  for (const warning of originalKeyWarnings(config.criu, config.restore.nsRestorePath))
    log.warn({ warning }, 'configuration');
  const follow = (reloaded: Parameters<typeof watchConfig>[0]['reloaded']) =>
    watchConfig({ path, env: process.env, first: config, log, reloaded }, stop.signal);
  await serve({ config, follow, log }, stop.signal);
  return 0;
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
