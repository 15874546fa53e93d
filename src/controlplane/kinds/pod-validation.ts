import type { FieldError, JsonObject } from "../types.ts";
import { int, mapOf, metadataOf, nameOf, record, records, strings, text } from "./access.ts";
import type { ContainerScope } from "./container-scope.ts";
import {
  imageWhitespace,
  validateContainers,
  validateEphemeralContainers,
  validateInitContainers,
} from "./container-validation.ts";
import {
  at,
  duplicate,
  enumeration,
  forbiddenField,
  invalidAll,
  invalidValue,
  required,
  tooLong,
} from "./field-error.ts";
import {
  dns1123Label,
  dns1123Subdomain,
  dns1123SubdomainWithUnderscore,
  ipAddress,
  qualifiedName,
  subdomainName,
  validateLabels,
} from "./names.ts";
import { validateAnnotations } from "./object-meta.ts";
import { validatePodLevelResources } from "./pod-level-resources.ts";
import {
  hasWrongValues,
  validateAffinity,
  validateNodeSelector,
  validateSpread,
  validateTolerations,
} from "./scheduling-validation.ts";
import { validatePodSecurity } from "./security-validation.ts";
import { validateVolumes } from "./volume-validation.ts";

const maxInt32 = 2_147_483_647;

function dnsErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const config = record(spec["dnsConfig"]);
  const nameservers = strings(config["nameservers"]);
  const searches = strings(config["searches"]);
  if (spec["dnsPolicy"] === "None") {
    if (spec["dnsConfig"] === undefined) {
      return [required(field, "must provide `dnsConfig` when `dnsPolicy` is None")];
    }
    if (nameservers.length === 0) {
      return [
        required(
          `${field}.nameservers`,
          "must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
      ];
    }
  }
  const out: FieldError[] = [];
  if (nameservers.length > 3) {
    out.push(
      invalidValue(`${field}.nameservers`, nameservers, "must not have more than 3 nameservers"),
    );
  }
  nameservers.forEach((server, index) => {
    out.push(...ipAddress(server, at(`${field}.nameservers`, index)));
  });
  if (searches.length > 32) {
    out.push(
      invalidValue(`${field}.searches`, searches, "must not have more than 32 search paths"),
    );
  }
  if (searches.join(" ").length > 2048) {
    out.push(
      invalidValue(
        `${field}.searches`,
        searches,
        "must not have more than 2048 characters (including spaces) in the search list",
      ),
    );
  }
  searches.forEach((search, index) => {
    if (search === ".") return;
    const path = at(`${field}.searches`, index);
    const name = search.replace(/\.$/, "");
    out.push(...invalidAll(path, name, dns1123SubdomainWithUnderscore(name)));
  });
  records(config["options"]).forEach((option, index) => {
    if (text(option["name"]) === "") {
      out.push(required(at(`${field}.options`, index), "must not be empty"));
    }
  });
  return out;
}

function hostNetworkPorts(spec: Readonly<JsonObject>, field: string, isPod: boolean): FieldError[] {
  if (spec["hostNetwork"] !== true) return [];
  const out: FieldError[] = [];
  records(spec["containers"]).forEach((container, index) => {
    records(container["ports"]).forEach((port, portIndex) => {
      const hostPort = int(port["hostPort"]) ?? 0;
      if ((!isPod && hostPort === 0) || hostPort === port["containerPort"]) return;
      out.push(
        invalidValue(
          `${at(`${at(`${field}.containers`, index)}.ports`, portIndex)}.hostPort`,
          hostPort,
          "must match `containerPort` when `hostNetwork` is true",
        ),
      );
    });
  });
  return out;
}

function gateErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  records(spec["readinessGates"]).forEach((gate, index) => {
    const path = `${at(`${field}.readinessGates`, index)}.conditionType`;
    const name = text(gate["conditionType"]);
    out.push(...invalidAll(path, name, qualifiedName(name)));
  });
  const seen = new Set<string>();
  records(spec["schedulingGates"]).forEach((gate, index) => {
    const path = at(`${field}.schedulingGates`, index);
    const name = text(gate["name"]);
    out.push(...invalidAll(path, name, qualifiedName(name)));
    if (seen.has(name)) out.push(duplicate(path, name));
    seen.add(name);
  });
  return out;
}

function claimErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  const seen = new Set<string>();
  records(spec["resourceClaims"]).forEach((claim, index) => {
    const path = at(`${field}.resourceClaims`, index);
    const name = text(claim["name"]);
    if (name === "") out.push(required(`${path}.name`));
    else if (seen.has(name)) out.push(duplicate(`${path}.name`, name));
    else out.push(...invalidAll(`${path}.name`, name, dns1123Label(name)));
    seen.add(name);
    const sources = ["resourceClaimName", "resourceClaimTemplateName"].filter(
      (key) => claim[key] !== undefined,
    );
    if (sources.length === 1) return;
    out.push(
      invalidValue(
        path,
        claim,
        sources.length === 0
          ? "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
          : "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
      ),
    );
  });
  return out;
}

function hostnameErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  for (const key of ["hostname", "subdomain"]) {
    const value = text(spec[key]);
    if (value !== "") out.push(...invalidAll(`${field}.${key}`, value, dns1123Label(value)));
  }
  records(spec["hostAliases"]).forEach((alias, index) => {
    const path = at(`${field}.hostAliases`, index);
    out.push(...ipAddress(text(alias["ip"]), `${path}.ip`));
    strings(alias["hostnames"]).forEach((name, nameIndex) => {
      out.push(...invalidAll(at(`${path}.hostnames`, nameIndex), name, dns1123Subdomain(name)));
    });
  });
  const override = spec["hostnameOverride"];
  if (typeof override !== "string") return out;
  const path = `${field}.hostnameOverride`;
  if (spec["setHostnameAsFQDN"] === true) {
    out.push(forbiddenField(path, "may not be specified when setHostnameAsFQDN is true"));
  }
  if (spec["hostNetwork"] === true) {
    out.push(forbiddenField(path, "may not be specified when hostNetwork is true"));
  }
  if (override.length > 64) out.push(tooLong(path, 64));
  return [...out, ...invalidAll(path, override, dns1123Subdomain(override))];
}

function nameErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const out: FieldError[] = [];
  for (const key of ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"]) {
    const value = text(spec[key]);
    if (value !== "") {
      out.push(...invalidAll(`${field}.${key}`, value, subdomainName(value, false)));
    }
  }
  return out;
}

function deadlineErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  const deadline = int(spec["activeDeadlineSeconds"]);
  if (deadline === undefined || (deadline >= 1 && deadline <= maxInt32)) return [];
  return [
    invalidValue(
      `${field}.activeDeadlineSeconds`,
      deadline,
      `must be between 1 and ${maxInt32}, inclusive`,
    ),
  ];
}

function osErrors(spec: Readonly<JsonObject>, field: string): FieldError[] {
  if (spec["os"] === undefined) return [];
  return enumeration(`${field}.os.name`, record(spec["os"])["name"], ["linux", "windows"]);
}

/**
 * Rules for a pod spec, of a Pod or of a template.
 *
 * @param pod The Pod; undefined for a template, which may leave out what its pods get later: host ports of the host
 *   network, a name.
 */
export function validatePodSpec(
  spec: Readonly<JsonObject>,
  field: string,
  pod: Readonly<JsonObject> | undefined,
): FieldError[] {
  const isPod = pod !== undefined;
  const out: FieldError[] = [];
  if (int(spec["terminationGracePeriodSeconds"]) === undefined) {
    out.push(required(`${field}.terminationGracePeriodSeconds`));
  }
  const { errors, volumes } = validateVolumes(spec["volumes"], `${field}.volumes`, {
    isPod,
    name: pod === undefined ? "" : nameOf(pod),
  });
  const scope: ContainerScope = { spec, volumes };
  out.push(
    ...errors,
    ...claimErrors(spec, field),
    ...validateContainers(scope, `${field}.containers`),
    ...validateInitContainers(scope, `${field}.initContainers`),
    ...validateEphemeralContainers(scope, `${field}.ephemeralContainers`),
    ...validatePodLevelResources(spec, field),
    ...hostNetworkPorts(spec, field, isPod),
    ...enumeration(`${field}.restartPolicy`, spec["restartPolicy"], [
      "Always",
      "OnFailure",
      "Never",
    ]),
    ...enumeration(`${field}.dnsPolicy`, spec["dnsPolicy"], [
      "ClusterFirstWithHostNet",
      "ClusterFirst",
      "Default",
      "None",
    ]),
    ...validateLabels(record(spec["nodeSelector"]), `${field}.nodeSelector`),
    ...validatePodSecurity(spec, field),
    ...validateAffinity(spec["affinity"], `${field}.affinity`),
    ...dnsErrors(spec, `${field}.dnsConfig`),
    ...gateErrors(spec, field),
    ...validateSpread(spec["topologySpreadConstraints"], `${field}.topologySpreadConstraints`),
    ...nameErrors(spec, field),
    ...deadlineErrors(spec, field),
    ...hostnameErrors(spec, field),
    ...validateTolerations(spec["tolerations"], `${field}.tolerations`),
    ...osErrors(spec, field),
  );
  const preemption = spec["preemptionPolicy"];
  if (preemption !== undefined) {
    out.push(
      ...enumeration(`${field}.preemptionPolicy`, preemption, ["PreemptLowerPriority", "Never"]),
    );
  }
  return out;
}

