/** The version of this package, as package.json has it: a label of the objects that it makes, and not of their pods. */
export const VERSION_LABEL = { 'app.kubernetes.io/version': '0.1.0' };
