/**
 * A kind whose pods are known. In its JSON pointers `*` is every element of a list or map. A step with `?` is
 * optional: without it, that part has no pods.
 */
export interface KnownKind {
  readonly apiGroup: string;
  readonly kind: string;

  /** Whole pod templates: `metadata`, and all containers in `spec`. */
  readonly podTemplates?: readonly string[];

  /**
   * The objects with the `labels` and `annotations` that the controller gives to the pods.
   * Missing parents are created. The controller may add containers.
   */
  readonly podMetadata?: readonly string[];

  /** A field that names the workload that has the pods. An object with this field has none. */
  readonly refersBy?: string;

  /** Why an object without any of these fields cannot label its pods. */
  readonly cannot?: string;

  /** The remedy in that case, for messages. */
  readonly remedy?: string;

  /** The source of these facts. */
  readonly source: string;
}

const KUBERNETES = 'https://kubernetes.io/docs/reference/kubernetes-api/';

/** Several kinds of one project with the same fields. */
function kinds(
  apiGroup: string,
  names: readonly string[],
  rest: Omit<KnownKind, 'apiGroup' | 'kind'>,
): KnownKind[] {
  return names.map((kind) => ({ apiGroup, kind, ...rest }));
}

function rayCluster(at: string): string[] {
  return [`${at}/headGroupSpec/template`, `${at}/workerGroupSpecs?/*/template`];
}

const TEMPLATE = { podTemplates: ['/spec/template'] };

