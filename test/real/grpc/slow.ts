import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Cluster } from '../environment/cluster.ts';

const CGROUPS = '/sys/fs/cgroup';
const PERIOD_US = 100_000;

/** Gives the agents of a cluster, and all they start, this part of one CPU, so that moving bytes takes a while; `1` gives it back. */
export function giveAgents({ directory }: Cluster, part: number): void {
  const group = `${basename(directory)}-agent`;
  const quota = part >= 1 ? undefined : Math.round(PERIOD_US * part);
  const [file, text] = existsSync(join(CGROUPS, 'cgroup.procs'))
    ? [join(CGROUPS, group, 'cpu.max'), `${quota ?? 'max'} ${PERIOD_US}`]
    : [join(CGROUPS, 'cpu', group, 'cpu.cfs_quota_us'), `${quota ?? -1}`];
  writeFileSync(file, text);
  if (!readFileSync(file, 'utf8').startsWith(text)) throw new Error(`${file} does not say ${text}`);
}
