import { validateLabelValue, validateQualifiedName } from "../api/names.ts";
import { parseQuantity, quantityProblem } from "../api/quantity.ts";
import { ipFamily } from "../lib/cidr.ts";
import { gateEnabled } from "./feature-gates.ts";
import { broken, type Finding, type Rule } from "./finding.ts";
import { formatGoDuration } from "./go-duration.ts";
import type { KubeletConfiguration } from "./kubelet-configuration.ts";
import { kubeletValues, outside } from "./validate-kubelet-values.ts";

const enforcements = [
  "pods",
  "system-reserved",
  "system-reserved-compressible",
  "kube-reserved",
  "kube-reserved-compressible",
  "none",
];

function enforcement(c: KubeletConfiguration, value: string, index: number): Rule[] {
  const path = "enforceNodeAllocatable";
  const all = c.enforceNodeAllocatable;
  const flag = "enforceNodeAllocatable (--enforce-node-allocatable)";
  if (all.indexOf(value) < index)
    return [[true, path, `duplicated enforcements ${JSON.stringify(value)} in ${flag}`]];
  if (!enforcements.includes(value)) {
    const valid = enforcements.map((word) => JSON.stringify(word));
    return [
      [
        true,
        path,
        `option ${JSON.stringify(value)} specified for ${flag}. Valid options are ${valid.slice(0, -1).join(", ")} or ${valid.at(-1) ?? ""}`,
      ],
    ];
  }
  if (value === "none") {
    return [
      [
        all.length > 1,
        path,
        `${flag} may not contain additional enforcements when "none" is specified`,
      ],
    ];
  }
  const [owner = ""] = value.split("-");
  const cgroup = owner === "system" ? c.systemReservedCgroup : c.kubeReservedCgroup;
  return [
    [
      value !== "pods" && cgroup === "",
      path,
      `${owner}ReservedCgroup (--${owner}-reserved-cgroup) must be specified when "${owner}-reserved" or "${owner}-reserved-compressible" included in ${flag}`,
    ],
    [
      !c.cgroupsPerQOS,
      "cgroupsPerQOS",
      `cgroupsPerQOS (--cgroups-per-qos) must be set to true when ${JSON.stringify(value)} contained in ${flag}`,
    ],
  ];
}

function dependencies(c: KubeletConfiguration): Rule[] {
  const on = (gate: string): boolean => gateEnabled(gate, c.featureGates);
  const { shutdownGracePeriod: grace, shutdownGracePeriodCriticalPods: critical } = c;
  const { maxContainerRestartPeriod: period } = c.crashLoopBackOff;
  const short = (ms: number): boolean => ms < 0 || (ms > 0 && ms < 1000);
  const both = (owner: string): boolean =>
    c.enforceNodeAllocatable.includes(`${owner}-reserved`) &&
    c.enforceNodeAllocatable.includes(`${owner}-reserved-compressible`);
  const together = (owner: string): string =>
    `both "${owner}-reserved" and "${owner}-reserved-compressible" cannot be specified together in enforceNodeAllocatable (--enforce-node-allocatable)`;
  return [
    [
      c.systemCgroups !== "" && c.cgroupRoot === "",
      "systemCgroups",
      "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified",
    ],
    [
      c.serverTLSBootstrap && !on("RotateKubeletServerCertificate"),
      "serverTLSBootstrap",
      "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate",
    ],
    [
      critical > grace,
      "shutdownGracePeriodCriticalPods",
      `shutdownGracePeriodCriticalPods {${formatGoDuration(critical)}} must be <= shutdownGracePeriod {${formatGoDuration(grace)}}`,
    ],
    [
      short(grace),
      "shutdownGracePeriod",
      `shutdownGracePeriod {${formatGoDuration(grace)}} must be either zero or otherwise >= 1 sec`,
    ],
    [
      short(critical),
      "shutdownGracePeriodCriticalPods",
      `shutdownGracePeriodCriticalPods {${formatGoDuration(critical)}} must be either zero or otherwise >= 1 sec`,
    ],
    [
      c.shutdownGracePeriodByPodPriority.length > 0 && grace + critical > 0,
      "shutdownGracePeriodByPodPriority",
      "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
    ],
    [
      outside(period, 1000, 300_000),
      "crashLoopBackOff.maxContainerRestartPeriod",
      `CrashLoopBackOff.MaxContainerRestartPeriod (got: ${period / 1000} seconds) must be set between 1s and 300s`,
    ],
    [both("system"), "enforceNodeAllocatable", together("system")],
    [both("kube"), "enforceNodeAllocatable", together("kube")],
    ...c.enforceNodeAllocatable.flatMap((value, index) => enforcement(c, value, index)),
    [
      c.reservedSystemCPUs !== "" && c.systemReservedCgroup + c.kubeReservedCgroup !== "",
      "reservedSystemCPUs",
      "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)",
    ],
    [
      c.enableSystemLogQuery && !on("NodeLogQuery"),
      "enableSystemLogQuery",
      "NodeLogQuery feature gate is required for enableSystemLogQuery",
    ],
    [
      c.enableSystemLogQuery && !c.enableSystemLogHandler,
      "enableSystemLogQuery",
      "enableSystemLogHandler is required for enableSystemLogQuery",
    ],
  ];
}

