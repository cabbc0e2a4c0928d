import type { OperationMessage } from '../../contract/agent-api/messages.ts';
import { bytesText, rateText, secondsText, timeText } from './amounts.ts';
import { gaugeText } from './bars.ts';
import { enumText, isoTime } from './plain.ts';
import { visible } from './text.ts';

const GAUGE = 24;

/** Says of each change of an operation what is new: what it waits for, each step as it begins and ends. `name`: before each line. */
export function newTeller(name: string): (operation: OperationMessage) => string[] {
  let told = { intro: false, waiting: '', timings: 0 };
  const line = (text: string) => `${name === '' ? '' : `${visible(name)}  `}${text}\n`;
  return ({ metadata }) => {
    const lines: string[] = [];
    if (!told.intro) lines.push(line(introText(metadata)));
    const waiting = metadata.state === 'OPERATION_STATE_WAITING' ? metadata.waiting_for : '';
    if (waiting !== '' && waiting !== told.waiting) lines.push(line(`waiting for ${visible(waiting)}`));
    const ended = metadata.timings.slice(told.timings).filter(({ step }) => step !== 'unaccounted');
    lines.push(...ended.map(({ step, seconds }) => line(`${visible(step).padEnd(18)} ${secondsText(seconds)}`)));
    told = { intro: true, waiting, timings: metadata.timings.length };
    return lines;
  };
}

function introText(metadata: OperationMessage['metadata']): string {
  const { kind, target, checkpoint_id: id, version, create_time: created } = metadata;
  const preposition = kind === 'OPERATION_KIND_RESTORE' ? 'into' : 'of';
  const where = target === null ? '' : ` ${preposition} ${target.namespace}/${target.pod}/${target.container}`;
  const since = created === null ? '' : `, asked for at ${timeText(isoTime(created))} UTC`;
  return visible(`${enumText(kind)} ${id}@${version}${where}${since}`);
}

/** The line that is written over: step, gauge, bytes, rate, what is left. */
export function progressText({ metadata }: OperationMessage, columns: number): string {
  const { state, step, waiting_for: waiting, progress } = metadata;
  if (state === 'OPERATION_STATE_WAITING') return `waiting for ${visible(waiting)}`;
  if (state !== 'OPERATION_STATE_RUNNING' || step === '') return enumText(state);
  const {
    bytes,
    total_bytes: total,
    bytes_per_second: rate,
  } = progress ?? {
    bytes: 0,
    total_bytes: 0,
    bytes_per_second: 0,
  };
  if (bytes === 0 && total === 0) return visible(step);
  const left = total > bytes && rate > 0 ? `  ${secondsText((total - bytes) / rate)} left` : '';
  const amount = total > 0 ? `${bytesText(bytes)} of ${bytesText(total)}` : bytesText(bytes);
  const gauge = total > 0 ? `  ${gaugeText(bytes / total, Math.max(8, Math.min(GAUGE, columns - 60)))}` : '';
  return `${visible(step).padEnd(14)}${gauge}  ${amount}  ${rateText(rate)}${left}`;
}

/** How it ended, in one line. Why it failed is said as the error of the command. */
export function endText({ metadata, response }: OperationMessage, name: string): string {
  const { state, start_time: start, end_time: end, figures } = metadata;
  const seconds =
    start !== null && end !== null ? Date.parse(isoTime(end)) / 1000 - Date.parse(isoTime(start)) / 1000 : undefined;
  const pause = figures['pauseSeconds'];
  const parts = [
    response?.adopted ? 'adopted: the artifact was already there' : enumText(state),
    seconds === undefined ? '' : `after ${secondsText(seconds)}`,
    pause === undefined ? '' : `pause ${secondsText(pause)}`,
  ];
  return `${name === '' ? '' : `${visible(name)}  `}${parts.filter((part) => part !== '').join(', ')}\n`;
}
