import { decodeShape } from "./decode.ts";
import { type KubeletConfiguration, kubeletShape } from "./kubelet-configuration.ts";

/** A KubeletConfiguration in which nobody said anything. */
export function kubeletDefaults(): KubeletConfiguration {
  return decodeShape("KubeletConfiguration", kubeletShape, undefined).value;
}