/** Rules for a pod template (`spec.template` of controllers). */
export function validatePodTemplate(template: Readonly<JsonObject>, field: string): FieldError[] {
  const metadata = metadataOf(template);
  const spec = record(template["spec"]);
  const out = [
    ...validateLabels(record(metadata["labels"]), `${field}.labels`),
    ...validateAnnotations(metadata["annotations"], `${field}.annotations`),
    ...validatePodSpec(spec, `${field}.spec`, undefined),
  ];
  if (records(spec["ephemeralContainers"]).length > 0) {
    out.push(
      forbiddenField(
        `${field}.spec.ephemeralContainers`,
        "ephemeral containers not allowed in pod template",
      ),
    );
  }
  return out;
}

/** What holds for the annotations of a Pod. */
function podAnnotationErrors(pod: Readonly<JsonObject>): FieldError[] {
  const annotations = mapOf(metadataOf(pod)["annotations"]);
  const mirror = "kubernetes.io/config.mirror";
  return mirror in annotations && text(record(pod["spec"])["nodeName"]) === ""
    ? [
        invalidValue(
          `metadata.annotations[${mirror}]`,
          annotations[mirror],
          "must set spec.nodeName if mirror pod annotation is set",
        ),
      ]
    : [];
}

function tokenWithoutAccount(spec: Readonly<JsonObject>): FieldError[] {
  if (text(spec["serviceAccountName"]) !== "") return [];
  return records(spec["volumes"]).flatMap((volume, index) =>
    records(record(volume["projected"])["sources"]).flatMap((source, sourceIndex) =>
      source["serviceAccountToken"] === undefined
        ? []
        : [
            forbiddenField(
              `${at(`${at("spec.volumes", index)}.projected.sources`, sourceIndex)}.serviceAccountToken`,
              "must not be specified when serviceAccountName is not set",
            ),
          ],
    ),
  );
}

/** Rules for a Pod that hold at create and at update. */
export function validatePod(pod: Readonly<JsonObject>): FieldError[] {
  const spec = record(pod["spec"]);
  return [
    ...podAnnotationErrors(pod),
    ...validatePodSpec(spec, "spec", pod),
    ...tokenWithoutAccount(spec),
    ...imageWhitespace(spec, "spec"),
  ];
}

/** Values of required node affinity; what is stored already may have others. */
function affinityValueErrors(spec: Readonly<JsonObject>): FieldError[] {
  const rules = "requiredDuringSchedulingIgnoredDuringExecution";
  const selector = record(record(record(spec["affinity"])["nodeAffinity"])[rules]);
  return hasWrongValues(selector)
    ? validateNodeSelector(selector, `spec.affinity.nodeAffinity.${rules}`, { checkValues: true })
    : [];
}

/** Rules for creating a Pod. */
export function validatePodCreate(pod: Readonly<JsonObject>): FieldError[] {
  const spec = record(pod["spec"]);
  const out = [...validatePod(pod), ...affinityValueErrors(spec)];
  if (records(spec["ephemeralContainers"]).length > 0) {
    out.push(forbiddenField("spec.ephemeralContainers", "cannot be set on create"));
  }
  if (text(spec["nodeName"]) !== "" && records(spec["schedulingGates"]).length > 0) {
    out.push(
      forbiddenField("spec.nodeName", "cannot be set until all schedulingGates have been cleared"),
    );
  }
  return out;
}
