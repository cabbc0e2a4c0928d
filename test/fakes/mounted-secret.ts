import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Files by name; kubelet's own layout has no directories. */
type Files = Readonly<Record<string, string | Buffer>>;

/** A directory as kubelet lays a mounted Secret out: links over a link that is swapped, so that all files change at once. */
export interface MountedSecret {
  readonly path: string;
  /** Swaps in another content, as kubelet does it. */
  swap(files: Files): Promise<void>;
}

/** Lays out the first content in `path`, which is made. Files have the mode that the pod asks for. */
export async function mountSecret(path: string, files: Files, mode = 0o400): Promise<MountedSecret> {
  let generation = 0;
  let shown: readonly string[] = [];
  const swap = async (next: Files) => {
    generation += 1;
    const name = `..2026_generation.${generation}`;
    await mkdir(join(path, name), { recursive: true });
    for (const [file, content] of Object.entries(next)) await writeFile(join(path, name, file), content, { mode });
    await symlink(name, join(path, '..data_tmp'));
    await rename(join(path, '..data_tmp'), join(path, '..data'));
    // As kubelet: links of new files after the swap, those of files that are gone last.
    const names = Object.keys(next);
    for (const file of names.filter((one) => !shown.includes(one))) await symlink(`..data/${file}`, join(path, file));
    for (const file of shown.filter((one) => !names.includes(one))) await rm(join(path, file));
    if (generation > 1) await rm(join(path, `..2026_generation.${generation - 1}`), { recursive: true });
    shown = names;
  };
  await swap(files);
  return { path, swap };
}