const effects = ["NoSchedule", "PreferNoSchedule", "NoExecute", ""];

function taints(c: KubeletConfiguration): Finding[] {
  const path = "registerWithTaints";
  return c.registerWithTaints.flatMap(({ key, value, effect, timeAdded }) => {
    const problems = [
      ...validateQualifiedName(key).map((text) => `invalid taint key: ${text}`),
      ...validateLabelValue(value).map((text) => `invalid taint value: ${text}`),
      ...(effects.includes(effect)
        ? []
        : [`invalid taint effect: ${effect}, unsupported taint effect`]),
      ...(timeAdded === undefined ? [] : ["taint.TimeAdded is not nil"]),
    ];
    return problems.map((text) => ({
      path,
      text: `invalid taint: ${key}=${value}:${effect}: ${text}`,
    }));
  });
}

const reservable = ["cpu", "memory", "ephemeral-storage", "pid"];
const signals = [
  "memory.available",
  "nodefs.available",
  "nodefs.inodesFree",
  "imagefs.available",
  "imagefs.inodesFree",
  "containerfs.available",
  "containerfs.inodesFree",
  "pid.available",
];

function reserved(path: "kubeReserved" | "systemReserved", c: KubeletConfiguration): Finding[] {
  return Object.entries(c[path]).flatMap(([resource, text]) => {
    const name = JSON.stringify(resource);
    if (!reservable.includes(resource)) return [{ path, text: `cannot reserve ${name} resource` }];
    const problem = quantityProblem(text);
    if (problem !== undefined) {
      const failed = `failed to parse quantity ${JSON.stringify(text)} for ${name} resource: ${problem}`;
      return [{ path, text: failed }];
    }
    return text.startsWith("-")
      ? [{ path, text: `resource quantity for ${name} cannot be negative: ${text}` }]
      : [];
  });
}

function thresholds(c: KubeletConfiguration): Finding[] {
  const path = "evictionHard";
  return Object.entries(c.evictionHard ?? {}).flatMap(([signal, text]) => {
    if (!signals.includes(signal)) return [{ path, text: `unsupported eviction signal ${signal}` }];
    const percent = /^(-?\d+(?:\.\d+)?)%$/.exec(text)?.[1];
    if (percent !== undefined) {
      const good = Number(percent) >= 0 && Number(percent) <= 100;
      return good
        ? []
        : [
            {
              path,
              text: `eviction percentage threshold ${signal} must be >= 0% and <= 100%: ${text}`,
            },
          ];
    }
    const problem = quantityProblem(text);
    if (problem !== undefined)
      return [{ path, text: `${signal}: ${JSON.stringify(text)}: ${problem}` }];
    return text.startsWith("-")
      ? [{ path, text: `eviction threshold ${signal} must be positive: ${text}` }]
      : [];
  });
}

