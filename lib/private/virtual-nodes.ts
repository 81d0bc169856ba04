import { k8s } from 'cdk8s-plus-28';

/**
 * Labels of virtual nodes, which have no cgroups that a pod could write. Their projects document these
 * labels, or set them in their code. We read all of this in 2026, and ran none of it.
 */
export const NO_VIRTUAL_NODES: k8s.NodeSelectorRequirement[] = [
  {
    key: 'type',
    operator: 'NotIn',
    values: [
      // virtual-kubelet and projects built on it: the add-on of AKS, Alibaba's ACK, Huawei's CCE, Kip,
      // Admiralty.
      // https://github.com/virtual-kubelet/virtual-kubelet/blob/master/node/nodeutil/controller.go
      // https://learn.microsoft.com/en-us/azure/aks/virtual-nodes-cli
      // https://openkruise.io/docs/user-manuals/workloadspread
      // https://github.com/admiraltyio/admiralty/issues/114
      'virtual-kubelet',
      // KWOK, whose fake nodes report every pod as running.
      // https://kwok.sigs.k8s.io/docs/user/kwok-manage-nodes-and-pods/
      'kwok',
    ],
  },
  // AWS Fargate. https://github.com/aws/containers-roadmap/issues/1976
  { key: 'eks.amazonaws.com/compute-type', operator: 'NotIn', values: ['fargate'] },
  // Azure's "virtual nodes on Azure Container Instances", the successor of the add-on.
  // https://github.com/microsoft/virtualnodesOnAzureContainerInstances
  { key: 'virtualization', operator: 'NotIn', values: ['virtualnode2'] },
  // Liqo. https://github.com/liqotech/liqo/blob/master/docs/faq/faq.md
  { key: 'liqo.io/type', operator: 'DoesNotExist' },
  // interLink. https://github.com/interlink-hq/interLink/blob/main/cmd/virtual-kubelet/main.go
  { key: 'virtual-node.interlink/type', operator: 'DoesNotExist' },
  // Tencent's super nodes. https://www.tencentcloud.com/document/product/457/40027
  { key: 'node.kubernetes.io/instance-type', operator: 'NotIn', values: ['eklet'] },
  // Oracle's virtual nodes, as OpenCost recognizes them.
  // https://github.com/opencost/opencost/blob/develop/pkg/cloud/oracle/provider.go
  { key: 'node-role.kubernetes.io/virtual-node', operator: 'DoesNotExist' },
];

/** An affinity for every node that is not virtual. */
export const REAL_NODES: k8s.Affinity = {
  nodeAffinity: {
    requiredDuringSchedulingIgnoredDuringExecution: {
      nodeSelectorTerms: [{ matchExpressions: NO_VIRTUAL_NODES }],
    },
  },
};
