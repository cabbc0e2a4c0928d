// Bundles each program into one file, so that images carry no package tree. Without blanks and comments it takes 5 MB less of the
// agent's memory, and names stay: stack traces can be read. Their lines are found with the map, which is not in the image: Node.js would
// hold all of it in memory, 70 MB.
import { writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const { metafile } = await build({
  entryPoints: {
    'agent/snapshot-agent': 'agent/main.ts',
    'operator/snapshot-cleanup': 'operator/cleanup/main.ts',
    'operator/snapshot-operator': 'operator/main.ts',
    'snapshotctl/snapshotctl': 'snapshotctl/main.ts',
  },
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
  metafile: true,
  // Some dependencies are CommonJS and call require for Node's own modules.
  banner: { js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);" },
});

// Which packages each bundle really has parts of, by where they lie: what the bills of materials of the images are made from.
const packageOf = (input) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(input)?.[0];
const bundles = Object.entries(metafile.outputs).filter(([output]) => output.endsWith('.mjs'));
const packages = bundles.map(([output, { inputs }]) => {
  const used = Object.entries(inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
  const places = used.map(([input]) => packageOf(input)).filter((place) => place !== undefined);
  return [output.replace(/^.*\/(.*)\.mjs$/, '$1'), [...new Set(places)].sort()];
});
await writeFile('dist/packages.json', `${JSON.stringify(Object.fromEntries(packages), null, 2)}\n`);
