const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** A bar of at most `width` characters, fine to an eighth of one. What is more than nothing is seen. */
export function barText(share: number, width: number): string {
  const bounded = Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0));
  const eighths = Math.max(bounded > 0 ? 1 : 0, Math.round(bounded * width * 8));
  return '█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? '');
}

/** A bar in a frame that shows how much is still to come. */
export function gaugeText(share: number, width: number): string {
  return `▕${barText(share, width).padEnd(width, ' ')}▏`;
}
