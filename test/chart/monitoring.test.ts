import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CHART, only, render } from './render.ts';
import { problemsOf } from './schemas.ts';

const directory = mkdtempSync(join(tmpdir(), 'chart-'));
const chart = join(directory, 'snapshot');
const RULE = { alert: 'Down', expr: 'up == 0', annotations: { summary: '{{ $labels.node }} is {{ $value }}' } };
const DASHBOARD = { title: '{{ not for helm }}', panels: [] };

cpSync(CHART, chart, { recursive: true });
writeFileSync(join(chart, 'files/alerts.yaml'), JSON.stringify({ groups: [{ name: 'snapshot', rules: [RULE] }] }));
writeFileSync(join(chart, 'files/dashboard.json'), JSON.stringify(DASHBOARD));
afterAll(() => rmSync(directory, { recursive: true }));

const ON = {
  metrics: {
    podMonitor: { enabled: true, interval: '15s', labels: { release: 'prometheus' } },
    prometheusRule: { enabled: true, labels: { release: 'prometheus' } },
    dashboard: { enabled: true, annotations: { folder: 'GPU' } },
  },
};

describe('what watches over the agents', () => {
  const objects = render(ON, { chart });

  it('is off by default: its kinds are not in every cluster', () => {
    const kinds = render().map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === 'PodMonitor' || kind === 'PrometheusRule')).toEqual([]);
  });

  it('is taken by the Prometheus operator, and found by the labels that it looks for', () => {
    expect(objects.flatMap(problemsOf)).toEqual([]);
    for (const kind of ['PodMonitor', 'PrometheusRule'])
      expect(only(objects, kind).metadata.labels).toMatchObject({ release: 'prometheus' });
  });

  it("scrapes the agents' pods at the port of their metrics", () => {
    const monitor = only(objects, 'PodMonitor') as unknown as {
      spec: { selector: { matchLabels: object }; podMetricsEndpoints: { port: string }[] };
    };
    const daemonSet = only(objects, 'DaemonSet') as unknown as {
      spec: { selector: object; template: { spec: { containers: { ports: { name: string }[] }[] } } };
    };
    expect(daemonSet.spec.selector).toEqual(monitor.spec.selector);
    const ports = daemonSet.spec.template.spec.containers.flatMap((one) => one.ports.map(({ name }) => name));
    expect(ports).toContain(monitor.spec.podMetricsEndpoints[0]?.port);
  });

  it('hands rules and dashboard on as they are', () => {
    expect(only(objects, 'PrometheusRule')).toMatchObject({ spec: { groups: [{ rules: [RULE] }] } });
    const map = only(objects, 'ConfigMap', 'snapshot-dashboard') as unknown as { data: { 'snapshot.json': string } };
    expect(JSON.parse(map.data['snapshot.json'])).toEqual(DASHBOARD);
    expect(only(objects, 'ConfigMap', 'snapshot-dashboard').metadata).toMatchObject({
      labels: { grafana_dashboard: '1' },
      annotations: { folder: 'GPU' },
    });
  });
});

describe('the network policy', () => {
  const rules = (values: object) =>
    (
      only(render(values), 'NetworkPolicy', 'snapshot-agent') as unknown as {
        spec: { ingress: { ports: { port: string }[]; from?: object[] }[] };
      }
    ).spec.ingress;
  const monitoring = [{ namespaceSelector: { matchLabels: { name: 'monitoring' } } }];

  it('lets everybody read metrics, unless it is told who', () => {
    expect(rules({})).toEqual([{ ports: [{ port: 'http', protocol: 'TCP' }] }]);
    expect(rules({ networkPolicy: { metricsFrom: monitoring } })[0]?.from).toEqual(monitoring);
  });

  it('lets only the operator, and who is named, reach the gRPC service', () => {
    const cidr = { ipBlock: { cidr: '10.0.0.0/8' } };
    const grpc = rules({ api: { tcp: { enabled: true } }, networkPolicy: { grpcFrom: [cidr] } })[1];
    expect(grpc?.ports).toEqual([{ port: 'grpc', protocol: 'TCP' }]);
    expect(JSON.stringify(grpc?.from?.[0])).toContain('snapshot-operator');
    expect(grpc?.from?.[1]).toEqual(cidr);
    expect(grpc?.from).toHaveLength(2);
  });

  it('is not there where it is switched off', () => {
    const kinds = render({ networkPolicy: { enabled: false } }).map(({ kind }) => kind);
    expect(kinds).not.toContain('NetworkPolicy');
  });
});
