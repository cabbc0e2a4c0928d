import { SnapshotError } from '../errors.ts';

/** Does work of one kind, at most `limit` pieces at once: one more throws LIMIT_EXCEEDED and is not begun. `what`: its plural. */
export function atMostAtOnce(limit: number, what: string): <T>(work: () => Promise<T>) => Promise<T> {
  let underWay = 0;
  return async (work) => {
    if (underWay >= limit)
      throw new SnapshotError('LIMIT_EXCEEDED', `${limit} ${what} are under way on this node, which is the most`);
    underWay += 1;
    try {
      return await work();
    } finally {
      underWay -= 1;
    }
  };
}
