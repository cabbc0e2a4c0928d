import type { Agent } from './agent.ts';
import { eventually } from './host.ts';

/** What an agent's /metrics shows now: each sample's value by its name with its labels, as it is written there. */
export async function readMetrics(agent: Agent): Promise<ReadonlyMap<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${await httpPort(agent)}/metrics`)).text();
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    samples.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

type Readiness = { readonly ready: boolean; readonly reasons: readonly string[] };

/** What an agent answers to a readiness probe; one that does not answer is not ready. */
export async function readReadiness(agent: Agent): Promise<Readiness> {
  const url = `http://127.0.0.1:${await httpPort(agent)}/readyz`;
  return await fetch(url).then(
    async (response) => (await response.json()) as Readiness,
    () => ({ ready: false, reasons: ['it does not answer'] }),
  );
}

/** Waits until it follows the pods of its node. */
export async function becomesReadyToWork(agent: Agent): Promise<void> {
  let reasons: readonly string[] = [];
  await eventually(
    'that the agent is ready',
    async () => {
      const answer = await readReadiness(agent);
      ({ reasons } = answer);
      return answer.ready || undefined;
    },
    { explain: () => reasons.join('\n') },
  );
}

/** Where it serves metrics and health on this machine, since its last start. */
export async function httpPort(agent: Agent): Promise<number> {
  const isSaid = (line: Readonly<Record<string, unknown>>) => line['msg'] === 'metrics and health are served';
  await agent.waitForLog('its port', isSaid);
  return Number(agent.logs().findLast(isSaid)?.['port']);
}
