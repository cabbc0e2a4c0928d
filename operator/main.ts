import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { VERSION } from '../contract/version.ts';
import { ListenError } from '../kube/probe-endpoint.ts';
import { ConfigError, loadConfig } from './config.ts';
import { serve } from './serve.ts';

const USAGE = `snapshot-operator ${VERSION}: makes checkpoints of DynamoCheckpoints and DynamoGraphDeployments, and restores their pods

usage: snapshot-operator [--config FILE]

  --config FILE   configuration (YAML), default /etc/snapshot-operator/config.yaml; keys: docs/operator.md
  --version       print the version
  --help          print this

Runs until SIGTERM or SIGINT. Any number may run at once: one of them leads, the others wait, and all answer the webhook.
Exit status: 0 stopped, 1 failed or leads no more, 2 wrong usage or configuration.
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { config: { type: 'string' }, version: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help || values.version) {
    process.stdout.write(values.help ? USAGE : `${VERSION}\n`);
    return 0;
  }
  const config = loadConfig(values.config ?? '/etc/snapshot-operator/config.yaml');
  const log = pino({ level: config.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime });
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => {
      log.info({ signal }, 'stopping');
      stop.abort();
    });
  await serve({ config, env: process.env, log }, stop.signal);
  return 0;
}

main().then(
  (status) => {
    process.exit(status);
  },
  (error: unknown) => {
    const isUsage = error instanceof TypeError && `${'code' in error && error.code}`.startsWith('ERR_PARSE_ARGS');
    if (isUsage) process.stderr.write(`snapshot-operator: ${error.message}\n\n${USAGE}`);
    else process.stderr.write(`snapshot-operator: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(isUsage || error instanceof ConfigError || error instanceof ListenError ? 2 : 1);
  },
);
