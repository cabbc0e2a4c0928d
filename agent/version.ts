/** The version of this agent, as the record and the log say it; the same as package.json's (a test compares them). */
export const AGENT_VERSION = '0.1.0';