function logSize(c: KubeletConfiguration): Finding[] {
  const { containerLogMaxSize: text } = c;
  const unparsed = quantityProblem(text);
  const { nanos } = unparsed === undefined ? parseQuantity(text) : { nanos: 0n };
  // The kubelet takes a negative size for no limit; a node's disk is worth one.
  const good = nanos > 0n && nanos % 1_000_000_000n === 0n;
  if (good) return [];
  const why = unparsed ?? "must be a whole number of bytes, at least 1";
  const shown = JSON.stringify(text);
  return [
    {
      path: "containerLogMaxSize",
      text: `failed to parse container log max size ${shown}: ${why}`,
    },
  ];
}

/** What the kubelet refuses when it starts, behind its validation. */
function atStart(c: KubeletConfiguration): Finding[] {
  const notIP = (path: "address" | "healthzBindAddress"): Finding[] =>
    ipFamily(c[path]) === undefined
      ? [{ path, text: `${JSON.stringify(c[path])} is not an IP address` }]
      : [];
  const dns = c.clusterDNS.filter((ip) => ipFamily(ip) === undefined);
  return [
    ...notIP("address"),
    ...notIP("healthzBindAddress"),
    ...dns.map((ip) => ({
      path: "clusterDNS",
      text: `${JSON.stringify(ip)} is not an IP address`,
    })),
    ...reserved("kubeReserved", c),
    ...reserved("systemReserved", c),
    ...thresholds(c),
    ...logSize(c),
    ...broken(
      [
        [
          (c.tlsCertFile === "") !== (c.tlsPrivateKeyFile === ""),
          "tlsCertFile",
          "tlsCertFile and tlsPrivateKeyFile must be given together",
        ],
        [c.cgroupRoot !== "" && !c.cgroupRoot.startsWith("/"), "cgroupRoot", "must start with /"],
        [
          c.cgroupsPerQOS && c.enforceNodeAllocatable.join(",") !== "pods",
          "enforceNodeAllocatable",
          "only [pods] is enforced",
        ],
        [
          c.tlsMinVersion === "VersionTLS10" || c.tlsMinVersion === "VersionTLS11",
          "tlsMinVersion",
          "is not spoken; say VersionTLS12 or VersionTLS13",
        ],
        [c.nodeStatusUpdateFrequency <= 0, "nodeStatusUpdateFrequency", "must be greater than 0"],
        [c.nodeStatusReportFrequency <= 0, "nodeStatusReportFrequency", "must be greater than 0"],
      ],
      "",
    ),
  ];
}

/** The rules of `logging`, which both upstream kinds have. */
export function validateLogging(c: Pick<KubeletConfiguration, "logging">): Finding[] {
  const { format, verbosity, vmodule, flushFrequency } = c.logging;
  const rules: Rule[] = [
    [
      format !== "text" && format !== "json",
      "logging.format",
      `Invalid value: ${JSON.stringify(format)}: Unsupported log format`,
    ],
    [
      verbosity > 2 ** 31 - 1,
      "logging.verbosity",
      `Invalid value: ${verbosity}: Must be <= ${2 ** 31 - 1}`,
    ],
    [
      flushFrequency <= 0,
      "logging.flushFrequency",
      `Invalid value: ${formatGoDuration(flushFrequency)}: Must be greater than zero`,
    ],
    [
      vmodule.length > 0 && format === "json",
      "logging.vmodule",
      "Forbidden: Only supported for text log format",
    ],
  ];
  return broken(rules, "");
}

/** Everything about a KubeletConfiguration that upstream's own validation refuses (1.36, on Linux). */
export function validateKubelet(c: KubeletConfiguration): readonly Finding[] {
  const rules = [...kubeletValues(c), ...dependencies(c)];
  return [...broken(rules), ...taints(c), ...atStart(c), ...validateLogging(c)];
}
