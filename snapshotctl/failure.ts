/** What the exit status says. docs/snapshotctl.md has the same table. */
export const EXIT = {
  ok: 0,
  /** What was asked for failed. */
  failed: 1,
  /** Wrong flags, or a manifest or configuration that cannot be used: nothing was sent. */
  usage: 2,
  /** Refused on evidence: the node, the pod or the artifact does not fit. Nothing was changed. */
  refused: 3,
  /** It took longer than it may; it may still go on in the cluster. */
  timeout: 4,
  /** The cluster or the agent could not be reached. */
  unreachable: 5,
  /** Ended by Ctrl-C or SIGTERM. */
  interrupted: 130,
} as const;

/** An end that is no success. The message is shown as it is: what failed, with what, and what to do. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly exit: keyof typeof EXIT;

  constructor(exit: keyof typeof EXIT, message: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.exit = exit;
  }
}
