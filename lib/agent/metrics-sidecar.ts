import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { METRICS_DIR, METRICS_NAME, METRICS_PORT } from './metrics';

/** The Prometheus project's own image. */
export const NODE_EXPORTER_IMAGE =
  'quay.io/prometheus/node-exporter:v1.12.1@sha256:1b4e4438faca4dd7e001dd445d161a4a2091b0fededa84093b3a8dfeae1f1be0';

const MOUNT_PATH = '/run/metrics';

/**
 * An empty volume over the place of the service account's token, which every container of the pod
 * would have otherwise: the API server adds no token where something is mounted already.
 * https://github.com/kubernetes/kubernetes/blob/master/plugin/pkg/admission/serviceaccount/admission.go
 */
export const NO_TOKEN_VOLUME: k8s.Volume = {
  name: 'no-token',
  emptyDir: { medium: 'Memory', sizeLimit: k8s.Quantity.fromString('4Ki') },
};

/** node-exporter with nothing but its textfile collector, which serves the files that the agent writes. */
export function metricsSidecar(
  image: string,
  imagePullPolicy: kplus.ImagePullPolicy,
  resources: k8s.ResourceRequirements,
  runVolume: string,
): k8s.Container {
  const port = k8s.IntOrString.fromString(METRICS_NAME);
  return {
    name: METRICS_NAME,
    image,
    imagePullPolicy,
    args: [
      '--collector.disable-defaults',
      '--collector.textfile',
      `--collector.textfile.directory=${MOUNT_PATH}`,
      `--web.listen-address=:${METRICS_PORT}`,
      '--web.disable-exporter-metrics',
    ],
    ports: [{ name: METRICS_NAME, containerPort: METRICS_PORT, protocol: 'TCP' }],
    readinessProbe: {
      httpGet: { path: '/metrics', port },
      periodSeconds: 30,
      timeoutSeconds: 5,
      failureThreshold: 3,
    },
    livenessProbe: {
      httpGet: { path: '/', port },
      initialDelaySeconds: 30,
      periodSeconds: 60,
      timeoutSeconds: 10,
      failureThreshold: 3,
    },
    resources,
    securityContext: {
      runAsUser: 65534,
      runAsGroup: 65534,
      runAsNonRoot: true,
      privileged: false,
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    },
    // Neither the agent's FIFO and links nor anything of the node. The kubelet makes the directory
    // if the agent has not; the agent must not replace it, or this mount would show the old one.
    volumeMounts: [
      { name: runVolume, mountPath: MOUNT_PATH, subPath: METRICS_DIR, readOnly: true },
      {
        name: NO_TOKEN_VOLUME.name,
        mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
        readOnly: true,
      },
    ],
  };
}
