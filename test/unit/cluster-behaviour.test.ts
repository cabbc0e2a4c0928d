import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/**
 * What the agent promises as a member of a cluster, row by row, and the test that proves it: the file, and what its title says. A row whose
 * test is gone or was renamed fails here.
 */
const PROVEN: Readonly<Record<string, readonly (readonly [promise: string, file: string, title: string])[]>> = {
  'the lease of a Job': [
    ['has the name of the Job and is owned by it', 'real/kubernetes-checkpoint', 'an annotated Job: ready, leased'],
    ['names the agent, the same after a restart', 'flow/kube/lease', 'of ourselves, from before a restart'],
    ['is renewed', 'flow/kube/lease-held', 'is renewed, with one request each time'],
    ['is taken when it is absent', 'flow/kube/lease', 'that is not there is made, with its owner'],
    ['is taken when it lacks a time', 'real/kubernetes-leases', 'without the times that a lease has'],
    ['is taken when it has expired', 'real/kubernetes-leases', 'taken over when it has shown none for its duration'],
    ['is not taken by the clock of this node', 'real/kubernetes-leases', 'whose clock is ten years behind'],
    ['is not had when somebody was first', 'flow/kube/lease', 'that many want has one holder'],
    [
      'is lost to another holder: undone, not declared',
      'real/kubernetes-leases',
      'the dump is undone, nothing is declared',
    ],
    ['is lost at the last moment', 'real/kubernetes-leases', 'after the artifact is complete: it is not declared'],
    ['is not lost for want of an answer', 'flow/kube/lease-held', 'stays ours while the API %s'],
    ['is deleted at the end, with preconditions', 'flow/kube/lease-held', 'but not when it has become another holder'],
    ['is given up in time when its release hangs', 'flow/kube/lease-held', 'when the API does not answer its release'],
    ['stays where the end could not be stored', 'real/kubernetes-outages', 'an outage longer than the lease'],
    ['is not needed without a Job', 'real/kubernetes-jobs', 'is checkpointed without a lease, and goes on'],
    ['lets one of two agents work', 'real/kubernetes-leases', 'with a state directory each, by mistake'],
    ['and the node lock one of two on a node', 'real/kubernetes-leases', 'with one state directory: the second waits'],
  ],
  'the Events': [
    [
      'of a checkpoint, on the pod, from the component',
      'real/kubernetes-checkpoint',
      'an annotated Job: ready, leased',
    ],
    ['of a restore', 'real/kubernetes-restore', 'and told of at each turn'],
    ['of a failure, with its code', 'real/kubernetes-jobs', 'because it is refused: the Job is declared failed'],
    ['of a container that failed', 'real/kubernetes-jobs', 'because another container of the pod failed'],
    ['have one trace', 'real/kubernetes-restore', 'has one trace in its Events and the log'],
    [
      'are said once, over restarts of the agent too',
      'real/kubernetes-kills',
      'whose agent is killed at its write number',
    ],
    ['are no condition of anything', 'real/kubernetes-checkpoint', 'without the right to write Events'],
  ],
  'a volume that only the pod mounts': [
    [
      'container gone before the start, checkpoint',
      'real/kubernetes-volumes',
      'a worker that has ended before kubelet says so',
    ],
    ['container gone before the start, restore', 'real/kubernetes-volumes', 'waits without a word, through restarts'],
    ['another process has the container meanwhile', 'unit/operations/target', 'that is another one a moment later'],
    ['its process has ended meanwhile', 'unit/operations/target', 'that has ended when the runtime is asked again'],
    ['a zombie is no process to work with', 'native/pin', 'a process that nobody reaps, and does not pin it'],
    ['no process can be found', 'unit/operations/target', 'that cannot be pinned'],
    ['artifact not there: no word', 'real/kubernetes-volumes', 'waits without a word, through restarts'],
    ['no directory in its place', 'real/kubernetes-volumes', 'but a file in its place'],
    ['container ends in the middle of the dump', 'real/kubernetes-volumes', 'ends in the middle of its dump'],
    ['container ends in the middle of the restore', 'real/kubernetes-volumes', 'ends in the middle of its restore'],
    ['no claim, but a directory that looks like one', 'real/kubernetes-volumes', 'only looks like the volume'],
    ['links on the way', 'real/hostile', 'is a link: a checkpoint is refused'],
  ],
  'a checkpoint source': [
    ['of another node, or without an id', 'flow/kubernetes-source-selection', 'is the pods of this node alone'],
    ['whose Job was declared failed', 'real/kubernetes-jobs', 'failed before its worker was ready'],
    ['whose Job was declared completed', 'real/kubernetes-jobs', 'completed, and the artifact is not there'],
    ['a container of which failed', 'real/kubernetes-jobs', 'because another container of the pod failed'],
    ['an init container of which failed', 'unit/watch/api-pod', 'are the failures of init containers too'],
    ['with another number of targets than one', 'real/kubernetes-jobs', 'with two targets'],
    ['that does not run', 'unit/plan/decide-kubernetes', 'waits until its pod runs'],
    ['that is not ready', 'real/kubernetes-jobs', 'until kubelet says that its container is ready'],
    ['that only names a Job', 'real/kubernetes-jobs', 'and that only says so is left alone'],
    ['is worked on once at a time', 'unit/kube/queue', 'works once more, and only once'],
    ['is declared before it is released', 'real/kubernetes-checkpoint', 'declared complete, and only then released'],
    ['whose artifact is there already', 'real/kubernetes-jobs', 'is taken as the one of a later Job'],
    ['whose agent dies', 'real/kubernetes-kills', 'whose agent is killed while CRIU dumps'],
    ['whose steps are timed in log and record', 'real/kubernetes-checkpoint', 'an annotated Job: ready, leased'],
  ],
  'a checkpoint that fails': [
    [
      'declares its Job, then ends the container',
      'real/kubernetes-jobs',
      'is declared failed before its worker is ended',
    ],
    ['in CRIU', 'real/faults', 'in a Job: its container is ended'],
    ['at the release of the worker', 'real/kubernetes-checkpoint', 'a worker that cannot be released is ended'],
    ['though its agent dies', 'real/kubernetes-kills', 'that is refused, and whose agent is killed'],
    ['overwrites nothing', 'real/kubernetes-jobs', 'failed by somebody else in the middle'],
    ['while the API is away', 'real/kubernetes-outages', 'an outage longer than the lease'],
    ['after it was complete: no more', 'real/kubernetes-jobs', 'a container that fails afterwards changes nothing'],
  ],
  'a restore target': [
    [
      'whose pod is deleted, has ended, or is unknown',
      'unit/plan/decide-kubernetes',
      'is left alone when its pod is deleted',
    ],
    ['whose pod is still pending', 'unit/plan/decide-kubernetes', 'before kubelet has said that its pod runs'],
    ['with an id or version that is none', 'real/hostile', 'creates nothing, and the pod is named in the log'],
    ['without targets', 'real/kubernetes-restore', 'where what is patched onto it is not understood'],
    ['whose name makes no key', 'unit/plan/decide-kubernetes', 'has a name that annotations of its own can have'],
    ['that kubelet has not published', 'real/kubernetes-restore', 'before kubelet has published its container'],
    ['that is patched in place', 'real/kubernetes-restore', 'when labels and annotations are patched onto it'],
    ['one of several', 'real/kubernetes-restore', 'are restored each by itself'],
    ['that had its attempt', 'real/kubernetes-restore', 'is left in peace by an agent that starts again'],
    ['that was started again', 'real/kubernetes-restore', 'gets one attempt: a restored one that was started again'],
    ['that would be refused again', 'real/kubernetes-restore', 'is refused without another look'],
    ['whose artifact another node makes', 'real/kubernetes-volumes', 'until another node has made it'],
    ['that is deleted while it waits', 'real/kubernetes-volumes', 'and is deleted meanwhile: nothing is said of it'],
    [
      'is ready when its process answers',
      'real/kubernetes-restore',
      'is ready when the restored process answers its probe',
    ],
    ['under probes', 'real/kubernetes-restore', 'probes that are always under way'],
    ['without the API', 'real/kubernetes-outages', 'is restored during it'],
  ],
  'a restore that fails': [
    ['says so with its container id', 'real/kubernetes-restore', 'one that is refused says so'],
    ['in CRIU: the container ends', 'real/faults', 'to restore: the cause is said, and the container ends'],
    [
      'at restore-complete: the container ends',
      'real/kubernetes-kills',
      'that cannot say it is complete to its worker',
    ],
    ['because its agent died', 'real/kubernetes-kills', 'whose agent is killed while CRIU restores'],
    ['is followed by a fresh container', 'real/kubernetes-volumes', 'and the container after it is restored'],
    ['is said later where it could not be said', 'real/kubernetes-outages', 'an outage longer than the lease'],
  ],
  'the API': [
    ['is asked for no more than the rules allow', 'real/kubernetes-rules', 'need every rule %s, and no other'],
    ['is written to by others', 'real/kubernetes-outages', 'with somebody who writes the Job and its lease'],
    ['refuses at the start', 'real/kubernetes-outages', 'without its rules the agent starts'],
    ['fails a watch in any way', 'flow/kubernetes-source-failures', 'are known afterwards as the server has them'],
    ['is away for long', 'flow/kubernetes-source-readiness', 'is stale during an outage of the API'],
  ],
};

describe.each(Object.entries(PROVEN))('%s', (_, rows) => {
  it.each(rows)('%s: %s', (_promise, file, title) => {
    const text = readFileSync(resolve(import.meta.dirname, '..', `${file}.test.ts`), 'utf8');
    const titles = text.split('\n').filter((line) => /^\s*((it|test|describe)\b.*\(|\]\)\(|\[?'|\['?)/.test(line));
    expect(titles.some((line) => line.includes(title))).toBe(true);
  });
});
