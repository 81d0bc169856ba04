/** The curl project's own image: busybox ash with inotifyd, and a curl that verifies certificates. */
export const AGENT_IMAGE =
  'docker.io/curlimages/curl:8.20.0@sha256:b3f1fb2a51d923260350d21b8654bbc607164a987e2f7c84a0ac199a67df812a';
