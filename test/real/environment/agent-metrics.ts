import type { Agent } from './agent.ts';

/** What an agent's /metrics shows now: each sample's value by its name with its labels, as it is written there. */
export async function readMetrics(agent: Agent): Promise<ReadonlyMap<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${await httpPort(agent)}/metrics`)).text();
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    samples.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

/** What an agent answers to a readiness probe. */
export async function readReadiness(agent: Agent): Promise<{ readonly ready: boolean; readonly reasons: string[] }> {
  const response = await fetch(`http://127.0.0.1:${await httpPort(agent)}/readyz`);
  return (await response.json()) as { ready: boolean; reasons: string[] };
}

/** Of its last start. */
async function httpPort(agent: Agent): Promise<number> {
  const isSaid = (line: Readonly<Record<string, unknown>>) => line['msg'] === 'metrics and health are served';
  await agent.waitForLog('its port', isSaid);
  return Number(agent.logs().findLast(isSaid)?.['port']);
}
