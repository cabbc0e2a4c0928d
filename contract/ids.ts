const ID = /^(?!\.)(?!tmp$)[A-Za-z0-9_.-]{1,63}$/;

/** Says why `value` is no checkpoint id, artifact version or operation id, or undefined where it is one. */
export function idProblem(value: string): string | undefined {
  if (ID.test(value)) return undefined;
  if (value === '') return 'is empty';
  if (value === 'tmp') return 'is the reserved name "tmp"';
  if (value.length > 63) return `has ${value.length} characters, at most 63 are allowed`;
  if (value.startsWith('.')) return 'begins with a dot';
  return 'has characters other than A-Z a-z 0-9 . _ -';
}
