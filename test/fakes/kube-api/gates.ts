import { type ApiCall, type CallPattern, matches } from './calls.ts';

/** A call that waits at a gate. */
interface HeldCall {
  readonly call: ApiCall;
  /** Lets it go on. */
  release(): void;
  /** Resets its connection. What was not stored yet never is: so ends the call of an agent that was killed. */
  drop(): void;
}

/**
 * Holds calls until the test lets them go. At `request` nothing is stored yet; at `answer` it is stored, and the caller does not know:
 * an agent that is killed now is killed between two writes.
 */
export interface Gate {
  /** The next call that came and that was not yet handed out; waits for it. */
  next(): Promise<HeldCall>;
  /** How many calls wait now. */
  readonly waiting: number;
  /** Lets all go that wait, and holds nobody any more. */
  open(): void;
}

interface Entry {
  readonly pattern: CallPattern;
  readonly at: 'request' | 'answer';
  readonly hold: (call: ApiCall) => Promise<boolean>;
}

/** All gates. A call passes those that it matches one after the other. */
export class Gates {
  #entries: Entry[] = [];
  readonly #opens = new Set<() => void>();

  add(pattern: CallPattern, at: 'request' | 'answer'): Gate {
    const held = new Set<HeldCall>();
    const ready: HeldCall[] = [];
    const takers: ((held: HeldCall) => void)[] = [];
    const hold = (call: ApiCall) =>
      new Promise<boolean>((resolve) => {
        const leave = (goesOn: boolean) => () => held.delete(one) && resolve(goesOn);
        const one: HeldCall = { call, release: leave(true), drop: leave(false) };
        held.add(one);
        const taker = takers.shift();
        if (taker === undefined) ready.push(one);
        else taker(one);
      });
    const entry: Entry = { pattern, at, hold };
    this.#entries.push(entry);
    const open = () => {
      this.#entries = this.#entries.filter((other) => other !== entry);
      this.#opens.delete(open);
      for (const one of held) one.release();
    };
    this.#opens.add(open);
    return {
      next: () => {
        const one = ready.shift();
        return one === undefined ? new Promise((resolve) => takers.push(resolve)) : Promise.resolve(one);
      },
      get waiting() {
        return held.size;
      },
      open,
    };
  }

  /** False: the call is dropped. */
  async pass(call: ApiCall, at: 'request' | 'answer'): Promise<boolean> {
    for (const { at: place, pattern, hold } of this.#entries) {
      if (place === at && matches(pattern, call) && !(await hold(call))) return false;
    }
    return true;
  }

  openAll(): void {
    for (const open of this.#opens) open();
  }
}
