import { KubeError } from '../../kube/error.ts';
import { execInPod } from '../../kube/exec.ts';
import type { ExecEnd, ExecSession } from '../../kube/exec-stream.ts';
import type { Cluster } from '../cluster.ts';
import { CommandError } from '../failure.ts';
import { visible, visibleLines } from '../show/text.ts';
import { type AgentPod, findAgents, pickAgent } from './agents.ts';
import { openTunnel, type Tunnel } from './tunnel.ts';

const CONTAINER = 'agent';
const RELAY = ['snapshotctl', 'relay'];
/** What shells and runtimes answer where there is no such program, and what runtimes write. */
const NO_SUCH_PROGRAM = [126, 127];
const NO_SUCH_PROGRAM_TEXT = /executable file not found|no such file or directory/i;

/**
 * A tunnel to an agent, through `snapshotctl relay` in its container. Where the pod has been replaced meanwhile, as by an upgrade, the next
 * connection goes to the one that took its place on the node.
 */
export async function tunnelToPod(cluster: Cluster, first: AgentPod, signal: AbortSignal): Promise<Tunnel> {
  let pod = first;
  const exec = async (): Promise<ExecSession> => {
    const { namespace, name } = pod;
    const request = { namespace, pod: name, container: CONTAINER, command: RELAY, signal };
    return await execInPod(cluster.kube.credentials, request);
  };
  const connect = async (): Promise<ExecSession> => {
    try {
      return await exec();
    } catch (error) {
      if (!(error instanceof KubeError) || error.status !== 404) throw explainRefusal(error, pod);
      pod = pickAgent(await findAgents(cluster, pod.namespace), pod.node);
      return await exec().catch((again: unknown) => {
        throw explainRefusal(again, pod);
      });
    }
  };
  return await openTunnel(connect, (end) => explainEnd(end, pod));
}

function explainRefusal(error: unknown, { namespace, name }: AgentPod): unknown {
  if (!(error instanceof KubeError)) return error;
  const pod = visible(`${namespace}/${name}`);
  const said = visible(error.message);
  const message =
    error.status === 403
      ? `you may not exec into the agent's pod ${pod}: an RBAC rule for pods/exec with the verbs "get" and "create" in namespace ${visible(namespace)} is missing. (${said})`
      : `the agent's pod ${pod} cannot be reached: ${said}`;
  return new CommandError('unreachable', message, { cause: error });
}

/** What the end of a relay means. A good end while somebody still waits for an answer means that the agent hung up. */
function explainEnd({ exitCode, message, stderr }: ExecEnd, { namespace, name }: AgentPod): Error | undefined {
  const pod = visible(`${namespace}/${name}`);
  if (exitCode === 0) return undefined;
  const isMissing = exitCode === undefined ? NO_SUCH_PROGRAM_TEXT.test(message) : NO_SUCH_PROGRAM.includes(exitCode);
  if (isMissing && (stderr === '' || NO_SUCH_PROGRAM_TEXT.test(stderr)))
    return new CommandError(
      'unreachable',
      `the image of agent pod ${pod} has no snapshotctl: use the agent's image of this version, or --socket on the node. (${visible(message)})`,
    );
  const said = stderr === '' ? message : stderr;
  if (exitCode === undefined)
    return new CommandError('unreachable', `the connection to agent pod ${pod} was lost: ${visibleLines(said)}`);
  return new CommandError('unreachable', `the relay in agent pod ${pod} failed: ${visibleLines(said)}`);
}
