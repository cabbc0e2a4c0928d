import { Command, InvalidArgumentError, Option } from 'commander';
import { type ClusterFlags, openCluster, withClusterFlags } from '../cluster.ts';
import type { CredentialsWanted } from '../credentials/ensure.ts';
import { reportJson, reportLine, type SecretReport } from '../credentials/report.ts';
import { CommandError } from '../failure.ts';
import type { Terminal } from '../terminal.ts';

interface Flags extends ClusterFlags {
  readonly recordKeySecret?: string;
  readonly recordKeyDays: number;
  readonly forgetOldest: boolean;
  readonly tls: boolean;
  readonly caSecret?: string;
  readonly agentTlsSecret?: string;
  readonly operatorTlsSecret?: string;
  readonly serverName: string;
  readonly clientName: string;
  readonly certificateDays: number;
  readonly caDays: number;
  readonly rotate?: 'record-key' | 'ca' | 'certificates';
  readonly labels: Readonly<Record<string, string>>;
  readonly output: 'text' | 'json';
}

/** Twenty years: longer is no gain where changing needs nobody. */
const MAX_DAYS = 7_300;
const DNS_NAME = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$/;

/** `snapshotctl credentials ensure`: the record key and the certificates, made and rotated. */
export function credentialsCommand(program: Command, terminal: Terminal): Command {
  const credentials = new Command('credentials')
    .copyInheritedSettings(program)
    .description('Make and rotate the record key and the certificates of agents and operator');
  const ensure = credentials
    .command('ensure')
    .description('Make what is missing in the Secrets, and take what is due one step further; safe at any time');
  withClusterFlags(ensure);
  for (const option of recordKeyOptions()) ensure.addOption(option);
  for (const option of tlsOptions()) ensure.addOption(option);
  ensure
    .addOption(new Option('--rotate <what>', 'change it now').choices(['record-key', 'ca', 'certificates']))
    .addOption(
      new Option('--labels <key=value>', 'label of the Secrets; may be repeated').argParser(addLabel).default({}),
    )
    .addOption(new Option('-o, --output <format>', 'form of the results').choices(['text', 'json']).default('text'))
    .action((flags: Flags) => ensureAll(flags, terminal));
  return credentials;
}

function recordKeyOptions(): Option[] {
  return [
    new Option('--record-key-secret <name>', 'Secret of the record key'),
    new Option('--record-key-days <days>', 'change the record key after so many days; 0: only when asked')
      .argParser(wholeNumber(0))
      .default(0),
    new Option(
      '--forget-oldest',
      'where no further key fits, take the oldest away, and with it what it signed',
    ).default(false),
  ];
}

function tlsOptions(): Option[] {
  return [
    new Option('--tls', 'look after the certificates too').default(false),
    new Option('--ca-secret <name>', 'Secret of the authority'),
    new Option('--agent-tls-secret <name>', "Secret of the agents' certificate"),
    new Option('--operator-tls-secret <name>', "Secret of the operator's certificate"),
    new Option('--server-name <name>', "name in the agents' certificate").argParser(dnsName).default('snapshot-agent'),
    new Option('--client-name <name>', "name in the operator's certificate")
      .argParser(dnsName)
      .default('snapshot-operator'),
    new Option('--certificate-days <days>', 'life of a certificate').argParser(wholeNumber(1)).default(90),
    new Option('--ca-days <days>', 'life of an authority').argParser(wholeNumber(3)).default(1825),
  ];
}

async function ensureAll(flags: Flags, terminal: Terminal): Promise<void> {
  const wanted = wantedOf(flags);
  const { kube, namespace } = await openCluster(flags, terminal);
  const { signal } = terminal;
  const done: SecretReport[] = [];
  const report = (one: SecretReport) => {
    done.push(one);
    if (flags.output === 'text') terminal.out.write(reportLine(one));
  };
  try {
    // Loaded here alone: what issues certificates is large, and no other command needs it.
    const [{ ensureCredentials }, { openSecrets }] = await Promise.all([
      import('../credentials/ensure.ts'),
      import('../credentials/secret-store.ts'),
    ]);
    const secrets = openSecrets({ kube, namespace, labels: flags.labels, signal });
    await ensureCredentials(wanted, { secrets, nowMs: Date.now, signal, report });
  } finally {
    kube.close();
    if (flags.output === 'json') terminal.out.write(reportJson(done));
  }
}

/** What the flags ask for. Throws CommandError where they do not fit together: nothing was sent yet. */
function wantedOf(flags: Flags): CredentialsWanted {
  const { recordKeySecret, rotate } = flags;
  if (recordKeySecret === undefined && !flags.tls) throw wrong('name --record-key-secret, or --tls, or both');
  if (rotate === 'record-key' && recordKeySecret === undefined)
    throw wrong('--rotate record-key needs --record-key-secret');
  if (rotate !== undefined && rotate !== 'record-key' && !flags.tls) throw wrong(`--rotate ${rotate} needs --tls`);
  const recordKey = recordKeySecret === undefined ? undefined : recordKeyOf(recordKeySecret, flags);
  const tls = flags.tls ? tlsOf(flags) : undefined;
  const names = [recordKeySecret, tls?.authoritySecret, tls?.leafSecrets.agent, tls?.leafSecrets.operator];
  const given = names.filter((name) => name !== undefined);
  if (new Set(given).size < given.length) throw wrong('each Secret needs a name of its own');
  const odd = given.find((name) => !DNS_NAME.test(name));
  if (odd !== undefined) throw wrong(`${JSON.stringify(odd)} cannot be the name of a Secret`);
  return { recordKey, tls };
}

function recordKeyOf(secret: string, { recordKeyDays, rotate, forgetOldest }: Flags): CredentialsWanted['recordKey'] {
  return { secret, days: recordKeyDays, rotate: rotate === 'record-key', forgetOldest };
}

function tlsOf(flags: Flags): CredentialsWanted['tls'] {
  const { caSecret, agentTlsSecret, operatorTlsSecret, certificateDays, caDays } = flags;
  if (caSecret === undefined || agentTlsSecret === undefined || operatorTlsSecret === undefined)
    throw wrong('--tls needs --ca-secret, --agent-tls-secret and --operator-tls-secret');
  // The next authority comes when a third is left: what the present one signs until then must not outlive it.
  if (caDays < 3 * certificateDays)
    throw wrong(`--ca-days ${caDays} is too short: at least three times --certificate-days, ${3 * certificateDays}`);
  return {
    ...{ authoritySecret: caSecret, certificateDays, authorityDays: caDays },
    leafSecrets: { agent: agentTlsSecret, operator: operatorTlsSecret },
    names: { agent: flags.serverName, operator: flags.clientName },
    rotate: flags.rotate === 'ca' ? 'authority' : flags.rotate === 'certificates' ? 'certificates' : undefined,
  };
}

const wrong = (message: string) => new CommandError('usage', message);

function wholeNumber(least: number) {
  return (text: string): number => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= MAX_DAYS) return value;
    throw new InvalidArgumentError(`It must be a whole number, ${least} to ${MAX_DAYS}.`);
  };
}

function dnsName(text: string): string {
  if (DNS_NAME.test(text) && text.length <= 64) return text;
  throw new InvalidArgumentError('It must be a DNS name in small letters, at most 64 characters.');
}

function addLabel(text: string, before: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const [, key, value] = /^([^=]+)=(.*)$/.exec(text) ?? [];
  if (key === undefined || value === undefined) throw new InvalidArgumentError('It must be key=value.');
  return { ...before, [key]: value };
}
