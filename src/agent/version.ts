import packageJson from "../../package.json" with { type: "json" };

/** Our own version, from package.json. */
export const remoraVersion = packageJson.version;

/** The Kubernetes release whose node behaviour this implements. */
export const kubernetesVersion = "v1.36.2";

/** `nodeInfo.kubeletVersion`: semver with the API level first, because skew checks and schedulers read it. */
export const kubeletVersion = `${kubernetesVersion}+remora-${remoraVersion}`;
