/** The version in package.json. The objects of this library have it as a label, but their pods do not. */
export const VERSION_LABEL = { 'app.kubernetes.io/version': '0.1.0' };
