import { AgentError, isLost } from '../../contract/agent-api/failure.ts';
import { KubeError } from '../../kube/error.ts';
import { kubeFailure } from '../cluster.ts';
import { CommandError, type EXIT } from '../failure.ts';
import { visible, visibleLines } from '../show/text.ts';

/** The exit status for what an agent answers; `failed` is the rest. */
const EXIT_OF: Readonly<Record<string, keyof typeof EXIT>> = {
  INVALID_ARGUMENT: 'usage',
  FAILED_PRECONDITION: 'refused',
  DEADLINE_EXCEEDED: 'timeout',
};

/** A failure as the end of a command. CommandErrors and what is a defect pass unchanged. */
export function asCommandError(error: unknown): unknown {
  if (error instanceof AgentError) return ofAgent(error);
  return error instanceof KubeError ? kubeFailure(error) : error;
}

function ofAgent(error: AgentError): CommandError {
  const exit = isLost(error) && error.reason === '' ? 'unreachable' : (EXIT_OF[error.status] ?? 'failed');
  const what =
    error.reason === ''
      ? `the agent does not answer: ${connectionText(error.message)}`
      : `${error.reason}: ${error.message}`;
  const reasons = [...error.mismatches, ...error.fields].map(
    ({ code, description }) => `\n  ${visible(code)}: ${visible(description)}`,
  );
  const omitted = error.omitted > 0 ? `\n  and ${error.omitted} more; snapshotctl diff shows all` : '';
  const hint = error.reason === 'STORAGE_NOT_ATTACHED' ? `\n${THROUGH_HINT}` : '';
  return new CommandError(exit, `${visibleLines(what)}${reasons.join('')}${omitted}${hint}`, { cause: error });
}

/** Without what the library says around it. */
function connectionText(message: string): string {
  return message
    .replace(/^No connection established\. Last error: (Error: )?/, '')
    .replace(/\.? *Resolution note:.*$/s, '');
}

/** What to do where the agent has no way to the volume. */
export const THROUGH_HINT =
  'Pass --through POD[/CONTAINER]: a running container of that node that mounts the volume, with --namespace for its namespace.';
