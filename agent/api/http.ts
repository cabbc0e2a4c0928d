import {
  type EndpointOptions,
  ListenError,
  type ProbeEndpoint,
  startProbeEndpoint,
} from '../../kube/probe-endpoint.ts';
import { SnapshotError } from '../errors.ts';

export type { EndpointOptions as HttpOptions, ProbeEndpoint as HttpEndpoint } from '../../kube/probe-endpoint.ts';

/** Serves metrics and health. Throws CONFIG_INVALID where it cannot listen at the address. */
export async function startHttp(options: EndpointOptions): Promise<ProbeEndpoint> {
  try {
    return await startProbeEndpoint(options);
  } catch (error) {
    if (error instanceof ListenError) throw new SnapshotError('CONFIG_INVALID', error.message, { cause: error });
    throw error;
  }
}
