import { Duration, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { removeNamespace } from '../private/cluster-scoped';
import { removeEmptyFields } from '../private/empty-fields';
import { StableDeployment } from './stable-deployment';

/** The Kubernetes project's own image. */
export const AUTOSCALER_IMAGE = 'registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.10.3';

/** The suffix of the names of the autoscaler's objects. */
export const AUTOSCALER_SUFFIX = '-autoscaler';

const HEALTH_PORT = 8080;

export interface ClusterProportionalAutoscalerProps {
  /** The name of the Deployment to scale. */
  readonly target: string;
  readonly namespace: string;
  readonly image: string;
  readonly labels: Record<string, string>;
  readonly imagePullSecrets: readonly string[];
}

/**
 * The cluster-proportional-autoscaler, which gives a Deployment as many replicas as there are nodes. It
 * counts cordoned nodes, because a pod that tolerates every taint runs there.
 *
 * Its permissions are those that its source needs. It watches the nodes, reads the one ConfigMap every ten
 * seconds, and gets and updates the scale of the one Deployment in apps/v1. It creates a ConfigMap only with
 * `--default-params`, and asks another API for the scale only if apps/v1 forbids it.
 * https://github.com/kubernetes-sigs/cluster-proportional-autoscaler/blob/master/pkg/autoscaler/k8sclient/k8sclient.go
 */
export class ClusterProportionalAutoscaler extends Construct {
  public constructor(scope: Construct, id: string, props: ClusterProportionalAutoscalerProps) {
    super(scope, id);
    const name = `${props.target}${AUTOSCALER_SUFFIX}`;
    const selector = { 'app.kubernetes.io/name': name, 'app.kubernetes.io/instance': name };
    const labels = { ...props.labels, ...selector };
    const metadata = { name, namespace: props.namespace, labels };
    const params = new kplus.ConfigMap(this, 'ConfigMap', {
      metadata,
      data: { linear: JSON.stringify({ nodesPerReplica: 1, includeUnschedulableNodes: true }) },
    });
    const account = new kplus.ServiceAccount(this, 'ServiceAccount', {
      metadata,
      automountToken: false,
    });
    this.allowScaling(metadata, props.target, params, account);
    // Neither name contains a dot, so the joined name is unique.
    this.allowWatchingNodes({ name: `${props.namespace}.${name}`, labels }, account);
    new StableDeployment(this, 'Deployment', {
      metadata,
      labels,
      selector,
      imagePullSecrets: props.imagePullSecrets,
      replicas: 1,
      serviceAccount: account,
      automountServiceAccountToken: true,
      containers: [container(props)],
    });
    new kplus.NetworkPolicy(this, 'NetworkPolicy', {
      metadata,
      selector: kplus.Pods.select(this, 'Pods', { labels: selector }),
      ingress: { default: kplus.NetworkPolicyTrafficDefault.DENY },
    });
  }

  private allowScaling(
    metadata: { name: string; namespace: string; labels: Record<string, string> },
    target: string,
    params: kplus.ConfigMap,
    account: kplus.ServiceAccount,
  ): void {
    const role = new kplus.Role(this, 'Role', { metadata });
    role.allow(['get'], params);
    // cdk8s-plus has no resource for the scale of one Deployment.
    const scale = { apiGroup: 'apps', resourceType: 'deployments/scale', resourceName: target };
    role.allow(['get', 'update'], scale);
    const binding = new kplus.RoleBinding(this, 'RoleBinding', { metadata, role });
    binding.addSubjects(account);
    removeEmptyFields(binding, '/subjects/0/apiGroup');
  }

  private allowWatchingNodes(
    metadata: { name: string; labels: Record<string, string> },
    account: kplus.ServiceAccount,
  ): void {
    const role = new kplus.ClusterRole(this, 'ClusterRole', { metadata });
    role.allow(['list', 'watch'], kplus.ApiResource.NODES);
    removeEmptyFields(role, '/rules/0/resourceNames');
    removeNamespace(role);
    const binding = new kplus.ClusterRoleBinding(this, 'ClusterRoleBinding', { metadata, role });
    binding.addSubjects(account);
    removeEmptyFields(binding, '/subjects/0/apiGroup');
    removeNamespace(binding);
  }
}

function container(props: ClusterProportionalAutoscalerProps): kplus.ContainerProps {
  return {
    name: 'autoscaler',
    image: props.image,
    imagePullPolicy: kplus.ImagePullPolicy.IF_NOT_PRESENT,
    args: [
      `--namespace=${props.namespace}`,
      `--target=deployment/${props.target}`,
      `--configmap=${props.target}${AUTOSCALER_SUFFIX}`,
      // Otherwise it writes log files, but its root file system is read-only.
      '--logtostderr=true',
    ],
    // Ready if the last check of the nodes and the last change of the scale succeeded.
    readiness: kplus.Probe.fromHttpGet('/last-poll', {
      port: HEALTH_PORT,
      periodSeconds: Duration.seconds(10),
      timeoutSeconds: Duration.seconds(5),
      failureThreshold: 3,
    }),
    // It listens only after it has seen the nodes.
    liveness: kplus.Probe.fromHttpGet('/healthz', {
      port: HEALTH_PORT,
      initialDelaySeconds: Duration.seconds(30),
      periodSeconds: Duration.seconds(60),
      timeoutSeconds: Duration.seconds(10),
      failureThreshold: 3,
    }),
    resources: {
      cpu: { request: kplus.Cpu.millis(10), limit: kplus.Cpu.millis(100) },
      memory: { request: Size.mebibytes(32), limit: Size.mebibytes(128) },
    },
    securityContext: {
      user: 65534,
      group: 65534,
      ensureNonRoot: true,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: [kplus.Capability.ALL] },
    },
  };
}