/** All kinds whose pods are known. docs/kinds.md is generated from this table. */
export const KNOWN_KINDS: readonly KnownKind[] = [
  ...kinds('', ['Pod'], { podTemplates: [''], source: `${KUBERNETES}core/pod-v1/` }),
  ...kinds('', ['PodTemplate'], {
    podTemplates: ['/template'],
    source: `${KUBERNETES}core/pod-template-v1/`,
  }),
  ...kinds('', ['ReplicationController'], {
    ...TEMPLATE,
    source: `${KUBERNETES}core/replication-controller-v1/`,
  }),
  ...kinds('apps', ['DaemonSet', 'Deployment', 'ReplicaSet', 'StatefulSet'], {
    ...TEMPLATE,
    source: `${KUBERNETES}apps/`,
  }),
  ...kinds('batch', ['Job'], { ...TEMPLATE, source: `${KUBERNETES}batch/job-v1/` }),
  ...kinds('batch', ['CronJob'], {
    podTemplates: ['/spec/jobTemplate/spec/template'],
    source: `${KUBERNETES}batch/cron-job-v1/`,
  }),
  ...kinds('apps.openshift.io', ['DeploymentConfig'], {
    ...TEMPLATE,
    source: 'https://github.com/openshift/api/blob/master/apps/v1/types.go',
  }),

  ...kinds('argoproj.io', ['Rollout'], {
    ...TEMPLATE,
    refersBy: '/spec/workloadRef',
    source: 'https://argo-rollouts.readthedocs.io/en/stable/features/specification/',
  }),
  ...kinds('argoproj.io', ['Workflow', 'WorkflowTemplate', 'ClusterWorkflowTemplate'], {
    podMetadata: ['/spec/podMetadata', '/spec/artifactGC?/podMetadata'],
    source: 'https://argo-workflows.readthedocs.io/en/latest/fields/',
  }),
  ...kinds('argoproj.io', ['CronWorkflow'], {
    podMetadata: ['/spec/workflowSpec/podMetadata', '/spec/workflowSpec/artifactGC?/podMetadata'],
    source: 'https://argo-workflows.readthedocs.io/en/latest/fields/',
  }),
  ...kinds('serving.knative.dev', ['Service', 'Configuration'], {
    ...TEMPLATE,
    source:
      'https://github.com/knative/specs/blob/main/specs/serving/knative-api-specification-1.0.md',
  }),
  ...kinds('keda.sh', ['ScaledJob'], {
    podTemplates: ['/spec/jobTargetRef/template'],
    source: 'https://keda.sh/docs/latest/reference/scaledjob-spec/',
  }),
  ...kinds('jobset.x-k8s.io', ['JobSet'], {
    podTemplates: ['/spec/replicatedJobs/*/template/spec/template'],
    source:
      'https://github.com/kubernetes-sigs/jobset/blob/main/api/jobset/v1alpha2/jobset_types.go',
  }),
  ...kinds('leaderworkerset.x-k8s.io', ['LeaderWorkerSet'], {
    podTemplates: [
      '/spec/leaderWorkerTemplate/leaderTemplate?',
      '/spec/leaderWorkerTemplate/workerTemplate',
    ],
    source:
      'https://github.com/kubernetes-sigs/lws/blob/main/api/leaderworkerset/v1/leaderworkerset_types.go',
  }),
  ...kinds('apps.kruise.io', ['CloneSet', 'StatefulSet', 'DaemonSet', 'BroadcastJob'], {
    ...TEMPLATE,
    source: 'https://github.com/openkruise/kruise/tree/master/apis/apps/v1alpha1',
  }),
  ...kinds('apps.kruise.io', ['AdvancedCronJob'], {
    podTemplates: [
      '/spec/template/jobTemplate?/spec/template',
      '/spec/template/broadcastJobTemplate?/spec/template',
    ],
    source:
      'https://github.com/openkruise/kruise/blob/master/apis/apps/v1alpha1/advancedcronjob_types.go',
  }),
  ...kinds('apps.kruise.io', ['UnitedDeployment'], {
    podTemplates: [
      '/spec/template/statefulSetTemplate?/spec/template',
      '/spec/template/advancedStatefulSetTemplate?/spec/template',
      '/spec/template/cloneSetTemplate?/spec/template',
      '/spec/template/deploymentTemplate?/spec/template',
    ],
    source:
      'https://github.com/openkruise/kruise/blob/master/apis/apps/v1alpha1/uniteddeployment_types.go',
  }),
  ...kinds('batch.volcano.sh', ['Job'], {
    podTemplates: ['/spec/tasks/*/template'],
    source: 'https://github.com/volcano-sh/apis/blob/master/pkg/apis/batch/v1alpha1/job.go',
  }),
  ...kinds('ray.io', ['RayCluster'], {
    podTemplates: rayCluster('/spec'),
    source:
      'https://github.com/ray-project/kuberay/blob/master/ray-operator/apis/ray/v1/raycluster_types.go',
  }),
  ...kinds('ray.io', ['RayJob'], {
    podTemplates: [...rayCluster('/spec/rayClusterSpec?'), '/spec/submitterPodTemplate?'],
    source:
      'https://github.com/ray-project/kuberay/blob/master/ray-operator/apis/ray/v1/rayjob_types.go',
  }),
  ...kinds('ray.io', ['RayCronJob'], {
    podTemplates: [
      ...rayCluster('/spec/jobTemplate/rayClusterSpec?'),
      '/spec/jobTemplate/submitterPodTemplate?',
    ],
    source:
      'https://github.com/ray-project/kuberay/blob/master/ray-operator/apis/ray/v1/raycronjob_types.go',
  }),
  ...kinds('ray.io', ['RayService'], {
    podTemplates: rayCluster('/spec/rayClusterConfig'),
    source:
      'https://github.com/ray-project/kuberay/blob/master/ray-operator/apis/ray/v1/rayservice_types.go',
  }),
  ...[
    ['TFJob', 'tf'],
    ['PyTorchJob', 'pytorch'],
    ['MPIJob', 'mpi'],
    ['XGBoostJob', 'xgb'],
    ['PaddleJob', 'paddle'],
    ['JAXJob', 'jax'],
  ].flatMap(([kind, prefix]) =>
    kinds('kubeflow.org', [String(kind)], {
      podTemplates: [`/spec/${prefix}ReplicaSpecs/*/template`],
      source: 'https://github.com/kubeflow/trainer/tree/release-1.9/pkg/apis/kubeflow.org/v1',
    }),
  ),
  ...kinds('trainer.kubeflow.org', ['TrainJob'], {
    podMetadata: [
      '/spec/podTemplateOverrides?/*/metadata',
      '/spec/runtimePatches?/*/trainingRuntimeSpec?/template?/spec?/replicatedJobs?/*/template/spec/template/metadata',
    ],
    cannot: 'its runtime creates them, and it has no runtimePatches or podTemplateOverrides',
    remedy: 'runtimePatches, or podTemplateOverrides in older versions, for all of its jobs',
    source:
      'https://github.com/kubeflow/trainer/blob/master/pkg/apis/trainer/v1alpha1/trainjob_types.go',
  }),
  ...kinds('trainer.kubeflow.org', ['TrainingRuntime', 'ClusterTrainingRuntime'], {
    podTemplates: ['/spec/template/spec/replicatedJobs/*/template/spec/template'],
    source:
      'https://github.com/kubeflow/trainer/blob/master/pkg/apis/trainer/v1alpha1/trainingruntime_types.go',
  }),
  ...kinds('sparkoperator.k8s.io', ['SparkApplication'], {
    podMetadata: ['/spec/driver', '/spec/executor'],
    source: 'https://github.com/kubeflow/spark-operator/blob/master/docs/api-docs.md',
  }),
  ...kinds('sparkoperator.k8s.io', ['ScheduledSparkApplication'], {
    podMetadata: ['/spec/template/driver', '/spec/template/executor'],
    source: 'https://github.com/kubeflow/spark-operator/blob/master/docs/api-docs.md',
  }),
  ...kinds('flink.apache.org', ['FlinkDeployment'], {
    podMetadata: ['/spec/podTemplate/metadata'],
    source:
      'https://github.com/apache/flink-kubernetes-operator/blob/main/docs/content/docs/custom-resource/pod-template.md',
  }),
  ...kinds('postgresql.cnpg.io', ['Cluster'], {
    podMetadata: ['/spec/inheritedMetadata'],
    source: 'https://github.com/cloudnative-pg/cloudnative-pg/blob/main/api/v1/cluster_types.go',
  }),
  ...kinds('postgresql.cnpg.io', ['Pooler'], {
    podMetadata: ['/spec/template/metadata'],
    source: 'https://github.com/cloudnative-pg/cloudnative-pg/blob/main/api/v1/pooler_types.go',
  }),
  ...kinds('acid.zalan.do', ['postgresql'], {
    cannot: 'they get only the labels that inherited_labels of the operator lists',
    remedy:
      'workloadKinds: [{ apiGroup: "acid.zalan.do", kind: "postgresql", podMetadata: ["/metadata"] }] if inherited_labels has the key',
    source:
      'https://github.com/zalando/postgres-operator/blob/master/docs/reference/operator_parameters.md',
  }),
  ...kinds('postgres-operator.crunchydata.com', ['PostgresCluster'], {
    podMetadata: ['/spec/metadata'],
    source:
      'https://github.com/CrunchyData/postgres-operator/blob/main/internal/controller/postgrescluster/instance.go',
  }),
  ...kinds('postgres-operator.crunchydata.com', ['PGAdmin'], {
    podMetadata: ['/spec/metadata'],
    source:
      'https://github.com/CrunchyData/postgres-operator/blob/main/internal/controller/standalone_pgadmin/statefulset.go',
  }),
  ...kinds('kafka.strimzi.io', ['Kafka'], {
    podMetadata: ['kafka', 'zookeeper', 'entityOperator', 'cruiseControl', 'kafkaExporter'].map(
      (part) => `/spec/${part}?/template/pod/metadata`,
    ),
    source:
      'https://github.com/strimzi/strimzi-kafka-operator/blob/main/documentation/api/io.strimzi.api.kafka.model.common.template.PodTemplate.adoc',
  }),
  ...kinds('kafka.strimzi.io', ['KafkaNodePool', 'KafkaMirrorMaker2', 'KafkaBridge'], {
    podMetadata: ['/spec/template/pod/metadata'],
    source:
      'https://github.com/strimzi/strimzi-kafka-operator/blob/main/documentation/api/io.strimzi.api.kafka.model.common.template.PodTemplate.adoc',
  }),
  ...kinds('kafka.strimzi.io', ['KafkaConnect'], {
    podMetadata: ['/spec/template/pod/metadata', '/spec/template/buildPod/metadata'],
    source:
      'https://github.com/strimzi/strimzi-kafka-operator/blob/main/documentation/api/io.strimzi.api.kafka.model.common.template.PodTemplate.adoc',
  }),
  ...kinds('elasticsearch.k8s.elastic.co', ['Elasticsearch'], {
    podMetadata: ['/spec/nodeSets/*/podTemplate/metadata'],
    source: 'https://www.elastic.co/docs/deploy-manage/deploy/cloud-on-k8s/customize-pods',
  }),
  ...[
    ['kibana', 'Kibana'],
    ['apm', 'ApmServer'],
    ['enterprisesearch', 'EnterpriseSearch'],
    ['maps', 'ElasticMapsServer'],
    ['logstash', 'Logstash'],
  ].flatMap(([group, kind]) =>
    kinds(`${group}.k8s.elastic.co`, [String(kind)], {
      podMetadata: ['/spec/podTemplate/metadata'],
      source: 'https://www.elastic.co/docs/deploy-manage/deploy/cloud-on-k8s/customize-pods',
    }),
  ),
  ...kinds('beat.k8s.elastic.co', ['Beat'], {
    podMetadata: ['daemonSet', 'deployment'].map((part) => `/spec/${part}?/podTemplate/metadata`),
    source: 'https://github.com/elastic/cloud-on-k8s/blob/main/pkg/apis/beat/v1beta1/beat_types.go',
  }),
  ...kinds('agent.k8s.elastic.co', ['Agent'], {
    podMetadata: ['daemonSet', 'deployment', 'statefulSet'].map(
      (part) => `/spec/${part}?/podTemplate/metadata`,
    ),
    source:
      'https://github.com/elastic/cloud-on-k8s/blob/main/pkg/apis/agent/v1alpha1/agent_types.go',
  }),
  ...kinds('serving.kserve.io', ['InferenceService'], {
    podMetadata: ['/spec/predictor', '/spec/transformer?', '/spec/explainer?'],
    source:
      'https://github.com/kserve/kserve/blob/master/python/kserve/docs/V1beta1ComponentExtensionSpec.md',
  }),
  ...kinds('kubevirt.io', ['VirtualMachine'], {
    podMetadata: ['/spec/template/metadata'],
    source:
      'https://github.com/kubevirt/kubevirt/blob/main/pkg/virt-controller/services/template.go',
  }),
  ...kinds('kubevirt.io', ['VirtualMachineInstanceReplicaSet'], {
    podMetadata: ['/spec/template/metadata'],
    source: 'https://kubevirt.io/user-guide/user_workloads/replicaset/',
  }),
  ...kinds('kubevirt.io', ['VirtualMachineInstance'], {
    podMetadata: ['/metadata'],
    source:
      'https://github.com/kubevirt/kubevirt/blob/main/pkg/virt-controller/services/template.go',
  }),
  ...kinds('pool.kubevirt.io', ['VirtualMachinePool'], {
    podMetadata: ['/spec/virtualMachineTemplate/spec/template/metadata'],
    source: 'https://kubevirt.io/user-guide/user_workloads/pool/',
  }),
  ...kinds(
    'monitoring.coreos.com',
    ['Alertmanager', 'Prometheus', 'PrometheusAgent', 'ThanosRuler'],
    {
      podMetadata: ['/spec/podMetadata'],
      source: 'https://prometheus-operator.dev/docs/api-reference/api/',
    },
  ),
  ...kinds('opentelemetry.io', ['OpenTelemetryCollector'], {
    podMetadata: ['/metadata'],
    source:
      'https://github.com/open-telemetry/opentelemetry-operator/blob/main/internal/manifests/manifestutils/labels.go',
  }),
  ...kinds('tekton.dev', ['Task', 'TaskRun', 'Pipeline', 'PipelineRun', 'ClusterTask'], {
    podMetadata: ['/metadata'],
    source: 'https://github.com/tektoncd/pipeline/blob/main/docs/labels.md',
  }),
];

