import { join } from 'node:path';

/** Which cgroups containers and agents see: the machine's own, or v2 alone. */
export type CgroupMode = 'machine' | 'v2';

const CGROUP_V2 = join(import.meta.dirname, 'cgroup-v2.sh');

/** The command line that runs a program where it sees v2 alone. */
export function withCgroups(mode: CgroupMode, program: readonly string[]): string[] {
  if (mode === 'machine') return [...program];
  return ['unshare', '--mount', '--propagation', 'private', '--', CGROUP_V2, ...program];
}
