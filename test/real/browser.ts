import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inflateSync } from 'node:zlib';

const run = promisify(execFile);

/** A headless Chromium whose whole network is a server of this test: what it asks for, of whatever host, is seen there. */
export interface Browser {
  /** The paths that were asked for, with their hosts. */
  readonly asked: string[];
  /** Puts a page onto the server. */
  serve(path: string, page: string): void;
  /** The page as it is once it has loaded. */
  dom(url: string): Promise<string>;
  /** A picture of it; answers the colour of its top left corner, as in CSS. */
  picture(
    url: string,
    file: string,
    options: { readonly width: number; readonly height: number; readonly isDark?: boolean },
  ): Promise<string>;
  close(): Promise<void>;
}

export const HOST = 'http://report.test';

export async function startBrowser(): Promise<Browser> {
  const profile = await mkdtemp(join(tmpdir(), 'browser-'));
  const pages = new Map<string, string>();
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.headers.host ?? ''}${request.url ?? ''}`);
    const page = pages.get(request.url ?? '');
    response.writeHead(page === undefined ? 404 : 200, { 'content-type': 'text/html; charset=utf-8' }).end(page ?? '');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const open = async (flags: readonly string[], url: string) => {
    const own = [
      '--no-sandbox',
      '--disable-gpu',
      '--hide-scrollbars',
      `--user-data-dir=${profile}`,
      `--host-resolver-rules=MAP * 127.0.0.1:${port}`,
    ];
    const { stdout } = await run('chromium-headless-shell', [...own, ...flags, url], {
      timeout: 60_000,
      maxBuffer: 64 << 20,
    });
    return stdout;
  };
  return {
    asked,
    serve: (path, page) => void pages.set(path, page),
    dom: (url) => open(['--dump-dom', '--window-size=1200,900'], url),
    picture: async (url, file, { width, height, isDark = false }) => {
      const scheme = `--blink-settings=preferredColorScheme=${isDark ? 0 : 1}`;
      await open([`--screenshot=${file}`, `--window-size=${width},${height}`, scheme], url);
      return cornerOf(await readFile(file));
    },
    close: async () => {
      await new Promise((resolve) => server.close(resolve));
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** The first pixel of a PNG: whatever its filter, nothing is left of it or above it. */
function cornerOf(png: Buffer): string {
  const data: Buffer[] = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at))
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT')
      data.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  return `#${inflateSync(Buffer.concat(data)).subarray(1, 4).toString('hex')}`;
}
