/**
 * A configuration for the plug-ins that every distribution has: a bridge, and host ports.
 *
 * @param bridge What is said to the bridge besides, its `ipam` above all.
 * @param more Plug-ins behind these two, and other members of the list.
 */
export function bridgeList(
  bridge: object,
  { plugins = [], ...more }: { readonly plugins?: readonly object[]; readonly name?: string } = {},
): object {
  return {
    cniVersion: "1.0.0",
    name: "pods",
    plugins: [
      { type: "bridge", bridge: "cni0", isGateway: true, hairpinMode: true, ...bridge },
      { type: "portmap", capabilities: { portMappings: true } },
      ...plugins,
    ],
    ...more,
  };
}
