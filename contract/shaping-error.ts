/** A pod cannot be made into what was asked for. The message says which part of it stands in the way, and what to do. */
export class ShapingError extends Error {
  override readonly name = 'ShapingError';
}
