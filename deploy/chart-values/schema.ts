import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { schema as configSchema } from '../../agent/config.ts';
import { LIVE_KEYS } from '../../agent/config-live.ts';
import { ORIGINAL_KEYS } from '../../agent/config-original.ts';
import { schema as operatorSchema } from '../../operator/config.ts';
import { sections } from './values.ts';

/** A JSON schema, or a part of one. */
interface Schema {
  [key: string]: unknown;
  properties?: Record<string, Schema>;
}

/** How the patterns of paths begin. Go's regular expressions, which helm checks with, cannot look ahead: of such a pattern this much is checked. */
const PATHS = ['^/', '^$|^/'];

/** The generated files of the chart, by their path in it. */
export function chartFiles(): Readonly<Record<string, string>> {
  return {
    'values.schema.json': `${JSON.stringify(valuesSchema(), null, 1)}\n`,
    'files/live-keys.yaml': `# Made by \`make chart-schema\`: what the agent reads again while it runs. No other key counts before a restart.\n${Object.keys(
      LIVE_KEYS,
    )
      .map((key) => `- ${key}\n`)
      .join('')}`,
    ...definitions(),
  };
}

/** The definitions of the operator's kinds: a chart has no files but its own. */
function definitions(): Record<string, string> {
  const directory = resolve(import.meta.dirname, '../crds');
  const entries = readdirSync(directory).map((name) => {
    // As the API server names them: PLURAL.GROUP.yaml.
    return [`files/crds/${name}`, readFileSync(resolve(directory, name), 'utf8')] as const;
  });
  return Object.fromEntries(entries);
}

/** The schema that helm holds the values against, the agent's configuration among them. */
function valuesSchema(): Schema {
  const values = toJson(z.strictObject(sections));
  return {
    $schema: values['$schema'],
    $comment: 'Made by `make chart-schema` from deploy/chart-values/, agent/config.ts and operator/config.ts.',
    ...values,
    properties: { ...values.properties, operator: operatorPart(values.properties?.['operator']), config: configPart() },
  };
}

/** The section `operator`, with the operator's own schema as its `config`. */
function operatorPart(section: Schema | undefined): Schema {
  const config = toJson(operatorSchema);
  delete config['$schema'];
  return { ...section, properties: { ...section?.properties, config: withoutRequired(config) } };
}

/** Nothing is required of the configuration here: what must be there is derived from other values. */
function configPart(): Schema {
  const config = toJson(configSchema);
  delete config['$schema'];
  const criu = config.properties?.['criu']?.properties;
  if (criu === undefined) throw new Error('the configuration has no section criu');
  for (const [key, { same, otherwise }] of Object.entries(ORIGINAL_KEYS))
    if (otherwise === 'refuse') criu[key] = { enum: same };
  return withoutRequired(config);
}

function toJson(schema: z.ZodType): Schema {
  return z.toJSONSchema(schema, {
    target: 'draft-7',
    io: 'input',
    override: ({ jsonSchema }) => {
      // Defaults are those of values.yaml and of the agent.
      delete jsonSchema.default;
      if (typeof jsonSchema.pattern === 'string') jsonSchema.pattern = goPattern(jsonSchema.pattern);
    },
  }) as Schema;
}

function goPattern(pattern: string): string {
  if (!/\(\?|\\0/.test(pattern)) return pattern;
  const plain = pattern.replaceAll('\\/', '/');
  const path = PATHS.find((start) => plain.startsWith(start));
  if (path === undefined) throw new Error(`a pattern that Go cannot read, and that nothing stands for: ${pattern}`);
  return path;
}

function withoutRequired(schema: Schema): Schema {
  const rest = { ...schema };
  delete rest['required'];
  if (rest.properties === undefined) return rest;
  const below = Object.entries(rest.properties).map(([key, value]) => [key, withoutRequired(value)] as const);
  return { ...rest, properties: Object.fromEntries(below) };
}
