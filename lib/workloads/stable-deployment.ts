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
 * A Deployment of cdk8s-plus without the hash of its construct path: the selector is immutable, and a
 * label of the pods that changes rolls them, when all that has changed is the id of a construct.
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
    // The L2 pod knows neither; on the pod, seccomp covers containers that are added later, too.
    ApiObject.of(this).addJsonPatch(
      JsonPatch.add('/spec/template/spec/enableServiceLinks', false),
      JsonPatch.add('/spec/template/spec/securityContext/seccompProfile', {
        type: 'RuntimeDefault',
      }),
    );
    if (imagePullSecrets.length > 0) {
      // The L2 Deployment takes one secret.
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

  /** How Services and NetworkPolicies of cdk8s-plus find the pods, which is by that hash otherwise. */
  public override toPodSelectorConfig(): kplus.PodSelectorConfig {
    return {
      labelSelector: kplus.LabelSelector.of({ labels: { ...this.selector } }),
      namespaces: this.metadata.namespace ? { names: [this.metadata.namespace] } : undefined,
    };
  }
}
