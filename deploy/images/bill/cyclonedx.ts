import { createHash } from 'node:crypto';
import { type Part, referenceOf } from './part.ts';

/** A document in the form of CycloneDX 1.5, the fields that are written here. */
export interface Bill {
  readonly bomFormat: 'CycloneDX';
  readonly specVersion: '1.5';
  readonly serialNumber: string;
  readonly version: 1;
  readonly metadata: { readonly component: Component };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
}

interface Component {
  readonly type: Part['kind'] | 'container';
  readonly 'bom-ref': string;
  readonly name: string;
  readonly version: string;
  readonly purl?: string;
  readonly licenses?: readonly object[];
  readonly externalReferences?: readonly object[];
  readonly properties?: readonly { readonly name: string; readonly value: string }[];
}

/** What of SPDX's names npm packages and we use; any other name is a name, not an identifier. */
const SPDX = new Set([
  'Apache-2.0',
  'GPL-2.0-only',
  'MIT',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'Unlicense',
  'CC0-1.0',
  'BlueOak-1.0.0',
]);

function componentOf(part: Part): Component {
  const { kind, name, version, purl, source, licences, origin } = part;
  return {
    type: kind,
    'bom-ref': referenceOf(part),
    name,
    version,
    ...(purl === undefined ? {} : { purl }),
    ...(licences.length === 0
      ? {}
      : {
          licenses: licences.map((licence) => ({ license: SPDX.has(licence) ? { id: licence } : { name: licence } })),
        }),
    ...(origin === undefined
      ? {}
      : { externalReferences: [{ type: 'vcs', url: origin.repository, comment: `commit ${origin.commit}` }] }),
    ...(source === undefined ? {} : { properties: [{ name: 'debian:source', value: source }] }),
  };
}

/** Of the content alone, so that the same image has the same bill. */
function serialNumber(content: unknown): string {
  const hex = createHash('sha256').update(JSON.stringify(content)).digest('hex');
  return `urn:uuid:${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** The bill of an image with these parts. Programs depend on what they have pieces of, the image on all else. */
export function billOf(image: { readonly name: string; readonly version: string }, parts: readonly Part[]): Bill {
  const root: Component = { type: 'container', 'bom-ref': `image:${image.name}`, ...image };
  const pieces = parts.filter(({ within }) => within !== undefined);
  const programs = [...new Set(pieces.flatMap(({ within = [] }) => within))].sort();
  const programRef = (name: string) => {
    const program = parts.find((part) => part.kind === 'application' && part.name === name);
    if (program === undefined) throw new Error(`the bill has pieces of the program ${name}, and not the program`);
    return referenceOf(program);
  };
  const dependencies = [
    { ref: root['bom-ref'], dependsOn: parts.filter(({ within }) => within === undefined).map(referenceOf) },
    ...programs.map((program) => ({
      ref: programRef(program),
      dependsOn: pieces.filter(({ within = [] }) => within.includes(program)).map(referenceOf),
    })),
  ];
  const components = parts.map(componentOf);
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    serialNumber: serialNumber([root, components, dependencies]),
    version: 1,
    metadata: { component: root },
    components,
    dependencies,
  };
}
