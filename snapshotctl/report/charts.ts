import type { StepTiming } from '../../contract/agent-api/messages.ts';
import { bytesText, rateText, secondsText, shareText } from '../show/amounts.ts';
import { type Limit, PAUSED_STEPS, type Rate } from './figures.ts';
import { type Html, html } from './html.ts';

/** Drawings are this wide whatever the width of the page; the browser stretches them, and text stays text beside them. */
const WIDTH = 1000;
const SLIVER = 3;

const figure = (value: number) => Number(value.toFixed(2));

/** One row of a chart: a name, a drawing, an amount. */
function row(name: Html | string, drawing: Html, amount: Html | string, kind = 'row'): Html {
  return html`<div class="${kind}"><div class="name">${name}</div><div class="draw">${drawing}</div><div class="amount">${amount}</div></div>\n`;
}

function drawing(content: readonly Html[] | Html, label: string): Html {
  return html`<svg viewBox="0 0 ${WIDTH} 16" preserveAspectRatio="none" role="img" aria-label="${label}">${content}</svg>`;
}

/** The steps one after the other, each where it was in time. */
export function timelineChart(timings: readonly StepTiming[]): Html {
  const whole = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  let begun = 0;
  const rows = timings.map(({ step, seconds }) => {
    const from = begun;
    begun += seconds;
    const width = Math.max(SLIVER, (seconds / whole) * WIDTH);
    const x = Math.min((from / whole) * WIDTH, WIDTH - width);
    const kind = PAUSED_STEPS.has(step) ? 'paused' : 'running';
    const bar = html`<rect class="${kind}" x="${figure(x)}" width="${figure(width)}" y="1" height="14"/>`;
    const label = `${step}: ${secondsText(seconds)}, from ${secondsText(from)} on`;
    const grid = ticksOf(whole).map((tick) => verticalLine('grid', (tick / whole) * WIDTH));
    return row(
      step,
      drawing([...grid, bar], label),
      html`${secondsText(seconds)} <span class="dim">${shareText(seconds, whole)}</span>`,
    );
  });
  return html`<div class="chart">${rows}${axis(ticksOf(whole), whole)}</div>`;
}

/** Where the grid has its lines, as text below: in a drawing it would be stretched. */
function axis(ticks: readonly number[], whole: number): Html {
  const marks = ticks.map((tick) => verticalLine('tick', (tick / whole) * WIDTH));
  const step = ticks[1] ?? whole;
  return row('', drawing(marks, 'scale'), html`<span class="dim">a line every ${secondsText(step)}</span>`, 'row axis');
}

const verticalLine = (kind: string, x: number) =>
  html`<line class="${kind}" x1="${figure(x)}" x2="${figure(x)}" y1="0" y2="16" vector-effect="non-scaling-stroke"/>`;

/** Round values from 0 on, at most eight. */
function ticksOf(whole: number): number[] {
  if (!(whole > 0)) return [];
  const rough = whole / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough) ?? rough;
  return Array.from({ length: Math.floor(whole / step) + 1 }, (_, index) => index * step);
}

/** Bars of rates, with a line for each limit. */
export function ratesChart(rates: readonly Rate[], limits: readonly Limit[]): Html {
  const most = Math.max(...[...rates, ...limits].map(({ bytesPerSecond }) => bytesPerSecond));
  const scaled = (bytesPerSecond: number) => (bytesPerSecond / most) * (WIDTH - SLIVER);
  const lines = limits.map(({ bytesPerSecond }) => verticalLine('limit', scaled(bytesPerSecond)));
  const bars = rates.map(({ name, bytes, seconds, bytesPerSecond }) => {
    const width = figure(Math.max(SLIVER, scaled(bytesPerSecond)));
    const bar = html`<rect class="rate" x="0" width="${width}" y="3" height="10"/>`;
    const label = `${name}: ${rateText(bytesPerSecond)}`;
    const amount = html`${rateText(bytesPerSecond)} <span class="dim">${bytesText(bytes)} in ${secondsText(seconds)}</span>`;
    return row(name, drawing([bar, ...lines], label), amount);
  });
  const marks = limits.map(({ name, bytesPerSecond }) =>
    row(
      html`<span class="limit-name">${name}</span>`,
      drawing(verticalLine('limit', scaled(bytesPerSecond)), `${name}: ${rateText(bytesPerSecond)}`),
      rateText(bytesPerSecond),
    ),
  );
  return html`<div class="chart wide">${bars}${marks}</div>`;
}

export interface Share {
  readonly name: string;
  readonly bytes: number;
  /** The class that gives its colour. */
  readonly kind: string;
}

/** Parts of a whole, side by side in one bar, and what they are below it. */
export function sharesChart(shares: readonly Share[], label: string): Html {
  const whole = shares.reduce((sum, { bytes }) => sum + bytes, 0);
  let begun = 0;
  const bars = shares
    .filter(({ bytes }) => bytes > 0)
    .map(({ kind, bytes }) => {
      const x = (begun / whole) * WIDTH;
      begun += bytes;
      const width = Math.max(SLIVER, (bytes / whole) * WIDTH - 2);
      return html`<rect class="${kind}" x="${figure(Math.min(x, WIDTH - width))}" width="${figure(width)}" y="0" height="16"/>`;
    });
  const legend = shares.map(
    ({ name, kind, bytes }) =>
      html`<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="${kind}" width="10" height="10" rx="2"/></svg>${name} <b>${bytesText(bytes)}</b> <span class="dim">${shareText(bytes, whole)}</span></li>`,
  );
  return html`<div class="stack">${drawing(bars, label)}</div><ul class="legend">${legend}</ul>`;
}