/** An API group, or some of its kinds, whose objects describe pods of other objects. */
interface Describing {
  readonly apiGroup: RegExp;
  readonly kinds?: readonly string[];
  readonly what: string;
}

/** Kinds that contain manifests, patterns or values, but not their own pods. */
const DESCRIBING: readonly Describing[] = [
  {
    apiGroup:
      /(^|\.)(kyverno\.io|gatekeeper\.sh|kubewarden\.io|jspolicy\.com|validating-admission-policy\.k8s\.io)$/,
    what: 'it belongs to a policy engine',
  },
  { apiGroup: /^admissionregistration\.k8s\.io$/, what: 'it is an admission policy' },
  { apiGroup: /^apiextensions\.k8s\.io$/, what: 'it defines a custom resource' },
  {
    apiGroup:
      /(^|\.)(fluxcd\.io|cattle\.io|carvel\.dev|k14s\.io|helm\.sh|oam\.dev|kargo\.akuity\.io|kustomize\.config\.k8s\.io|config\.kubernetes\.io|addons\.cluster\.x-k8s\.io)$/,
    what: 'it belongs to a tool that installs other manifests, such as a Helm chart',
  },
  {
    apiGroup: /^argoproj\.io$/,
    kinds: ['Application', 'ApplicationSet', 'AppProject'],
    what: 'it belongs to a tool that installs other manifests, such as a Helm chart',
  },
  {
    apiGroup: /(^|\.)(crossplane\.io|upbound\.io|kro\.run|metacontroller\.k8s\.io)$/,
    what: 'it creates other objects',
  },
  { apiGroup: /^argoproj\.io$/, kinds: ['Sensor'], what: 'it creates other objects' },
  {
    apiGroup:
      /^(template\.openshift\.io|triggers\.tekton\.dev|(.*\.)?open-cluster-management\.io|(.*\.)?karmada\.io)$/,
    what: 'it creates other objects',
  },
  {
    apiGroup: /^apps\.kruise\.io$/,
    kinds: ['SidecarSet', 'ResourceDistribution'],
    what: 'it changes pods of other objects',
  },
];

