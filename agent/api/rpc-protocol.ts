/** The protocol as the clients have it, too. */
export { AGENT_SERVICE, loadProtocol, type Protocol } from '../../contract/agent-api/protocol.ts';
