import { expect, it } from 'vitest';
import { refusalOf } from './render.ts';

/** Values that are wrong, and what is said about them. */
const WRONG: readonly (readonly [values: object, message: string])[] = [
  [{ runtime: { type: 'docker' } }, "runtime.type must be 'containerd' or 'crio', got 'docker'"],
  [{ storage: { type: 's3' } }, "storage.type must be 'pvc', got 's3': no other is implemented"],
  [{ storage: { accessMode: 'hostMount' } }, "storage.accessMode must be 'agentMount' or 'podMount', got 'hostMount'"],
  [
    { storage: { s3: { uri: 's3://bucket' } } },
    'storage.s3.uri and storage.oci.uri are reserved: artifacts are kept on a PersistentVolumeClaim only. Leave both empty',
  ],
  [
    { storage: { pvc: { basePath: '/data/../checkpoints' } } },
    "storage.pvc.basePath must be an absolute, clean path, got '/data/../checkpoints': did you mean '/checkpoints'?",
  ],
  [
    { operator: { enabled: true, namespaces: ['a'] } },
    'operator.namespaces is ["a"], but rbac.namespaceRestricted allows for namespace snapshot-system only: leave it empty, or set rbac.namespaceRestricted to false',
  ],
  [
    { operator: { enabled: true, metricsPort: 8443 } },
    'operator.webhook.port and operator.metricsPort are both 8443: each needs one of its own',
  ],
  [
    { operator: { enabled: true, serviceAccount: { create: false } } },
    'operator.serviceAccount.create is false: set operator.serviceAccount.name to the account that the operator is to run as',
  ],
  [
    { operator: { enabled: true }, storage: { accessMode: 'podMount', pvc: { storageClass: '-' } } },
    'operator.enabled: in podMount mode the operator makes the claims (storage.pvc.create), and knows neither storage.pvc.storageClass "-" nor storage.pvc.accessMode ReadWriteOncePod: choose others, or make the claims yourself',
  ],
  [
    { operator: { enabled: true, config: { agents: { port: 1 } } } },
    'operator.config.agents.port is 1, but api.tcp.port makes it 9443: remove operator.config.agents.port, and set api.tcp.port where that is not what you want',
  ],
  [
    { operator: { enabled: true, config: { leaderElection: { leaseName: 'own' } } } },
    `operator.config.leaderElection.leaseName is "own", but the operator's pod is made for "snapshot-operator": remove operator.config.leaderElection.leaseName`,
  ],
  [
    { daemonset: { affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } } } },
    "daemonset.affinity.nodeAffinity is the chart's own (the agent runs on linux, amd64): choose nodes with daemonset.nodeSelector",
  ],
  [
    { daemonset: { terminationGracePeriodSeconds: 300 } },
    'daemonset.terminationGracePeriodSeconds is 300, but operations may go on for 300 s when the agent is asked to stop (config.limits.drainSeconds), and undoing what is left takes up to 30 s: set at least 330',
  ],
  [
    { config: { limits: { drainSeconds: 3600 } } },
    'daemonset.terminationGracePeriodSeconds is 360, but operations may go on for 3600 s when the agent is asked to stop (config.limits.drainSeconds), and undoing what is left takes up to 30 s: set at least 3630',
  ],
  [
    { config: { memory: { workBytes: 8 * 2 ** 30 } } },
    'daemonset.resources.limits.memory is 4Gi, but config.memory.workBytes alone may take 8589934592 bytes of it: raise the limit, or lower workBytes',
  ],
  [
    { serviceAccount: { create: false } },
    'serviceAccount.create is false: set serviceAccount.name to the account that the agent is to run as',
  ],
  [
    { api: { clients: [{ name: 'ci', namespaces: ['demo'] }] } },
    'api.clients says who may call over TCP, but nobody can: set api.tcp.enabled, or leave api.clients empty',
  ],
  [
    { api: { tcp: { enabled: true, port: 9090 } } },
    'api.tcp.port and metrics.port are both 9090: each needs one of its own',
  ],
  [
    { config: { nodeName: 'node-1' } },
    'config.nodeName would be the same on every node: remove it. The agent gets the name of its node from Kubernetes',
  ],
  [
    { config: { kubernetes: { namespace: 'demo' } } },
    `config.kubernetes.namespace is "demo", but rbac.namespaceRestricted decides which pods the agent serves: true for those of the release's namespace, false for all. Remove config.kubernetes.namespace`,
  ],
  [
    { config: { retention: { highPercent: 80, lowPercent: 90 } } },
    'config.retention.highPercent is 80 and lowPercent is 90: both must be 0, or lowPercent above 0 and no higher than highPercent',
  ],
  [
    { config: { logLevel: 'debug' } },
    'config.logLevel is "debug", but daemonset.snapshotLogLevel makes it "info": remove config.logLevel, and set daemonset.snapshotLogLevel where that is not what you want',
  ],
  [
    { config: { storage: { basePath: '/elsewhere' } } },
    'config.storage.basePath is "/elsewhere", but storage.pvc.basePath makes it "/checkpoints": remove config.storage.basePath, and set storage.pvc.basePath where that is not what you want',
  ],
  [
    { config: { http: { address: ':8080' } } },
    'config.http.address is ":8080", but metrics.port makes it ":9090": remove config.http.address, and set metrics.port where that is not what you want',
  ],
  [
    { config: { api: { listen: ':9443' } } },
    'config.api.listen is ":9443", but api.tcp.enabled makes it "": remove config.api.listen, and set api.tcp.enabled where that is not what you want',
  ],
  [
    { config: { host: { procRoot: '/proc' } } },
    `config.host.procRoot is "/proc", but the agent's pod is made for "/host/proc": remove config.host.procRoot`,
  ],
  [
    { credentials: { caDays: 100 } },
    'credentials.caDays is 100, but an authority must live at least three times as long as what it signs (credentials.certificateDays): set at least 270',
  ],
  [
    { credentials: { caSecret: 'snapshot-agent-tls' } },
    'each Secret of the credentials needs a name of its own, got snapshot-record-key, snapshot-agent-tls, snapshot-agent-tls, snapshot-operator-tls',
  ],
  [
    { daemonset: { updateStrategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } } } },
    'daemonset.updateStrategy.rollingUpdate.maxSurge is 1, but a second agent on a node is not ready until the first has ended, so that an update would never go on: remove it, and set maxUnavailable',
  ],
  ...['/usr', '/etc/snapshot', '/run', '/host/proc'].map((basePath): readonly [object, string] => [
    { storage: { pvc: { basePath } } },
    `storage.pvc.basePath is ${basePath}, where the agent's container has files of its own: mount the volume elsewhere`,
  ]),
  [
    { runtime: { socketPath: '/var/run/crio.sock' } },
    "runtime.socketPath is /var/run/crio.sock, but its directory is mounted into the agent's container, which has files of its own at /var/run: the socket needs a directory of its own",
  ],
  [
    { runtime: { storagePath: '/var/lib' } },
    "runtime.storagePath is /var/lib, where the agent's container has files of its own: name the runtime's own directory",
  ],
  // What the schema says.
  [{ nameOverride: 'a: b' }, "at '/nameOverride': 'a: b' does not match pattern"],
  [{ fullnameOverride: 'Snapshot_1' }, "at '/fullnameOverride': 'Snapshot_1' does not match pattern"],
  [{ commonLabels: { team: 'a b' } }, "at '/commonLabels/team': 'a b' does not match pattern"],
  [{ storage: { pvc: { name: 'Claim' } } }, "at '/storage/pvc/name': 'Claim' does not match pattern"],
  [{ storage: { pvc: { size: '1 TB' } } }, "at '/storage/pvc/size': '1 TB' does not match pattern"],
  [{ daemonset: { image: { digest: '1234' } } }, "at '/daemonset/image/digest': '1234' does not match pattern"],
  [{ daemonset: { image: { tag: 'a"b' } } }, "at '/daemonset/image/tag': 'a\"b' does not match pattern"],
  [
    { metrics: { podMonitor: { interval: '30 s' } } },
    "at '/metrics/podMonitor/interval': '30 s' does not match pattern",
  ],
  [{ dameonset: {} }, "at '': additional properties 'dameonset' not allowed"],
  [{ storage: { pvc: { basepath: '/x' } } }, "at '/storage/pvc': additional properties 'basepath' not allowed"],
  [
    { storage: { pvc: { basePath: 'checkpoints' } } },
    "at '/storage/pvc/basePath': 'checkpoints' does not match pattern",
  ],
  [{ metrics: { port: 0 } }, "at '/metrics/port': minimum: got 0, want 1"],
  [{ storage: { pvc: null } }, "at '/storage': missing property 'pvc'"],
  [{ daemonset: { snapshotLogLevel: 'verbose' } }, "at '/daemonset/snapshotLogLevel': value must be one of 'trace', "],
  [{ config: { checkpont: {} } }, "at '/config': additional properties 'checkpont' not allowed"],
  [{ config: { criu: { lazyPages: true } } }, "at '/config/criu/lazyPages': value must be false"],
  [{ config: { criu: { libDir: '/usr/lib/criu' } } }, "at '/config/criu/libDir': value must be ''"],
  [{ config: { criu: { binaryPath: 'criu' } } }, "at '/config/criu/binaryPath': 'criu' does not match pattern '^/'"],
  [{ config: { limits: { parallelOperations: 65 } } }, "at '/config/limits/parallelOperations': maximum: got 65"],
  [
    { config: { cuda: { proveRestore: 'never' } } },
    "at '/config/cuda/proveRestore': value must be one of 'live', 'always'",
  ],
];

it.each(WRONG)('refuses %j', (values, message) => {
  expect(refusalOf(values)).toContain(message);
});