/** API groups of Kubernetes itself. Their kinds that are not in the table create no pods. */
const OF_KUBERNETES =
  /^(|apps|batch|autoscaling|policy|((admissionregistration|apiextensions|apiregistration|authentication|authorization|certificates|coordination|discovery|events|flowcontrol\.apiserver|internal\.apiserver|networking|node|rbac\.authorization|resource|scheduling|storage|storagemigration)\.k8s\.io))$/;

const BY_KIND = new Map<string, KnownKind[]>();
for (const row of KNOWN_KINDS) {
  BY_KIND.set(row.kind, [...(BY_KIND.get(row.kind) ?? []), row]);
}

export function knownKind(group: string, kind: string): KnownKind | undefined {
  return BY_KIND.get(kind)?.find(({ apiGroup }) => apiGroup === group);
}

/** Why objects of a kind only describe pods of other objects, if they do. */
export function describesOthers(group: string, kind: string): string | undefined {
  return DESCRIBING.find(
    ({ apiGroup, kinds: some }) => apiGroup.test(group) && (some?.includes(kind) ?? true),
  )?.what;
}

export function isOfKubernetes(group: string): boolean {
  return OF_KUBERNETES.test(group);
}

/** The workloads of Kubernetes itself, for messages. */
export const WORKLOAD_KINDS = KNOWN_KINDS.filter(
  ({ apiGroup, kind }) => isOfKubernetes(apiGroup) && kind !== 'PodTemplate',
)
  .map(({ kind }) => kind)
  .sort()
  .join(', ');
