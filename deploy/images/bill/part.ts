/** Something that an image has: one line of its bill of materials. */
export interface Part {
  readonly kind: 'application' | 'library' | 'operating-system';
  readonly name: string;
  readonly version: string;
  /** Package URL; what it is known by to programs that look for vulnerabilities. Ours have none. */
  readonly purl?: string;
  /** The source package, where it has another name or version than the package itself: `glibc 2.41-12`. */
  readonly source?: string;
  /** Licences by the names that the part's own files give them; empty where they do not say so in a form that programs can read. */
  readonly licences: readonly string[];
  /** The licence's text: a path in the image, or files of the machine that makes the bill, to be copied into the image. */
  readonly text: { readonly inImage: string } | { readonly copyOf: readonly string[] };
  /** Where it was built from its sources: address and commit. */
  readonly origin?: { readonly repository: string; readonly commit: string };
  /** Names of our programs that it is a piece of. */
  readonly within?: readonly string[];
}

/** What a part is called where it must be told from all others. */
export function referenceOf(part: Part): string {
  return part.purl ?? `${part.name}@${part.version}`;
}

/** In the order of their references, those that are the same made one. */
export function distinct(parts: readonly Part[]): Part[] {
  const known = new Map<string, Part>();
  for (const part of parts) {
    const reference = referenceOf(part);
    const within = [...(known.get(reference)?.within ?? []), ...(part.within ?? [])];
    known.set(reference, within.length === 0 ? part : { ...part, within: [...new Set(within)].sort() });
  }
  return [...known].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, part]) => part);
}
