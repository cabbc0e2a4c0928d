import { createHash } from 'node:crypto';
import type { CheckpointContents, CheckpointMessage, CheckpointRecord } from '../../contract/agent-api/messages.ts';
import { bytesText, secondsText, shareText, timeText } from '../show/amounts.ts';
import { platformOf } from '../show/inspection.ts';
import { isoTime } from '../show/plain.ts';
import { counted } from '../show/text.ts';
import { ratesChart, type Share, sharesChart, timelineChart } from './charts.ts';
import { type Limit, ratesOf } from './figures.ts';
import { type Html, html } from './html.ts';
import { memorySection, processesSection } from './memory.ts';
import { STYLE } from './style.ts';

const MAX_FILES = 200;

/** What a report is made of. */
export interface ReportInput {
  readonly checkpoint: CheckpointMessage;
  readonly record: CheckpointRecord;
  /** Undefined where the agent could not look inside. */
  readonly contents: CheckpointContents | undefined;
  readonly limits: readonly Limit[];
  /** Which agent answered. */
  readonly agent: string;
  readonly madeAt: Date;
  readonly version: string;
}

/**
 * The report as one page: nothing is loaded, nothing is run. Its policy forbids even that its style sheet is changed on the way, so no
 * element has a style of its own.
 */
export function reportPage(input: ReportInput): string {
  const { checkpoint } = input;
  const name = `${checkpoint.checkpoint_id}@${checkpoint.version}`;
  const hash = createHash('sha256').update(STYLE).digest('base64');
  const policy = `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`;
  const body = html`<title>Checkpoint ${name}</title>
</head>
<body>
<main>
${header(input, name)}
${tiles(input)}
${timeline(input)}
${rates(input)}
${sizes(input)}
${inside(input)}
${capturedWith(input)}
${files(input)}
${footer(input)}
</main>
</body>
</html>
`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<style>${STYLE}</style>
${body.text}`;
}

function header({ checkpoint, record }: ReportInput, name: string): Html {
  const { source } = record;
  const from = source === null ? '' : `${source.namespace}/${source.pod}/${source.container} on node ${source.node}`;
  return html`<header><h1>${name}<span class="pill">complete</span></h1>
<p class="sub">Checkpoint of ${from}${source?.image ? html`<br>${source.image}` : undefined}<br>${checkpoint.location}</p></header>`;
}

function tiles({ record }: ReportInput): Html {
  const { sizes: size, timings, create_time: created } = record;
  const whole = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  const memory = (size?.bulk_bytes ?? 0) + (size?.criu_bytes ?? 0) + (size?.zero_bytes ?? 0);
  const all: [label: string, value: string, more: string][] = [
    ['Stored', bytesText(size?.total_bytes ?? 0), counted(size?.files ?? 0, 'file')],
    ['Source stood still', secondsText(record.pause_seconds), `of ${secondsText(whole)} in all`],
    ['Zeros left out', bytesText(size?.zero_bytes ?? 0), `${shareText(size?.zero_bytes ?? 0, memory)} of the memory`],
    ['Processes', String(record.processes), counted(record.threads, 'thread')],
  ];
  if ((size?.device_bytes ?? 0) > 0)
    all.push(['Device memory', bytesText(size?.device_bytes ?? 0), record.platform?.gpu_models[0] ?? '']);
  if (created !== null)
    all.push(['Made', timeText(isoTime(created)).slice(0, 10), `${timeText(isoTime(created)).slice(11)} UTC`]);
  return html`<div class="tiles">${all.map(
    ([label, value, more]) =>
      html`<div class="tile"><div class="label">${label}</div><div class="value">${value}</div><div class="more">${more}</div></div>`,
  )}</div>`;
}

const RECORD = 'Source: the record of the artifact, which the agent signed when it made it.';

function timeline({ record }: ReportInput): Html {
  if (record.timings.length === 0) return html``;
  const key = (kind: string, text: string) =>
    html`<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="${kind}" width="10" height="10" rx="2"/></svg>${text}</li>`;
  return html`<section><h2>Timeline</h2><p class="lead">Each step where it was in time. Publishing comes after the record was written, and is not in it.</p>
${timelineChart(record.timings)}
<ul class="legend note">${key('paused', 'the source stands still')}${key('running', 'the source runs')}</ul>
<p class="source">${RECORD} The time that the source stood still, ${secondsText(record.pause_seconds)}, is measured by itself: it may begin and end within a step.</p></section>`;
}

function rates({ record, limits }: ReportInput): Html {
  const found = ratesOf(record);
  if (found.length === 0) return html``;
  const sources = [
    ...found.map(({ name, source }) => html`<li>${name}: ${source}.</li>`),
    ...limits.map(({ name, source }) => html`<li>${name} (limit): ${source}.</li>`),
  ];
  const lead =
    limits.length === 0
      ? 'Bytes moved in a step by its time. No limit is known: snapshotctl report --verify measures what the volume gives, --limit NAME=RATE adds what you know.'
      : 'Bytes moved in a step by its time; the lines are limits.';
  return html`<section><h2>Rates</h2><p class="lead">${lead}</p>${ratesChart(found, limits)}
<details><summary>How each figure is reckoned</summary><ul>${sources}</ul></details>
<p class="source">Source: sizes and times of the record, divided. They are what came of it, not what the hardware can.</p></section>`;
}

function sizes({ record }: ReportInput): Html {
  const { sizes: size } = record;
  if (size === null) return html``;
  const shares: Share[] = [
    { name: 'large memory', bytes: size.bulk_bytes, kind: 'p1' },
    { name: "CRIU's images", bytes: size.criu_bytes, kind: 'p2' },
    { name: 'changed files', bytes: size.rootfs_bytes, kind: 'p3' },
    { name: 'shared memory files', bytes: size.shm_bytes, kind: 'p4' },
    { name: 'zeros, not stored', bytes: size.zero_bytes, kind: 'p0' },
  ];
  const device =
    size.device_bytes > 0
      ? html`<p class="note">${bytesText(size.device_bytes)} of the memory were device memory, which the driver copied to the host.</p>`
      : undefined;
  return html`<section><h2>What is stored</h2><p class="lead">${bytesText(size.total_bytes)} in ${counted(size.files, 'file')}.</p>${sharesChart(shares, 'parts of the artifact')}${device}
<p class="source">${RECORD}</p></section>`;
}

function inside({ contents }: ReportInput): Html {
  if (contents === undefined)
    return html`<section><h2>Processes and memory</h2><p class="lead">The agent could not look inside the artifact.</p></section>`;
  const source =
    "Source: CRIU's images and the index of the bulk file, read for this report and compared with their digests.";
  return html`<section class="long"><h2>Processes</h2><p class="lead">As they were captured, with the PIDs that they have inside their container.</p>${processesSection(contents)}
<p class="source">${source} Memory that processes share is stored once and counted in each of them.</p></section>
<section class="long"><h2>Memory map</h2><p class="lead">Areas in the order of their addresses, as wide as they are large; gaps are left out. Full colour is stored, pale is mapped only.</p>${memorySection(contents)}
<p class="source">${source}</p></section>`;
}

function capturedWith({ record }: ReportInput): Html {
  const { platform, source, mounts } = record;
  const definitions = (pairs: readonly (readonly [string, string])[]) =>
    html`<dl>${pairs.filter(([, value]) => value !== '').map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
  const origin: [string, string][] = [
    ['agent', record.agent_version],
    ['operation', record.operation_id],
    ['trace', record.trace_id],
    ['image id', source?.image_id ?? ''],
    ['pod addresses', record.pod_ips.join(', ')],
    ['terminal', record.terminal ? 'yes: the target needs one too' : 'no'],
    ['IPC namespace', record.private_ipc ? 'its own, with System V objects' : "joins the target pod's"],
    ['control directory', record.control_dir || 'none'],
    ['resident memory', bytesText(record.resident_bytes)],
  ];
  const features = platform?.cpu_features ?? [];
  const mountRows = mounts.map(
    ({ mount_point: at, filesystem }) => html`<tr><td class="path">${at}</td><td>${filesystem}</td></tr>`,
  );
  return html`<section><h2>Captured with</h2><p class="lead">A node that restores it is compared with this: snapshotctl diff.</p>
<div class="columns">${definitions(platformOf(record))}${definitions(origin)}</div>
${features.length > 0 ? html`<details><summary>${counted(features.length, 'CPU feature')}</summary><p class="path">${features.join(' ')}</p></details>` : undefined}
${mounts.length > 0 ? html`<details><summary>${counted(mounts.length + record.mounts_left_out, 'mount')}</summary><div class="scroll"><table><thead><tr><th>Mount point</th><th>Filesystem</th></tr></thead><tbody>${mountRows}</tbody></table></div></details>` : undefined}
<p class="source">${RECORD}</p></section>`;
}

function files({ contents }: ReportInput): Html {
  if (contents === undefined) return html``;
  const largest = [...contents.files].sort((a, b) => b.bytes - a.bytes).slice(0, MAX_FILES);
  const all = contents.files.length + contents.files_left_out;
  const rows = largest.map(
    ({ path, bytes, digest }) =>
      html`<tr><td class="path">${path}</td><td class="num">${bytesText(bytes)}</td><td class="mono">${digest === '' ? 'a tag for each block' : `${digest.slice(0, 16)}…`}</td></tr>`,
  );
  const left = all > largest.length ? html`<p class="note">The ${largest.length} largest of ${all}.</p>` : undefined;
  return html`<section class="long"><h2>Files</h2><p class="lead">${counted(all, 'file')}; a restore removes ${counted(contents.removed_paths, 'path')} of the image.</p>
<details><summary>The files, the largest first</summary><div class="scroll"><table><thead><tr><th>File</th><th class="num">Size</th><th>SHA-256</th></tr></thead><tbody>${rows}</tbody></table></div>${left}</details>
<p class="source">${RECORD}</p></section>`;
}

function footer({ agent, madeAt, version, checkpoint }: ReportInput): Html {
  const read = checkpoint.readers.length > 0 ? ` Read by ${checkpoint.readers.join(', ')} at that time.` : '';
  return html`<footer>Made ${timeText(madeAt.toISOString())} UTC by snapshotctl ${version}, from what ${agent} answered.${read} Sizes are in units of 1024 bytes.</footer>`;
}
