// Bundles each program into one file, so that images carry no package tree. Without blanks and comments it takes 5 MB less of the
// agent's memory, and names stay: stack traces can be read. Their lines are found with the map, which is not in the image: Node.js would
// hold all of it in memory, 70 MB.
import { build } from 'esbuild';

await build({
  entryPoints: { 'agent/snapshot-agent': 'agent/main.ts', 'snapshotctl/snapshotctl': 'snapshotctl/main.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: true,
  minifyWhitespace: true,
  lineLimit: 200,
  legalComments: 'none',
  logLevel: 'warning',
  // Some dependencies are CommonJS and call require for Node's own modules.
  banner: { js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);" },
});
