import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

const LOOK_EVERY_MS = 200;

/** Tells the bytes that lie in a directory, again and again while the work goes on that fills it, and once more when that is done. */
export async function whileGrowing<T>(
  directory: string,
  tell: (bytes: number) => void,
  work: () => Promise<T>,
): Promise<T> {
  let looking: Promise<void> | undefined;
  const look = async () => {
    const sizes = await Promise.all(
      (await readdir(directory)).map(async (name) => await sizeOf(join(directory, name))),
    );
    tell(sizes.reduce((sum, size) => sum + size, 0));
  };
  const lookOnce = () => {
    // One that fails, as files come and go, is made up for by the next.
    looking ??= look()
      .catch(() => undefined)
      .finally(() => {
        looking = undefined;
      });
    return looking;
  };
  const timer = setInterval(() => void lookOnce(), LOOK_EVERY_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await looking;
    await lookOnce();
  }
}

/** What a file takes on disk: a sparse one may be of any size. */
async function sizeOf(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}
