import { describe, expect, it } from 'vitest';
import { artifactName } from '../../../snapshotctl/reach/artifact.ts';
import { limitOf, ratesOf } from '../../../snapshotctl/report/figures.ts';
import { html } from '../../../snapshotctl/report/html.ts';
import { bytesText, rateText, secondsText, shareText } from '../../../snapshotctl/show/amounts.ts';
import { barText, gaugeText } from '../../../snapshotctl/show/bars.ts';
import { inTree } from '../../../snapshotctl/show/inspection.ts';
import { escaped, visible, visibleLines } from '../../../snapshotctl/show/text.ts';
import { wrapped, wrappedTable } from '../../../snapshotctl/show/wrapped.ts';

describe('text of others', () => {
  it.each([
    ['plain', 'plain'],
    ['a\nb\tc\r', 'a\\nb\\tc\\r'],
    ['\u001b[31m', '\\x1b[31m'],
    ['\u009b31m', '\\x9b31m'],
    ['a\u202egnp.exe', 'a\\u{202e}gnp.exe'],
    ['\u2028\ufeff', '\\u{2028}\\u{feff}'],
    ['żółw 🐢', 'żółw 🐢'],
  ])('%j is shown as %j', (text, shown) => {
    expect(visible(text)).toBe(shown);
  });

  it('keeps its lines where it may have some', () => {
    expect(visibleLines('a\nb\u0007')).toBe('a\nb\\x07');
  });

  it('is the same after it was read as JSON', () => {
    const text = 'a\u001b\u009b\u202e\n"\\u';
    expect(JSON.parse(escaped(JSON.stringify({ text })))).toEqual({ text });
  });

  it('is text on a page, too', () => {
    const nasty = `<b a="1" b='2'>&\u001b</b>`;
    expect(html`<i title="${nasty}">${[nasty, 1, undefined, html`<hr>`]}</i>`.text).toBe(
      '<i title="&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;\\x1b&lt;/b&gt;">&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;\\x1b&lt;/b&gt;1<hr></i>',
    );
  });
});

describe('amounts', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.00 KiB'],
    [1_048_575, '1.00 MiB'],
    [15.5 * 1024 ** 3, '15.5 GiB'],
    [999 * 1024 ** 2, '999 MiB'],
  ])('%d bytes are %s', (bytes, text) => {
    expect(bytesText(bytes)).toBe(text);
  });

  it.each([
    [0.0005, '0.50 ms'],
    [0.0999, '0.10 s'],
    [12.34, '12.3 s'],
    [99.96, '1 min 40 s'],
    [125, '2 min 05 s'],
    [3599.6, '1 h 00 min'],
    [11_240, '3 h 07 min'],
  ])('%d seconds are %s', (seconds, text) => {
    expect(secondsText(seconds)).toBe(text);
  });

  it('are rates and shares', () => {
    expect(rateText(1_073_741_824.4)).toBe('1.00 GiB/s');
    expect([shareText(1, 3), shareText(1, 1000), shareText(0, 5), shareText(1, 0)]).toEqual([
      '33 %',
      '<1 %',
      '0 %',
      '0 %',
    ]);
  });
});

describe('bars', () => {
  it('are as long as their share, to an eighth; what is more than nothing is seen', () => {
    expect([barText(0.5, 4), barText(1, 4), barText(0, 4), barText(0.0001, 4), barText(2, 4)]).toEqual([
      '██',
      '████',
      '',
      '▏',
      '████',
    ]);
    expect(barText(Number.NaN, 4)).toBe('');
    expect(gaugeText(0.25, 8)).toBe('▕██      ▏');
  });
});

describe('tables with long cells', () => {
  it('are wrapped within their width, and lose nothing', () => {
    const long = 'one two three four five six seven eight nine ten eleven twelve thirteen';
    const text = wrappedTable(['A', 'B'], [['short', long]], 40);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(40);
    expect(text.replace(/\s+/g, ' ')).toBe(`A B short ${long} `);
  });

  it('cut words that are too long', () => {
    expect(wrapped('abcdefghij k', 4)).toEqual(['abcd', 'efgh', 'ij k']);
  });
});

describe('the names of artifacts', () => {
  it.each([
    ['one', { checkpoint_id: 'one', version: '1' }],
    ['one@v2.b', { checkpoint_id: 'one', version: 'v2.b' }],
  ])('%s is read', (text, name) => {
    expect(artifactName(text)).toEqual(name);
  });

  it.each(['', '@1', 'a@', 'a@b@c', '../x', 'tmp', 'a/b', 'ä', 'x'.repeat(64)])('%j is none', (text) => {
    expect(() => artifactName(text)).toThrow(/^the (checkpoint id|version) /);
  });

  it('need their version where what is named is lost', () => {
    expect(() => artifactName('one', { needsVersion: true })).toThrow('one@1');
  });
});

describe('rates', () => {
  it.each([
    ['storage=2.4GB/s', { name: 'storage', bytesPerSecond: 2.4e9 }],
    ['PCIe 5 = 55 GiB', { name: 'PCIe 5', bytesPerSecond: 55 * 1024 ** 3 }],
  ])('%s is a limit', (text, limit) => {
    expect(limitOf(text)).toMatchObject(limit);
  });

  it.each(['storage', '=1GB', 'a=0GB', 'a=-1GB', 'a=1e9', 'a=1 parsec'])('%s is none', (text) => {
    expect(limitOf(text)).toBeUndefined();
  });

  it('are only where both bytes and time are known', () => {
    const sizes = {
      criu_bytes: 10,
      bulk_bytes: 20,
      zero_bytes: 30,
      rootfs_bytes: 0,
      shm_bytes: 0,
      device_bytes: 0,
      total_bytes: 31,
      files: 3,
    };
    const timings = [
      { step: 'cuda-checkpoint', seconds: 1 },
      { step: 'criu-dump', seconds: 2 },
      { step: 'finalize', seconds: 0 },
    ];
    const rates = ratesOf({ sizes, timings } as never);
    expect(rates.map(({ name, bytesPerSecond }) => [name, bytesPerSecond])).toEqual([
      ['criu-dump', 30],
      ['until the record', 31 / 3],
    ]);
  });
});

describe('a tree of processes', () => {
  const process = (pid: number, parent_pid: number) => ({ pid, parent_pid }) as never;
  const shape = (...pids: (readonly [number, number])[]) =>
    inTree(pids.map(([pid, parent]) => process(pid, parent))).map(({ process: { pid }, depth }) => `${depth}:${pid}`);

  it('has children below their parents', () => {
    expect(shape([1, 0], [2, 1], [3, 1], [4, 2])).toEqual(['0:1', '1:2', '2:4', '1:3']);
  });

  it('loses nobody whose parent is not there, or who is in a circle', () => {
    expect(shape([5, 4], [6, 7], [7, 6])).toEqual(['0:5', '0:6', '1:7']);
  });
});
