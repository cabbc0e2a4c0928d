import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { chartFiles } from './schema.ts';

/* Writes the generated files of the chart: `make chart-schema`. */
for (const [path, content] of Object.entries(chartFiles()))
  writeFileSync(resolve(import.meta.dirname, '../chart', path), content);
