import { afterEach, beforeEach } from 'vitest';
import { type KubeApi, startKubeApi } from './server.ts';

/** The collection of the test's namespace. */
export const PODS = '/api/v1/namespaces/demo/pods';
export const MERGE = 'application/merge-patch+json';
/** For each test a fresh server that has one pod, and plain HTTP calls to it. */
export function useServer() {
  const stage = {} as { api: KubeApi };
  beforeEach(async () => {
    stage.api = await startKubeApi();
    put('web');
  });
  afterEach(() => stage.api.close());

  const put = (name: string, target = stage.api) =>
    target.put({
      kind: 'Pod',
      metadata: { name, namespace: 'demo' },
      spec: { nodeName: 'node-1', containers: [{ name: 'main' }] },
    });
  const call = (
    path: string,
    init: Omit<RequestInit, 'headers'> & { readonly headers?: Record<string, string> } = {},
  ) =>
    fetch(`${stage.api.url}${path}`, {
      ...init,
      headers: { authorization: `Bearer ${stage.api.token}`, ...init.headers },
    });
  const annotate = (value: string) =>
    call(`${PODS}/web`, {
      method: 'PATCH',
      headers: { 'content-type': MERGE },
      body: JSON.stringify({ metadata: { annotations: { state: value } } }),
    });
  const annotation = () => stage.api.get('pods', 'demo/web')?.metadata.annotations?.['state'];
  const watch = (query = '') => call(`${PODS}?watch=true&resourceVersion=${stage.api.version}${query}`);
  return { stage, put, call, annotate, annotation, watch };
}

/** What a client sees of a connection that broke: the code of the error below. */
export const codeOf = (broken: Promise<unknown>) =>
  broken.then(
    () => 'none',
    (error: { cause?: { code?: string } }) => error.cause?.code,
  );
