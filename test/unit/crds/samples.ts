import { parse } from 'yaml';
import type { Json } from '../../fakes/kube-api/resources.ts';

/** What a client sends: the examples of the original's guide, with what they leave out. */
export const CHECKPOINT = parse(`
apiVersion: nvidia.com/v1alpha1
kind: DynamoCheckpoint
metadata:
  name: qwen3-06b-bf16
spec:
  identity:
    model: Qwen/Qwen3-0.6B
    backendFramework: vllm
    tensorParallelSize: 1
    dtype: bfloat16
    maxModelLen: 2048
  job:
    activeDeadlineSeconds: 3600
    podTemplateSpec:
      spec:
        restartPolicy: Never
        imagePullSecrets: [{ name: registry }]
        containers:
          - name: main
            image: registry.example.com/dynamo/vllm-placeholder:1.0.0
            args: [--model, Qwen/Qwen3-0.6B]
            resources: { limits: { nvidia.com/gpu: 1 } }
`) as Json;

export const CHECKPOINT_REF = parse(`
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata:
  name: vllm-checkpointref-demo
spec:
  services:
    Frontend:
      componentType: frontend
      replicas: 1
      extraPodSpec:
        mainContainer:
          image: registry.example.com/dynamo/vllm-runtime:1.0.0
    VllmDecodeWorker:
      componentType: worker
      replicas: 1
      checkpoint:
        enabled: true
        checkpointRef: qwen3-06b-bf16
      extraPodSpec:
        tolerations: [{ key: nvidia.com/gpu, operator: Exists }]
        mainContainer:
          image: registry.example.com/dynamo/vllm-placeholder:1.0.0
          workingDir: /workspace
`) as Json;

export const AUTO = parse(`
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata:
  name: vllm-auto-demo
spec:
  services:
    Frontend:
      componentType: frontend
      replicas: 1
      extraPodSpec:
        mainContainer:
          image: registry.example.com/dynamo/vllm-runtime:1.0.0
    VllmDecodeWorker:
      componentType: worker
      replicas: 1
      checkpoint:
        enabled: true
        mode: Auto
        startupPolicy: Immediate
      extraPodSpec:
        mainContainer:
          image: registry.example.com/dynamo/vllm-placeholder:1.0.0
`) as Json;

/** A copy with another value at a path; undefined takes it away. */
export function altered(object: Json, path: string, value: unknown): Json {
  const copy = structuredClone(object);
  const names = path.split('.');
  const last = names.pop() ?? '';
  const holder = names.reduce<Json>((part, name) => {
    part[name] ??= {};
    return part[name] as Json;
  }, copy);
  if (value === undefined) delete holder[last];
  else holder[last] = value;
  return copy;
}

/** The same as the API server would send it. */
export const served = (object: Json): Json => ({
  ...object,
  metadata: { ...(object['metadata'] as Json), namespace: 'team', uid: 'u', resourceVersion: '1' },
});
