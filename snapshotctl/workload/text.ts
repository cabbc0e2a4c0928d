/** Control characters, separators of lines, and marks that turn the direction of writing. */
const STEERING = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+/gu;

/** Text that others wrote into the cluster, as one line that cannot steer a terminal. */
export function oneLine(text: string): string {
  return text.replace(STEERING, ' ').trim();
}
