import type { ServerResponse } from 'node:http';
import { describe, expect, it, onTestFinished } from 'vitest';
import { operation } from '../unit/api/metrics-operations.ts';
import { acknowledge, DONE, named, refuse, startBesideRegistry, startCollector, values } from './tracing-collector.ts';

describe('a collector that is away', () => {
  it('is told once in the log, once more when it is back, and holds up nobody', async () => {
    const gone = await startCollector();
    await gone.stop();
    const { tracing, registry, said } = await startBesideRegistry(gone.url, { sendEveryMs: 20 });
    onTestFinished(() => tracing.stop());
    const end = (id: string) => registry.open(operation({ id })).ended(DONE);
    end('op-1');
    await expect.poll(() => said('traces cannot be sent').length, { timeout: 20_000 }).toBe(1);
    expect(said('traces cannot be sent')[0]).toMatchObject({ level: 40, endpoint: `${gone.url}/v1/traces` });

    const back = await startCollector(acknowledge, gone.port);
    end('op-2');
    await expect.poll(() => said('traces are sent again').length, { timeout: 20_000 }).toBe(1);
    expect(values(named(back.spans(), 'checkpoint'))['snapshot.operation.id']).toBe('op-2');
    expect(said('traces cannot be sent')).toHaveLength(1);
  });

  it('costs spans, not memory: the queue is bounded', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    // All at once: nothing can be sent in between.
    for (let index = 0; index < 1_000; index += 1) registry.open(operation({ id: `op-${index}` })).ended(DONE);
    await tracing.stop();
    const count = collector.spans().length;
    expect(count).toBeGreaterThanOrEqual(2_048);
    // The queue, and the batch that was taken out of it when it was full enough.
    expect(count).toBeLessThanOrEqual(2_048 + 256);
  });

  it('and that refuses them does not stop operations', async () => {
    const collector = await startCollector(refuse);
    const { tracing, registry, said } = await startBesideRegistry(collector.url);
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(said('traces cannot be sent')).toHaveLength(1);
  });

  it('but takes connections does not hold up the end of the agent', async () => {
    const waiting: ServerResponse[] = [];
    const collector = await startCollector((response) => void waiting.push(response));
    const { tracing, registry, said } = await startBesideRegistry(collector.url);
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(said('the last traces were not sent')).toHaveLength(1);
    // It was given up before the connection was: that takes longer.
    expect(waiting.map((response) => response.destroyed)).toEqual([false]);
  });

  it('is not asked after the end', async () => {
    const collector = await startCollector();
    const { tracing, registry } = await startBesideRegistry(collector.url);
    await tracing.stop();
    registry.open(operation()).ended(DONE);
    await tracing.stop();
    expect(collector.received).toEqual([]);
  });
});
