const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1.50 GiB`: three digits, in units of 1024. */
export function bytesText(bytes: number): string {
  let [value, unit] = [bytes, 0];
  while (value >= 1023.5 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : threeDigits(value)} ${UNITS[unit]}`;
}

/** `1.50 GiB/s`. */
export function rateText(bytesPerSecond: number): string {
  return `${bytesText(Math.round(bytesPerSecond))}/s`;
}

/** `0.5 ms`, `12.3 s`, `2 min 05 s`, `3 h 07 min`. */
export function secondsText(seconds: number): string {
  if (seconds < 0.0995) return `${threeDigits(seconds * 1000)} ms`;
  if (seconds < 99.95) return `${threeDigits(seconds)} s`;
  const whole = Math.round(seconds);
  const padded = (value: number) => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${padded(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${padded(Math.floor((whole % 3600) / 60))} min`;
}

/** `2026-11-28 13:04:05`, in UTC, as all times that are shown. */
export function timeText(iso: string): string {
  return iso.slice(0, 19).replace('T', ' ');
}

/** `42 %`; a part of nothing is nothing. */
export function shareText(part: number, whole: number): string {
  if (whole <= 0) return '0 %';
  const percent = (part / whole) * 100;
  return percent > 0 && percent < 0.95 ? '<1 %' : `${Math.round(percent)} %`;
}

function threeDigits(value: number): string {
  return value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
