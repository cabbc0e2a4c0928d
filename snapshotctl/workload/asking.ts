import { ShapingError } from '../../contract/shaping-error.ts';
import type { KubeClient } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import type { KubeRequest } from '../../kube/sender.ts';
import { kubeFailure } from '../cluster.ts';
import { CommandError } from '../failure.ts';
import { oneLine } from '../show/text.ts';

/** Calls the API for a command that cannot go on without the answer. Throws CommandError. */
export async function ask<T>(kube: KubeClient, request: KubeRequest): Promise<T> {
  try {
    return await kube.request<T>(request);
  } catch (error) {
    throw asCommandError(error);
  }
}

/** A refusal of ours or of the API as the end of a command; anything else is passed on. */
export function asCommandError(error: unknown): unknown {
  if (error instanceof ShapingError) return new CommandError('usage', error.message, { cause: error });
  return error instanceof KubeError ? kubeFailure(error) : error;
}

/** Whether the same call may well succeed a moment later. */
export function isPassing(error: unknown): boolean {
  return error instanceof KubeError && (error.status === 0 || error.status === 429 || error.status >= 500);
}

/** The same for a call that was to make something: one whose answer was lost may have made it. */
export function withDoubt(error: unknown, what: string): unknown {
  const isDoubtful =
    error instanceof KubeError && ['Reset', 'TimedOut', 'Malformed', 'TooLarge'].includes(error.reason);
  if (!isDoubtful) return asCommandError(error);
  const message = `${oneLine(error.message)}; ${what} may have been made all the same: look before the next try`;
  return new CommandError('unreachable', message, { cause: error });
}
