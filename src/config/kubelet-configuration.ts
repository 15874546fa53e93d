import { kubeletNodeFields } from "./kubelet-node-fields.ts";
import { kubeletPodFields } from "./kubelet-pod-fields.ts";
import { kubeletServerFields } from "./kubelet-server-fields.ts";
import { object, type ValueOf } from "./shape.ts";

export const kubeletApiVersion = "kubelet.config.k8s.io/v1beta1";

/** All fields of KubeletConfiguration (1.36). */
export const kubeletShape = object({
  ...kubeletServerFields,
  ...kubeletNodeFields,
  ...kubeletPodFields,
});

export type KubeletConfiguration = ValueOf<typeof kubeletShape>;
