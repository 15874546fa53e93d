/** What environment variables need of a Service. */
export interface ServiceEnvSource {
  readonly namespace: string;
  readonly name: string;
  readonly clusterIP: string;
  readonly ports: readonly {
    readonly name: string;
    readonly port: number;
    readonly protocol: string;
  }[];
}

function variableName(text: string): string {
  return text.replaceAll("-", "_").toUpperCase();
}

function hostPort(ip: string, port: number): string {
  return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function addLinkVariables(service: ServiceEnvSource, out: Map<string, string>): void {
  const prefix = variableName(service.name);
  for (const [index, port] of service.ports.entries()) {
    const protocol = (port.protocol === "" ? "TCP" : port.protocol).toLowerCase();
    const url = `${protocol}://${hostPort(service.clusterIP, port.port)}`;
    if (index === 0) out.set(`${prefix}_PORT`, url);
    const portPrefix = `${prefix}_PORT_${port.port}_${protocol.toUpperCase()}`;
    out.set(portPrefix, url);
    out.set(`${portPrefix}_PROTO`, protocol);
    out.set(`${portPrefix}_PORT`, String(port.port));
    out.set(`${portPrefix}_ADDR`, service.clusterIP);
  }
}

/**
 * `<NAME>_SERVICE_HOST` and its relatives: for the pod's own namespace when `enableServiceLinks`, and always for
 * `kubernetes` in `default`. Headless and external Services have none.
 */
export function serviceEnvironment(
  services: Iterable<ServiceEnvSource>,
  namespace: string,
  enableServiceLinks: boolean,
): ReadonlyMap<string, string> {
  const chosen = new Map<string, ServiceEnvSource>();
  for (const service of services) {
    if (service.clusterIP === "" || service.clusterIP === "None") continue;
    const master = service.namespace === "default" && service.name === "kubernetes";
    if (service.namespace === namespace && (enableServiceLinks || master)) {
      chosen.set(service.name, service);
    } else if (master && !chosen.has(service.name)) {
      chosen.set(service.name, service);
    }
  }
  const out = new Map<string, string>();
  for (const service of chosen.values()) {
    const [first] = service.ports;
    if (first === undefined) continue;
    const prefix = variableName(service.name);
    out.set(`${prefix}_SERVICE_HOST`, service.clusterIP);
    out.set(`${prefix}_SERVICE_PORT`, String(first.port));
    for (const port of service.ports) {
      if (port.name !== "") {
        out.set(`${prefix}_SERVICE_PORT_${variableName(port.name)}`, String(port.port));
      }
    }
    addLinkVariables(service, out);
  }
  return out;
}
