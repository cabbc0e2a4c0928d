import type { IncomingMessage } from 'node:http';

/** Memory that the bodies of all requests under way may take together. */
export interface BodyBudget {
  /** Whether there was room for so many bytes more, which are taken. */
  take(bytes: number): boolean;
  giveBack(bytes: number): void;
}

export function newBodyBudget(maxBytes: number): BodyBudget {
  let left = maxBytes;
  return {
    take: (bytes) => {
      if (bytes > left) return false;
      left -= bytes;
      return true;
    },
    giveBack: (bytes) => {
      left += bytes;
    },
  };
}

export type BodyRead =
  | { readonly result: 'read'; readonly text: string }
  /** `broken`: the caller hung up. */
  | { readonly result: 'too-large' | 'busy' | 'late' | 'broken' };

/** Reads the body of a request, no more than is allowed and for no longer. What is left of it is not read. */
export function readRequestBody(
  request: IncomingMessage,
  {
    maxBytes,
    deadlineMs,
    budget,
  }: { readonly maxBytes: number; readonly deadlineMs: number; readonly budget: BodyBudget },
): Promise<BodyRead> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const end = (read: BodyRead) => {
      clearTimeout(timer);
      request.off('data', take).off('end', complete).off('close', hangUp);
      // What comes after this must not fail the process.
      request.on('error', () => undefined).pause();
      budget.giveBack(length);
      resolve(read);
    };
    const take = (chunk: Buffer) => {
      if (length + chunk.length > maxBytes) return end({ result: 'too-large' });
      if (!budget.take(chunk.length)) return end({ result: 'busy' });
      length += chunk.length;
      chunks.push(chunk);
    };
    const complete = () => end({ result: 'read', text: Buffer.concat(chunks).toString() });
    const hangUp = () => end({ result: 'broken' });
    const timer = setTimeout(() => end({ result: 'late' }), deadlineMs);
    request.on('data', take).on('end', complete).on('close', hangUp).on('error', hangUp);
  });
}
