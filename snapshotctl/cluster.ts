import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { type Command, Option } from 'commander';
import { objectNameProblem } from '../contract/names.ts';
import { type KubeClient, openKube } from '../kube/client.ts';
import { KubeError } from '../kube/error.ts';
import { CommandError, type EXIT } from './failure.ts';
import { oneLine, visible } from './show/text.ts';
import type { Terminal } from './terminal.ts';

/** The flags of every command that speaks to a cluster, as commander hands them over. */
export interface ClusterFlags {
  readonly kubeconfig?: string;
  readonly kubeContext?: string;
  readonly namespace?: string;
}

export interface Cluster {
  readonly kube: KubeClient;
  /** What a command works in where nothing nearer says so: the flag, else the context's namespace, else "default". */
  readonly namespace: string;
}

/** Adds `--kubeconfig`, `--kube-context` and `--namespace` to a command. */
export function withClusterFlags(command: Command): Command {
  return command
    .addOption(
      new Option('--kubeconfig <file>', 'kubeconfig; default: $KUBECONFIG, ~/.kube/config, the pod it runs in'),
    )
    .addOption(new Option('--kube-context <name>', 'context of the kubeconfig; default: its current one'))
    .addOption(new Option('-n, --namespace <name>', "namespace; default: the context's, else default"));
}

/** Opens the cluster that the flags mean. Throws CommandError where no kubeconfig is to be had or it is no good. */
export async function openCluster(flags: ClusterFlags, { env }: Pick<Terminal, 'env'>): Promise<Cluster> {
  requireObjectName('--namespace', flags.namespace);
  const kubeconfigPath = flags.kubeconfig ?? kubeconfigOf(env);
  try {
    const kube = await openKube({ kubeconfigPath, context: flags.kubeContext });
    return { kube, namespace: flags.namespace ?? kube.namespace ?? 'default' };
  } catch (cause) {
    if (!(cause instanceof KubeError)) throw cause;
    throw new CommandError('usage', `no cluster: ${cause.message}`, { cause });
  }
}

const MAX_NAMESPACE = 63;

/** Refuses a name that no object can have: with `..` in it, a path would lead elsewhere. An absent flag is none. Throws CommandError `usage`. */
export function requireObjectName(flag: string, name: string | undefined): void {
  if (name === undefined) return;
  if (name === '') throw new CommandError('usage', `${flag} is empty: say a name`);
  const problem = objectNameProblem(name) ?? (flag === '--namespace' ? namespaceProblem(name) : undefined);
  if (problem !== undefined) throw new CommandError('usage', `${flag} "${visible(name)}" ${problem}`);
}

function namespaceProblem(name: string): string | undefined {
  if (name.includes('.')) return 'has a dot, which no namespace has';
  return name.length > MAX_NAMESPACE
    ? `has ${name.length} characters, at most ${MAX_NAMESPACE} are allowed`
    : undefined;
}

/** The file that kubectl would take, or undefined for that of the pod. Of several in KUBECONFIG the first that exists: they are not merged. */
function kubeconfigOf(env: Terminal['env']): string | undefined {
  const named = (env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== '');
  if (named.length > 0) return named.find((path) => existsSync(path)) ?? named[0];
  const usual = join(env['HOME'] ?? homedir(), '.kube', 'config');
  return existsSync(usual) || !env['KUBERNETES_SERVICE_HOST'] ? usual : undefined;
}

/** What the API refused, or why it gave no answer, as the end of a command. */
export function kubeFailure(error: KubeError): CommandError {
  return new CommandError(exitOf(error), oneLine(error.message), { cause: error });
}

function exitOf({ status, reason }: KubeError): keyof typeof EXIT {
  if (reason === 'Credentials') return 'usage';
  return status === 0 || status === 401 || status === 403 || status >= 500 ? 'unreachable' : 'failed';
}
