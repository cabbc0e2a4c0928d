import { readdirSync, readFileSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { join, relative } from 'node:path';
import type { Agent } from '../test/real/environment/agent.ts';
import { Cluster } from '../test/real/environment/cluster.ts';
import type { Container } from '../test/real/environment/container.ts';
import { AGENT_ROOT, eventually } from '../test/real/environment/host.ts';
import { IMAGES } from '../test/real/environment/images.ts';
import { bytes, say, step, table, timeLine } from './terminal.ts';
import { counters, type Ended, operationEnd, sourceKeys, targetKeys, workerCommand } from './worker.ts';

const MEBIBYTES = 300;
const CHECKPOINT_ID = 'demo';
/** How far the counter must go on in the new pod before the demo believes it. */
const FURTHER = 20;

/** What was seen of the worker, before and after. */
interface Seen {
  readonly pod: string;
  readonly host: string;
  readonly sha256: string;
  readonly counter: number;
}

interface Shown {
  readonly checkpoint: Ended;
  readonly restore: Ended;
  readonly before: Seen;
  readonly after: Seen;
}

async function demo(cluster: Cluster): Promise<Shown> {
  const agent = await step('the agent', () => startAgent(cluster));
  const source = await cluster.runPod({ name: 'worker-one', ...sourceKeys(CHECKPOINT_ID, 'stop') });
  const worker = await source.createContainer({ image: IMAGES.placeholder, command: workerCommand(MEBIBYTES) });
  const ready = await step(`pod worker-one loads ${MEBIBYTES} MiB of random memory, and counts`, async () => {
    await worker.start();
    return worker.ready();
  });
  const checkpoint = await step('the agent checkpoints it: until the artifact is complete', () =>
    operationEnd(agent, worker),
  );
  await worker.ended();
  const before = seen('worker-one', ready, counters(worker).at(-1));
  showSteps(checkpoint);
  showVolume(cluster);

  await step('pod worker-one is deleted', () => source.remove());
  const target = await cluster.runPod({ name: 'worker-two', ...targetKeys(CHECKPOINT_ID) });
  const placeholder = await step('pod worker-two, a placeholder that only waits', () => target.runPlaceholder());
  const restore = await step('the agent restores the worker into it', () => operationEnd(agent, placeholder));
  showSteps(restore);
  const report = await step(`the worker hashes its memory anew, and counts on`, () => reportOf(placeholder, before));
  const after = seen('worker-two', report, counters(placeholder).at(-1));
  say('\nThe log of the new container, its first and last lines:');
  const lines = placeholder.logs().map(({ time, stream, text }) => `  ${time.slice(11, 23)} ${stream} ${text}`);
  say([...lines.slice(0, 3), '  …', ...lines.slice(-3)].join('\n'));
  verify(before, after, counters(placeholder));
  return { checkpoint, restore, before, after };
}

async function startAgent(cluster: Cluster): Promise<Agent> {
  const agent = await cluster.startAgent({ config: { logLevel: 'info' } });
  await agent.waitForLog('the start', ({ msg }) => msg === 'started');
  return agent;
}

function seen(pod: string, line: Readonly<Record<string, unknown>>, counter: number | undefined): Seen {
  return { pod, host: String(line['host']), sha256: String(line['sha256']), counter: counter ?? Number.NaN };
}

/** Lets the worker hash its memory, and waits until it has counted further. */
async function reportOf(container: Container, before: Seen): Promise<Readonly<Record<string, unknown>>> {
  await container.signal('SIGUSR1');
  const report = await container.waitForOutput('a report', (line) => 'sha256' in line);
  const goal = before.counter + FURTHER;
  await eventually(`the counter to reach ${goal}`, () =>
    (counters(container).at(-1) ?? 0) >= goal ? true : undefined,
  );
  return report;
}

/** Throws where anything is not as it should be: the demo shows what was found, and this decides. */
function verify(before: Seen, after: Seen, counted: readonly number[]): void {
  const first = counted[0];
  const problems = [
    first === before.counter + 1
      ? ''
      : `the counter ended with ${before.counter} in the old pod and went on with ${first} in the new one`,
    counted.every((number, index) => number === (first ?? 0) + index) ? '' : 'the counter skipped or repeated numbers',
    after.counter >= before.counter + FURTHER ? '' : 'the counter did not go on',
    after.sha256 === before.sha256 ? '' : 'the memory has another hash',
    /^[0-9a-f]{64}$/.test(before.sha256) ? '' : 'the memory has no hash',
    before.host === before.pod && after.host === after.pod ? '' : 'the hostname is not that of the pod',
  ].filter((problem) => problem !== '');
  if (problems.length > 0) throw new Error(problems.join('; '));
}

function showSteps({ steps, seconds }: Ended): void {
  for (const [name, taken] of Object.entries(steps)) if (taken >= 0.0005) timeLine(name, taken, '  ');
  timeLine('all of the operation', seconds, '  ');
  say();
}

function showVolume(cluster: Cluster): void {
  const top = cluster.volume.hostPath;
  const files = readdirSync(top, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const at = (path: string) => relative(top, path);
  const isCriu = (path: string) => /\/criu\//.test(path);
  const size = (path: string) => statSync(path).size;
  const images = files.filter(isCriu);
  say('On the volume now:');
  const shown = files.filter((path) => !isCriu(path)).map((path) => [at(path), bytes(size(path))]);
  const total = images.reduce((sum, path) => sum + size(path), 0);
  say(table([...shown, [`${CHECKPOINT_ID}/versions/1/criu/ (${images.length} images of CRIU)`, bytes(total)]]));
  say();
}

function showComparison({ before, after }: Shown): void {
  say();
  say(
    table([
      ['', 'before', 'after'],
      ['pod', before.pod, after.pod],
      ['hostname', before.host, after.host],
      ['counter', `${before.counter}`, `${after.counter}`],
      ['memory, SHA-256', `${before.sha256.slice(0, 16)}…`, `${after.sha256.slice(0, 16)}…`],
    ]),
  );
  say();
}

function criuVersion(): string {
  return readFileSync(`${AGENT_ROOT}.stamp`, 'utf8').trim().split('\n').at(-1) ?? 'criu';
}

/** Ends everything the demo started, and makes sure that nothing stays. */
async function cleanUp(cluster: Cluster): Promise<void> {
  await cluster.stop();
  await eventually('everything to be gone', () => (cluster.leftovers().length === 0 ? true : undefined), {
    timeoutMs: 10_000,
    explain: () => cluster.leftovers().join('\n'),
  });
}

async function main(): Promise<string> {
  say(`Checkpoint and restore of a pod on this machine: kernel ${release()}, ${criuVersion()}
`);
  const starting = step('a private containerd, with its network and images', () => Cluster.start());
  let interrupted: string | undefined;
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= starting.then((cluster) => step('everything is removed again', () => cleanUp(cluster)));
    return stopped;
  };
  // Whoever interrupts the demo, and however often, finds nothing left behind either.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      if (interrupted !== undefined) return;
      // What then fails in the middle is a consequence.
      interrupted = signal;
      void stop().finally(() => finish(`demo: failed interrupted by ${signal}`, 1));
    });
  const cluster = await starting;
  try {
    if (interrupted !== undefined) throw new Error('interrupted');
    const shown = await demo(cluster);
    showComparison(shown);
    await stop();
    return summary(shown);
  } catch (error) {
    // What went wrong first is what is told.
    await stop().catch((problem: unknown) => say(String(problem)));
    throw interrupted === undefined ? error : new Error(`interrupted by ${interrupted}`, { cause: error });
  }
}

function summary({ checkpoint, restore, before, after }: Shown): string {
  const times = `checkpoint=${checkpoint.seconds.toFixed(2)}s restore=${restore.seconds.toFixed(2)}s`;
  return `demo: ok ${times} counter=${before.counter}->${after.counter}`;
}

let isFinished = false;

/** Prints the last line, and only the first one that is to be the last. */
function finish(line: string, status: number): void {
  if (isFinished) return;
  isFinished = true;
  process.stdout.write(`${line}\n`, () => process.exit(status));
}

main().then(
  (line) => finish(line, 0),
  (error: unknown) => {
    const text = error instanceof Error ? error.message : String(error);
    finish(`demo: failed ${text.replaceAll('\n', ' | ')}`, 1);
  },
);
