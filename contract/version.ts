/** The version of all programs of this package, as records, logs and `--version` say it; the same as package.json's (a test compares them). */
export const VERSION = '0.1.0';
