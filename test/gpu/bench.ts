import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Agent, AgentRequest } from '../real/environment/agent.ts';
import { REPOSITORY } from '../real/environment/host.ts';
import type { RuncContainer } from './harness/container.ts';
import { DriverTool } from './harness/driver-tool.ts';
import { type GpuMachine, pythonCommand } from './harness/gpus.ts';
import { type ContainerRequest, RuncNode, WORKERS } from './harness/node.ts';
import { Operations } from './harness/operations.ts';
import type { SectionReport } from './report.ts';

/** What the command line asked for. */
export interface Options {
  readonly out: string;
  /** Zeroed device memory that the language model reserves besides its weights. */
  readonly kvGib: number;
  /** Undefined on a machine without. */
  readonly machine: GpuMachine | undefined;
}

/** A part of the tests that can be run alone. */
export interface Section {
  readonly name: string;
  readonly what: string;
  readonly deadlineMs: number;
  /** How many GPUs it needs. */
  readonly gpus: number;
  run(bench: Bench): Promise<void>;
}

/** A node with its agent, and a client of that. */
export interface Stand {
  readonly node: RuncNode;
  readonly agent: Agent;
  readonly operations: Operations;
  /** Where the agent's artifacts lie on this machine. */
  readonly volume: { readonly hostPath: string };
}

/** What a section works on; everything that it starts here is ended and removed when it is over. */
export class Bench {
  readonly report: SectionReport;
  readonly options: Options;
  readonly #stands: { readonly node: RuncNode; readonly agents: Agent[]; readonly containers: RuncContainer[] }[] = [];
  readonly #clients: Operations[] = [];
  readonly #drivers: DriverTool[] = [];

  constructor(report: SectionReport, options: Options) {
    this.report = report;
    this.options = options;
  }

  /** `volumeGib`: artifacts go to a volume in memory with so much room, instead of the node's own. */
  async startStand({ volumeGib, ...request }: AgentRequest & { volumeGib?: number } = {}): Promise<Stand> {
    const node = await RuncNode.start({ workers: join(REPOSITORY, 'test/gpu/workers'), gpus: this.options.machine });
    const stand = { node, agents: [] as Agent[], containers: [] as RuncContainer[] };
    this.#stands.push(stand);
    const volume = volumeGib === undefined ? node.volume : await node.makeVolume('large', volumeGib);
    const agent = await node.startAgent({ ...request, volume });
    stand.agents.push(agent);
    const operations = await Operations.connect(agent);
    this.#clients.push(operations);
    return { node, agent, operations, volume };
  }

  /** Runs one of the test programs as a container's first process, and waits until it is set up. */
  async runWorker(
    { node }: Stand,
    { script, args = [], timeoutMs = 120_000, ...request }: WorkerRequest,
  ): Promise<RuncContainer> {
    const command = this.options.machine?.command ?? pythonCommand;
    const line = command(WORKERS, script, args.map(String));
    const container = this.#note(node, await node.run({ ...request, args: line }));
    await container.waitForOutput('{"ready":…}', (line) => 'ready' in line, { timeoutMs });
    return container;
  }

  /** A program that asks the driver beside the agent. */
  async openDriver(): Promise<DriverTool> {
    const { machine } = this.options;
    if (machine === undefined) throw new Error('this machine has no GPU');
    const driver = await DriverTool.open(machine.tool);
    this.#drivers.push(driver);
    return driver;
  }

  async runPlaceholder(
    { node }: Stand,
    request: Omit<ContainerRequest, 'args'> & { readonly args?: readonly string[] },
  ): Promise<RuncContainer> {
    return this.#note(node, await node.runPlaceholder(request));
  }

  /** Ends everything, after keeping what agents and containers wrote. Throws where something stayed behind. */
  async clean(): Promise<void> {
    for (const client of this.#clients) client.close();
    for (const driver of this.#drivers) await driver.close();
    const left: string[] = [];
    for (const { node, agents, containers } of this.#stands) {
      for (const agent of agents) this.#keep('agents.log', agent.logFile);
      for (const one of containers) this.#keepText('containers.log', one.pod.name, lastLines(one));
      await node.stop();
      left.push(...node.leftovers());
    }
    if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
  }

  #note(node: RuncNode, container: RuncContainer): RuncContainer {
    this.#stands.find((one) => one.node === node)?.containers.push(container);
    return container;
  }

  #keep(name: string, path: string): void {
    if (existsSync(path)) this.#keepText(name, path, readFileSync(path, 'utf8'));
  }

  #keepText(name: string, title: string, text: string): void {
    appendFileSync(join(this.options.out, name), `== ${this.report.result.section}: ${title}\n${text}\n`);
  }
}

/** Ticks are many and all alike: the end is enough. */
function lastLines(container: RuncContainer): string {
  return `${container.stdout().slice(-20_000)}\n-- standard error\n${container.stderr().slice(-20_000)}`;
}

export interface WorkerRequest extends Omit<ContainerRequest, 'args'> {
  /** One of test/gpu/workers, without its ending. */
  readonly script: string;
  readonly args?: readonly (string | number)[];
  readonly timeoutMs?: number;
}
