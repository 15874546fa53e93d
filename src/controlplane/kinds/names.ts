import { ipFamily } from "../../lib/cidr.ts";
import type { FieldError } from "../types.ts";
import { invalidAll, invalidValue } from "./field-error.ts";

const label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const subdomain = `${label}(\\.${label})*`;
const qualified = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const labelValue = `(${qualified})?`;

const patterns = {
  label: new RegExp(`^${label}$`),
  label1035: /^[a-z]([-a-z0-9]*[a-z0-9])?$/,
  subdomain: new RegExp(`^${subdomain}$`),
  subdomainUnderscore: /^[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*$/,
  qualified: new RegExp(`^${qualified}$`),
  labelValue: new RegExp(`^${labelValue}$`),
  portName: /^[-a-z0-9]+$/,
  configKey: /^[-._a-zA-Z0-9]+$/,
} as const;

/** The API's complaint of a name that is too long: it counts bytes and says characters. */
export function maxLengthMessage(limit: number): string {
  return `must be no more than ${limit} characters`;
}

/** The same of keys and values of labels, where it says what it counts. */
function maxBytesMessage(limit: number): string {
  return `must be no more than ${limit} bytes`;
}

function regexMessage(message: string, pattern: string, ...examples: string[]): string {
  const shown = examples.map((example) => `'${example}', `).join(" or ");
  return `${message} (e.g. ${shown}regex used for validation is '${pattern}')`;
}

function bytes(value: string): number {
  return Buffer.byteLength(value);
}

/** RFC 1123 label: container, volume and namespace names. Returns messages. */
export function dns1123Label(value: string): string[] {
  const messages: string[] = [];
  if (bytes(value) > 63) messages.push(maxLengthMessage(63));
  if (!patterns.label.test(value)) {
    messages.push(
      patterns.subdomain.test(value)
        ? "must not contain dots"
        : regexMessage(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            label,
            "my-name",
            "123-abc",
          ),
    );
  }
  return messages;
}

/** RFC 1123 subdomain: names of most objects. */
export function dns1123Subdomain(value: string): string[] {
  const messages: string[] = [];
  if (bytes(value) > 253) messages.push(maxLengthMessage(253));
  if (!patterns.subdomain.test(value)) {
    messages.push(
      regexMessage(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        subdomain,
        "example.com",
      ),
    );
  }
  return messages;
}

/** Like {@link dns1123Subdomain} with underscores: DNS search paths. */
export function dns1123SubdomainWithUnderscore(value: string): string[] {
  const messages: string[] = [];
  if (bytes(value) > 253) messages.push(maxLengthMessage(253));
  if (!patterns.subdomainUnderscore.test(value)) {
    messages.push(
      regexMessage(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        "[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
        "example.com",
      ),
    );
  }
  return messages;
}

/** Label and annotation keys, taint keys, condition types: `[prefix/]name`. */
export function qualifiedName(value: string): string[] {
  const messages: string[] = [];
  const parts = value.split("/");
  if (parts.length > 2) {
    return [
      `a valid label key ${regexMessage(
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        qualified,
        "MyName",
        "my.name",
        "123-abc",
      )} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
    ];
  }
  const [prefix, name] = parts.length === 2 ? [parts[0], parts[1] ?? ""] : [undefined, value];
  if (prefix !== undefined) {
    if (prefix === "") messages.push("prefix part must be non-empty");
    else {
      const wrong = dns1123Subdomain(prefix).map((message) =>
        message === maxLengthMessage(253) ? maxBytesMessage(253) : message,
      );
      messages.push(...wrong.map((message) => `prefix part ${message}`));
    }
  }
  if (name === "") messages.push("name part must be non-empty");
  else if (bytes(name) > 63) messages.push(`name part ${maxBytesMessage(63)}`);
  if (!patterns.qualified.test(name)) {
    messages.push(
      `name part ${regexMessage(
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        qualified,
        "MyName",
        "my.name",
        "123-abc",
      )}`,
    );
  }
  return messages;
}

export function labelValueMessages(value: string): string[] {
  const messages: string[] = [];
  if (bytes(value) > 63) messages.push(maxBytesMessage(63));
  if (!patterns.labelValue.test(value)) {
    messages.push(
      regexMessage(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        labelValue,
        "MyValue",
        "my_value",
        "12345",
      ),
    );
  }
  return messages;
}

/** Label maps: `metadata.labels`, selectors, node selectors. Keys name the field itself, as upstream does. */
export function validateLabels(
  labels: Readonly<Record<string, unknown>>,
  field: string,
): FieldError[] {
  const out: FieldError[] = [];
  for (const [key, value] of Object.entries(labels)) {
    out.push(...invalidAll(field, key, qualifiedName(key)));
    if (typeof value === "string") out.push(...invalidAll(field, value, labelValueMessages(value)));
  }
  return out;
}

export function portNumberMessages(port: number): string[] {
  return port >= 1 && port <= 65535 ? [] : ["must be between 1 and 65535, inclusive"];
}

/** IANA service names: container port names and named target ports. */
export function portNameMessages(name: string): string[] {
  const messages: string[] = [];
  if (name.length > 15) messages.push(maxLengthMessage(15));
  if (!patterns.portName.test(name)) {
    messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
  }
  if (!/[a-z]/.test(name)) messages.push("must contain at least one letter (a-z)");
  if (name.includes("--")) messages.push("must not contain consecutive hyphens");
  if (name.startsWith("-") || name.endsWith("-")) {
    messages.push("must not begin or end with a hyphen");
  }
  return messages;
}

/** A port given as number or name. */
export function portOrName(value: unknown, field: string): FieldError[] {
  if (typeof value === "string") return invalidAll(field, value, portNameMessages(value));
  const port = typeof value === "number" ? value : 0;
  return invalidAll(field, port, portNumberMessages(port));
}

/** Keys of ConfigMaps and Secrets. */
export function configKeyMessages(key: string): string[] {
  const messages: string[] = [];
  if (bytes(key) > 253) messages.push(maxLengthMessage(253));
  if (!patterns.configKey.test(key)) {
    messages.push(
      regexMessage(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        "[-._a-zA-Z0-9]+",
        "key.name",
        "KEY_NAME",
        "key-name",
      ),
    );
  }
  if (key === ".") messages.push("must not be '.'");
  if (key === "..") messages.push("must not be '..'");
  else if (key.startsWith("..")) messages.push("must not start with '..'");
  return messages;
}

/** Environment variable names (relaxed rule of 1.34: printable ASCII but `=`). */
export function envNameMessages(name: string): string[] {
  if (name === "") return ["environment variable name must be non-empty"];
  return /^[ -<>-~]+$/.test(name)
    ? []
    : [
        "a valid environment variable name must consist only of printable ASCII characters other than '='",
      ];
}

/** `field` must hold an IP address in text form. */
export function ipAddress(value: string, field: string): FieldError[] {
  return ipFamily(value) === undefined
    ? [invalidValue(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    : [];
}

/** For kinds whose names are path segments only (RBAC). */
export function pathSegmentMessages(name: string): string[] {
  if (name === "." || name === "..") return [`may not be '${name}'`];
  return ["/", "%"]
    .filter((char) => name.includes(char))
    .map((char) => `may not contain '${char}'`);
}

/** The name rule of most kinds. A generated name's prefix may end in `-`. */
export function subdomainName(name: string, generateName: boolean): string[] {
  return dns1123Subdomain(generateName ? maskTrailingDash(name) : name);
}

/** Name rule of namespaces and Services. */
export function labelName(name: string, generateName: boolean): string[] {
  return dns1123Label(generateName ? maskTrailingDash(name) : name);
}

function maskTrailingDash(name: string): string {
  return name.length > 1 && name.endsWith("-") ? `${name.slice(0, -2)}a` : name;
}
