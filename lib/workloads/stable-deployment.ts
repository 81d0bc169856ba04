import { ApiObject, ApiObjectMetadataDefinition, JsonPatch } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { removeEmptyFields } from '../private/empty-fields';

export interface StableDeploymentProps extends kplus.DeploymentProps {
  readonly labels: { readonly [key: string]: string };
  readonly selector: { readonly [key: string]: string };
  readonly imagePullSecrets: readonly string[];
}

/**
 * A Deployment of cdk8s-plus without the hash of its construct path. With the hash, another construct id
 * would restart the pods, and change the selector, which is immutable.
 */
export class StableDeployment extends kplus.Deployment {
  private readonly pods: ApiObjectMetadataDefinition;
  private readonly selector: { readonly [key: string]: string };

  public constructor(scope: Construct, id: string, props: StableDeploymentProps) {
    const { labels, selector, imagePullSecrets, ...others } = props;
    super(scope, id, { ...others, select: false });
    this.selector = selector;
    this.pods = new ApiObjectMetadataDefinition({ labels, apiObject: this.apiObject });
    this.select(kplus.LabelSelector.of({ labels: selector }));
    // cdk8s-plus has no options for these. On the pod, seccomp also covers containers that are added later.
    ApiObject.of(this).addJsonPatch(
      JsonPatch.add('/spec/template/spec/enableServiceLinks', false),
      JsonPatch.add('/spec/template/spec/securityContext/seccompProfile', {
        type: 'RuntimeDefault',
      }),
    );
    if (imagePullSecrets.length > 0) {
      // cdk8s-plus takes only one secret.
      ApiObject.of(this).addJsonPatch(
        JsonPatch.add(
          '/spec/template/spec/imagePullSecrets',
          imagePullSecrets.map((name) => ({ name })),
        ),
      );
    }
    removeEmptyFields(this, '/spec/minReadySeconds', '/spec/template/spec/hostNetwork');
  }

  public override get podMetadata(): ApiObjectMetadataDefinition {
    return this.pods;
  }

  /** Makes Services and NetworkPolicies of cdk8s-plus select the pods without that hash. */
  public override toPodSelectorConfig(): kplus.PodSelectorConfig {
    return {
      labelSelector: kplus.LabelSelector.of({ labels: { ...this.selector } }),
      namespaces: this.metadata.namespace ? { names: [this.metadata.namespace] } : undefined,
    };
  }
}
