import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeProgram, type Program } from '../flow/snapshotctl-agents/program.ts';
import { WORKER_CONTENTS, workerArtifact } from '../flow/snapshotctl-agents/sample.ts';
import { type Stage, startStage } from '../flow/snapshotctl-agents/stage.ts';
import { type Browser, HOST, startBrowser } from './browser.ts';

/** The report, in a real browser. */

let program: Program;
let stage: Stage;
let browser: Browser;
let directory: string;
let file: string;
let page: string;

/** What a workload may be called that wants to be more than text. */
const HOSTILE = `"'><img src=${HOST}/stolen onerror=this.remove()><script src=${HOST}/script.js></script><style>@import '${HOST}/style.css';</style>`;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'report-'));
  program = await makeProgram();
  stage = await startStage(program);
  browser = await startBrowser();
  const { record, ...view } = workerArtifact('llama');
  if (record === undefined) throw new Error('no record');
  const hostile = { ...record, source: { ...record.source, image: HOSTILE } };
  stage.started.fake.artifacts.set('llama/1', { ...view, record: hostile });
  const [first, ...rest] = WORKER_CONTENTS.processes;
  if (first === undefined) throw new Error('no process');
  stage.started.fake.contents = { ...WORKER_CONTENTS, processes: [{ ...first, comm: HOSTILE }, ...rest] };
  file = join(directory, 'report.html');
  const flags = ['--file', file, '--verify', '--limit', 'storage=2.4GB/s', '--limit', 'PCIe 5=55 GB/s'];
  const { code, err } = await program.run(['report', 'llama', ...flags, ...stage.socket]);
  if (code !== 0) throw new Error(err);
  page = await readFile(file, 'utf8');
});
afterAll(async () => {
  await stage?.stop();
  await browser?.close();
  await program?.remove();
  await rm(directory, { recursive: true, force: true });
});

test('shows every step, rate, process and area', async () => {
  const dom = await browser.dom(pathToFileURL(file).href);
  for (const heading of ['Timeline', 'Rates', 'What is stored', 'Processes', 'Memory map', 'Captured with', 'Files'])
    expect(dom).toContain(`<h2>${heading}</h2>`);
  for (const step of ['cuda-checkpoint', 'criu-dump', 'finalize']) expect(dom).toContain(`aria-label="${step}: `);
  expect(dom).toMatch(/<div class="name">criu-dump<\/div>.*?20\.6 s.*?44 %/s);
  for (const limit of ['storage', 'PCIe 5', 'read and verified now'])
    expect(dom).toContain(`<span class="limit-name">${limit}</span>`);
  const areas = WORKER_CONTENTS.processes.reduce((sum, { areas: own }) => sum + own.length, 0);
  expect(dom.match(/<title>0x/g)).toHaveLength(areas);
  expect(dom).toContain('/usr/lib/python3/dist-packages/torch/lib/libtorch_cuda.so');
  expect(dom).toContain('NVIDIA H200');
  expect(dom.match(/class="source"/g)?.length).toBeGreaterThanOrEqual(6);
});

describe('is one page that nothing gets out of or into', () => {
  test('asks for nothing, and runs nothing, whatever the workload is called', async () => {
    browser.asked.length = 0;
    const dom = await browser.dom(pathToFileURL(file).href);
    expect(browser.asked).toEqual([]);
    expect(dom).toContain('&lt;script src=http://report.test/script.js&gt;');
    expect(dom).not.toMatch(/<(script|img|link|iframe|object)\b/i);
    expect(page).toMatch(/Content-Security-Policy" content="default-src 'none'; style-src 'sha256-[\w+/=]{44}';/);
  });

  test('would not even if it did get in: the policy holds', async () => {
    browser.asked.length = 0;
    const broken = join(directory, 'broken.html');
    await writeFile(broken, page.replace('<main>', `<main>${HOSTILE}`));
    const dom = await browser.dom(pathToFileURL(broken).href);
    expect(dom).toContain(`<img src="${HOST}/stolen"`);
    expect(browser.asked).toEqual([]);
    // The same without the policy does ask: the server would have seen it.
    await writeFile(broken, page.replace(/<meta http-equiv[^>]*>/, '').replace('<main>', `<main>${HOSTILE}`));
    await browser.dom(pathToFileURL(broken).href);
    expect(browser.asked).toContain('report.test/stolen');
  });
});

/** Measures the report from outside, in a frame of this width: its own policy forbids scripts. */
const probe = (
  width: number,
) => `<!doctype html><iframe id="frame" width="${width}" height="900" src="/report.html"></iframe><pre id="result"></pre><script>
const frame = document.getElementById('frame');
frame.onload = () => {
  const { documentElement: root } = frame.contentDocument;
  for (const details of root.querySelectorAll('details')) details.open = true;
  const all = [...root.querySelectorAll('main *')].filter((one) => !one.closest('.scroll') && !one.closest('svg'));
  const wide = all.filter((one) => one.getBoundingClientRect().right > ${width} + 1).map((one) => one.outerHTML.slice(0, 80));
  const bars = [...root.querySelectorAll('.chart rect')].map((one) => one.getBoundingClientRect().width);
  const fonts = [...root.querySelectorAll('.name, .amount, td')].map((one) => parseFloat(getComputedStyle(one).fontSize));
  document.getElementById('result').textContent = JSON.stringify({
    scroll: root.scrollWidth, wide, bars: bars.length, thinnest: Math.min(...bars), smallest: Math.min(...fonts),
  });
};
</script>`;

test.each([390, 768, 1200])('fits a window %i wide, with nothing too small to read', async (width) => {
  browser.serve('/report.html', page);
  browser.serve('/probe.html', probe(width));
  const dom = await browser.dom(`${HOST}/probe.html`);
  const result = JSON.parse(
    /<pre id="result">(.*?)<\/pre>/s
      .exec(dom)?.[1]
      ?.replaceAll('&lt;', '<')
      .replaceAll('&gt;', '>')
      .replaceAll('&amp;', '&') ?? '',
  );
  expect(result).toMatchObject({ wide: [], scroll: width });
  expect(result.bars).toBe(12 + 4);
  expect(result.thinnest).toBeGreaterThan(0.5);
  expect(result.smallest).toBeGreaterThanOrEqual(12);
});

test('is light or dark, as its reader has it', async () => {
  const url = pathToFileURL(file).href;
  const [light, dark] = [join(directory, 'light.png'), join(directory, 'dark.png')];
  expect(await browser.picture(url, light, { width: 1200, height: 3000 })).toBe('#f6f7f9');
  expect(await browser.picture(url, dark, { width: 1200, height: 3000, isDark: true })).toBe('#12161c');
});

test('leaves the page that was there until the new one is whole, and no half of one', async () => {
  const there = join(directory, 'nowhere', 'report.html');
  const { code, err } = await program.run(['report', 'llama', '-f', there, ...stage.socket]);
  expect([code, err]).toEqual([1, expect.stringContaining('cannot be written')]);
  const missing = await program.run(['report', 'nothing', '-f', file, ...stage.socket]);
  expect(missing.code).toBe(1);
  expect(await readFile(file, 'utf8')).toBe(page);
  expect((await readdir(directory)).filter((name) => name.includes('.part'))).toEqual([]);
  const piped = await program.run(['report', 'llama', '-f', '-', ...stage.socket]);
  expect(piped).toMatchObject({ code: 0, out: expect.stringMatching(/^<!doctype html>[\s\S]*<\/html>\n$/), err: '' });
});
