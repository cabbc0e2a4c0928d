// Bundles the agent into one file, so that the image carries no package tree. Sources are mapped for readable stack traces.
import { build } from 'esbuild';

await build({
  entryPoints: { 'agent/snapshot-agent': 'agent/main.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: true,
  legalComments: 'none',
  logLevel: 'warning',
  // Some dependencies are CommonJS and call require for Node's own modules.
  banner: { js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);" },
});
