import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { PASS_REASONS } from '../../../../operator/webhook/admit.ts';
import { newWebhookMetrics } from '../../../../operator/webhook/metrics.ts';
import { WEBHOOK_PATH } from '../../../../operator/webhook/server.ts';

const page = readFileSync(join(resolve(import.meta.dirname, '../../../..'), 'docs/operator-webhook.md'), 'utf8');
const firstCells = (pattern: RegExp) => [...page.matchAll(pattern)].map(([, cell]) => cell);

it('the page has each reason to let a pod through, in the order in which they are looked at', () => {
  expect(firstCells(/^\| `([a-z-]+)` \|/gm).filter((cell) => cell !== 'secrets')).toEqual([...PASS_REASONS]);
});

it('the page has each metric, and no other', async () => {
  const metrics = await newWebhookMetrics().registry.getMetricsAsJSON();
  expect(firstCells(/^\| `(snapshot_[a-z_]+)` \|/gm).sort()).toEqual(metrics.map(({ name }) => name).sort());
});

it('the page shows a configuration that calls the server where it listens, and never refuses a pod', () => {
  const [, text = ''] = /```yaml\n([\s\S]+?)```/.exec(page) ?? [];
  expect(parse(text)).toMatchObject({
    webhooks: [
      { failurePolicy: 'Ignore', sideEffects: 'NoneOnDryRun', clientConfig: { service: { path: WEBHOOK_PATH } } },
    ],
  });
});
