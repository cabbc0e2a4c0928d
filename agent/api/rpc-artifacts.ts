import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { type Reason, SnapshotError } from '../errors.ts';
import { type AgentService, type ArtifactView, type Caller, maySee } from '../operations/service.ts';
import { type CallContext, type Desk, unary } from './rpc-call.ts';
import { contentsMessage } from './rpc-contents.ts';
import { InvalidRequest } from './rpc-errors.ts';
import type { StorageFields } from './rpc-fields.ts';
import { checkpointMessage, mismatchMessage, nodeMessage } from './rpc-messages.ts';
import { requireNamespace } from './rpc-operations.ts';
import {
  type ArtifactMessage,
  artifactRequest,
  type Check,
  type CheckMessage,
  checkRequest,
  deleteRequest,
  listCheckpointsRequest,
} from './rpc-requests.ts';

type ListMessage = Parameters<typeof listCheckpointsRequest>[0];
type DeleteMessage = Parameters<typeof deleteRequest>[0];

/** The calls about artifacts and the node. */
export function artifactCalls(desk: Desk, service: AgentService): UntypedServiceImplementation {
  const { protocol } = desk;
  const requireStorage = (caller: Caller, { through }: StorageFields) => {
    requireNamespace(caller, through.namespace);
    const isNamed = through.containerId !== '' || through.container !== '';
    if (!isNamed && service.nodeInfo().accessMode === 'podMount') throw new InvalidRequest([NO_WAY]);
  };
  return {
    CheckCompatibility: unary<CheckMessage>(desk, { name: 'CheckCompatibility' }, async (request, context) => {
      const check = checkRequest(request);
      context.aim({
        ...('target' in check && check.target),
        check: check.kind === 'artifact' ? 'restore' : check.kind,
        ...('id' in check && { checkpointId: check.id, version: check.version }),
      });
      if ('target' in check) requireNamespace(context.caller, check.target.namespace);
      requireStorage(context.caller, check.storage);
      const { reasons, notChecked } = await answered(service, check, context);
      const mismatches = reasons.map(mismatchMessage);
      return { compatible: reasons.length === 0, mismatches, not_checked: notChecked };
    }),
    ListCheckpoints: unary<ListMessage>(desk, { name: 'ListCheckpoints' }, async (request, { caller }) => {
      const list = listCheckpointsRequest(request);
      requireStorage(caller, list.storage);
      const { artifacts, next } = await service.listArtifacts(list, caller);
      const own = artifacts.filter((view) => isOwn(view, caller));
      return { checkpoints: own.map((view) => checkpointMessage(view, protocol, 'listed')), next_page_token: next };
    }),
    GetCheckpoint: unary<ArtifactMessage>(desk, { name: 'GetCheckpoint' }, async (request, { caller, aim }) => {
      const artifact = artifactRequest(request);
      aim({ checkpointId: artifact.id, version: artifact.version });
      requireStorage(caller, artifact.storage);
      const view = await hidingForeign(artifact, () => service.getArtifact(artifact, caller));
      if (!isOwn(view, caller)) throw notFound(artifact);
      return checkpointMessage(view, protocol);
    }),
    InspectCheckpoint: unary<ArtifactMessage>(desk, { name: 'InspectCheckpoint' }, async (request, context) => {
      const artifact = artifactRequest(request);
      context.aim({ checkpointId: artifact.id, version: artifact.version });
      requireStorage(context.caller, artifact.storage);
      const contents = await hidingForeign(artifact, () =>
        service.inspectArtifact(artifact, context.caller, context.signal),
      );
      return contentsMessage(contents, protocol);
    }),
    VerifyCheckpoint: unary<ArtifactMessage>(desk, { name: 'VerifyCheckpoint' }, async (request, context) => {
      const artifact = artifactRequest(request);
      context.aim({ checkpointId: artifact.id, version: artifact.version });
      requireStorage(context.caller, artifact.storage);
      return await hidingForeign(artifact, () => service.verifyArtifact(artifact, context.caller, context.signal));
    }),
    DeleteCheckpoint: unary<DeleteMessage>(desk, { name: 'DeleteCheckpoint' }, async (request, context) => {
      const { artifact, madeIn } = deleteRequest(request);
      context.aim({ checkpointId: artifact.id, version: artifact.version });
      requireStorage(context.caller, artifact.storage);
      const caller = within(context.caller, madeIn);
      await hidingForeign(artifact, () => service.deleteArtifact(artifact, caller, context.signal));
      return {};
    }),
    GetNodeInfo: unary(desk, { name: 'GetNodeInfo' }, () => nodeMessage(service.nodeInfo())),
  };
}

const NO_WAY = {
  field: 'storage.through',
  problem: 'is required: this agent mounts no volume itself, name a container that does',
};

/** Asks the service for what a check is about. */
async function answered(
  service: AgentService,
  check: Check,
  { caller, signal }: Pick<CallContext, 'caller' | 'signal'>,
): Promise<{ readonly reasons: readonly Reason[]; readonly notChecked: readonly string[] }> {
  if (check.kind === 'checkpoint')
    return { reasons: await service.checkCheckpoint(check, caller, signal), notChecked: [] };
  return await hidingForeign(check, async () =>
    check.kind === 'restore'
      ? { reasons: await service.checkRestore(check, caller, signal), notChecked: [] }
      : await service.checkArtifact(check, caller, signal),
  );
}

/** What has no record that can be believed belongs to nobody: only who may see all sees it. */
function isOwn({ record }: ArtifactView, caller: Caller): boolean {
  return caller.namespaces === 'all' || (record !== undefined && maySee(caller, record.source.namespace));
}

/** The caller as if it could use this namespace alone: who may use all can work for one. Throws FORBIDDEN where it may not use that. */
function within(caller: Caller, namespace: string): Caller {
  requireNamespace(caller, namespace);
  return namespace === '' ? caller : { ...caller, namespaces: new Set([namespace]) };
}

interface Name {
  readonly id: string;
  readonly version: string;
}

/** That there is an artifact of another namespace is not told. */
async function hidingForeign<T>(name: Name, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (thrown instanceof SnapshotError && thrown.code === 'ARTIFACT_FOREIGN') throw notFound(name);
    throw thrown;
  }
}

function notFound({ id, version }: Name): SnapshotError {
  return new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${id}, version ${version}`);
}
