/**
 * Excludes an object that contains `${…}` from the variable substitution of Flux, which would empty or refuse
 * it. Other tools ignore this annotation.
 * https://fluxcd.io/flux/components/kustomize/kustomizations/#post-build-variable-substitution
 */
export const NO_SUBSTITUTION = { 'kustomize.toolkit.fluxcd.io/substitute': 'disabled' };
