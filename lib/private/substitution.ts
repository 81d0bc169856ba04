/**
 * Has Flux leave an object alone that has `${…}` in it, which its variable substitution would replace with
 * nothing, or refuse. Nobody else reads it.
 * https://fluxcd.io/flux/components/kustomize/kustomizations/#post-build-variable-substitution
 */
export const NO_SUBSTITUTION = { 'kustomize.toolkit.fluxcd.io/substitute': 'disabled' };
