import type { CapturedProcess, CheckpointContents, MemoryArea } from '../../contract/agent-api/messages.ts';
import { bytesText, shareText } from '../show/amounts.ts';
import { inTree, kindText, stateText } from '../show/inspection.ts';
import { counted } from '../show/text.ts';
import { type Html, html } from './html.ts';

const WIDTH = 1000;
const HEIGHT = 28;
const SLIVER = 1.5;
const MAX_MAPS = 24;
const LARGEST = 12;

const KINDS = ['anonymous', 'heap', 'stack', 'file', 'shared', 'device', 'special'];

const figure = (value: number) => Number(value.toFixed(2));
const sizeOf = ({ start, end }: MemoryArea) => Math.max(0, end - start);

/** The class that gives an area its colour. */
function classOf({ kind }: MemoryArea): string {
  const own = kind.replace('MEMORY_KIND_', '').toLowerCase();
  return KINDS.includes(own) ? `k-${own}` : 'k-special';
}

/** The processes as a table, and a map of the memory of each that has some stored. */
export function processesSection(contents: CheckpointContents): Html {
  const tree = inTree(contents.processes);
  const rows = tree.map(
    ({ process, depth }) =>
      html`<tr><td class="num">${process.pid}</td><td>${depth > 0 ? html`<span class="dim">${'\u00a0\u00a0'.repeat(depth - 1)}└ </span>` : ''}${process.name}${stateText(process)}</td><td class="num">${process.threads}</td><td class="num">${bytesText(process.memory_bytes)}</td><td class="num">${bytesText(process.stored_bytes)}</td><td class="num">${process.cuda ? bytesText(process.device_bytes) : '–'}</td></tr>\n`,
  );
  const more =
    contents.processes_left_out > 0
      ? html`<p class="note">${counted(contents.processes_left_out, 'process', 'processes')} with less stored memory are left out by the agent.</p>`
      : undefined;
  return html`<div class="scroll"><table><thead><tr><th class="num">PID</th><th>Name</th><th class="num">Threads</th><th class="num">Mapped</th><th class="num">Stored</th><th class="num">Device</th></tr></thead><tbody>${rows}</tbody></table></div>${more}`;
}

/** A strip for each process, those with the most stored first, and its largest areas. */
export function memorySection({ processes }: CheckpointContents): Html {
  const mapped = processes.filter(({ areas }) => areas.length > 0).sort((a, b) => b.stored_bytes - a.stored_bytes);
  const legend = KINDS.map(
    (kind) =>
      html`<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="k-${kind}" width="10" height="10" rx="2"/></svg>${kindText(kind)}</li>`,
  );
  const maps = mapped.slice(0, MAX_MAPS).map(processMap);
  const more =
    mapped.length > MAX_MAPS
      ? html`<p class="note">Maps of ${counted(mapped.length - MAX_MAPS, 'more process', 'more processes')} are left out; they have the least stored.</p>`
      : undefined;
  return html`<ul class="legend">${legend}</ul>${maps}${more}`;
}

function processMap(process: CapturedProcess): Html {
  const { pid, name, areas, memory_bytes: memory, stored_bytes: stored } = process;
  const left =
    process.areas_left_out > 0
      ? html`<p class="note">${counted(process.areas_left_out, 'more area')} with ${bytesText(process.bytes_left_out)} mapped, those with the least stored, are left out.</p>`
      : undefined;
  return html`<div class="map"><h3>${name} <span class="dim">PID ${pid}</span> <span class="amount">${bytesText(stored)} stored of ${bytesText(memory)} mapped, ${counted(areas.length, 'area')}</span></h3>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="memory map of ${name}, PID ${pid}">${strip(areas)}</svg>${left}
<details><summary>Largest areas</summary>${areasTable(areas)}</details></div>\n`;
}

/** Areas in the order of their addresses, as wide as they are large, filled as far as they are stored. Gaps are left out. */
function strip(areas: readonly MemoryArea[]): Html[] {
  const whole = areas.reduce((sum, area) => sum + sizeOf(area), 0);
  const room = Math.max(WIDTH / 2, WIDTH - SLIVER * areas.length);
  const least = Math.min(SLIVER, (WIDTH - room) / Math.max(1, areas.length));
  let x = 0;
  return areas.map((area) => {
    const size = sizeOf(area);
    const width = least + (whole > 0 ? (size / whole) * room : 0);
    const filled = size > 0 ? Math.min(1, area.stored_bytes / size) * HEIGHT : 0;
    const kind = classOf(area);
    const at = figure(x);
    x += width;
    const inside =
      filled > 0
        ? html`<rect class="${kind}" x="${at}" width="${figure(width)}" y="${figure(HEIGHT - filled)}" height="${figure(filled)}"/>`
        : undefined;
    return html`<g><title>${areaText(area)}</title><rect class="${kind} mapped" x="${at}" width="${figure(width)}" y="0" height="${HEIGHT}"/>${inside}</g>`;
  });
}

function areaText(area: MemoryArea): string {
  return `${addressText(area.start)}: ${bytesText(sizeOf(area))} ${area.path || kindText(area.kind)} ${area.protection}, ${bytesText(area.stored_bytes)} stored`;
}

function addressText(address: number): string {
  return `0x${address.toString(16).padStart(12, '0')}`;
}

function areasTable(areas: readonly MemoryArea[]): Html {
  const largest = [...areas].sort((a, b) => b.stored_bytes - a.stored_bytes || sizeOf(b) - sizeOf(a)).slice(0, LARGEST);
  const rows = largest.map(
    (area) =>
      html`<tr><td class="mono">${addressText(area.start)}</td><td>${kindText(area.kind)}</td><td class="mono">${area.protection}${area.shared ? 's' : 'p'}</td><td class="num">${bytesText(sizeOf(area))}</td><td class="num">${bytesText(area.stored_bytes)}</td><td class="num">${shareText(area.bulk_bytes, area.stored_bytes)}</td><td class="path">${area.path || '–'}</td></tr>\n`,
  );
  return html`<div class="scroll"><table><thead><tr><th>Address</th><th>Kind</th><th>Mode</th><th class="num">Mapped</th><th class="num">Stored</th><th class="num">In bulk</th><th>File</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}
