import { SCOPED_ANNOTATIONS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isGone } from '../../kube/error.ts';
import { kubePath } from '../../kube/paths.ts';
import type { RestoreStatus } from '../plan/decide.ts';
import { CALL_TIMEOUT_MS } from './insist.ts';

/**
 * Writes onto a pod how far the restore of one of its containers is. A merge patch touches nothing else; the uid keeps it off a later
 * pod of the name. A pod that is gone needs it no more. Throws KubeError.
 */
export async function storeRestoreStatus(
  client: KubeClient,
  { namespace, name, uid }: PodView,
  { container, status }: { readonly container: { name: string; id: string }; readonly status: RestoreStatus },
  signal: AbortSignal,
): Promise<void> {
  const annotations = {
    [SCOPED_ANNOTATIONS.restoreStatus + container.name]: status,
    [SCOPED_ANNOTATIONS.restoreContainerId + container.name]: container.id,
  };
  try {
    await client.request({
      method: 'PATCH',
      path: kubePath('api', 'v1', 'namespaces', namespace, 'pods', name),
      contentType: 'application/merge-patch+json',
      body: { metadata: { uid, annotations } },
      timeoutMs: CALL_TIMEOUT_MS,
      signal,
    });
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}
