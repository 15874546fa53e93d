/**
 * Syntax rules of names, label keys and label values. Each function returns what is wrong, in the API's own words, and
 * an empty list when nothing is (apimachinery validation).
 */

const label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const subdomain = `${label}(\\.${label})*`;
const label1035 = "[a-z]([-a-z0-9]*[a-z0-9])?";
const qualifiedName = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const labelValue = `(${qualifiedName})?`;
const envVarName = "[-._a-zA-Z][-._a-zA-Z0-9]*";
const configMapKey = "[-._a-zA-Z0-9]+";

const labelRegExp = new RegExp(`^${label}$`);
const subdomainRegExp = new RegExp(`^${subdomain}$`);
const label1035RegExp = new RegExp(`^${label1035}$`);
const qualifiedNameRegExp = new RegExp(`^${qualifiedName}$`);
const labelValueRegExp = new RegExp(`^${labelValue}$`);
const envVarNameRegExp = new RegExp(`^${envVarName}$`);
const configMapKeyRegExp = new RegExp(`^${configMapKey}$`);

/** `must be no more than N characters`. */
export function maxLengthMessage(length: number): string {
  return `must be no more than ${length} characters`;
}

/** The API's sentence for a value that does not match a regular expression. */
export function regexMessage(message: string, regex: string, ...examples: string[]): string {
  const used = `regex used for validation is '${regex}'`;
  if (examples.length === 0) return `${message} (${used})`;
  return `${message} (e.g. ${examples.map((example) => `'${example}'`).join(",  or ")}, ${used})`;
}

/** Bytes, as the API counts: a name is limited by its UTF-8 length. */
function longerThan(value: string, bytes: number): boolean {
  return Buffer.byteLength(value) > bytes;
}

/** RFC 1123 label: names of containers, namespaces, volumes. At most 63 characters. */
export function validateDNS1123Label(value: string): string[] {
  const errors = longerThan(value, 63) ? [maxLengthMessage(63)] : [];
  if (labelRegExp.test(value)) return errors;
  if (subdomainRegExp.test(value)) return [...errors, "must not contain dots"];
  const rule =
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
  return [...errors, regexMessage(rule, label, "my-name", "123-abc")];
}

/** RFC 1123 subdomain: names of most objects. At most 253 characters. */
export function validateDNS1123Subdomain(value: string): string[] {
  const errors = longerThan(value, 253) ? [maxLengthMessage(253)] : [];
  if (subdomainRegExp.test(value)) return errors;
  const rule =
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
  return [...errors, regexMessage(rule, subdomain, "example.com")];
}

/** RFC 1035 label: a label that starts with a letter. At most 63 characters. */
export function validateDNS1035Label(value: string): string[] {
  const errors = longerThan(value, 63) ? [maxLengthMessage(63)] : [];
  if (label1035RegExp.test(value)) return errors;
  const rule =
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
  return [...errors, regexMessage(rule, label1035, "my-name", "abc-123")];
}

/** Key of a label, annotation or extended resource: `name` or `prefix.example.com/name`. */
export function validateQualifiedName(value: string): string[] {
  const nameRule =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
  const parts = value.split("/");
  const errors: string[] = [];
  let name = parts[0] ?? "";
  if (parts.length === 2) {
    const prefix = name;
    name = parts[1] ?? "";
    if (prefix === "") errors.push("prefix part must be non-empty");
    else
      errors.push(...validateDNS1123Subdomain(prefix).map((message) => `prefix part ${message}`));
  } else if (parts.length > 2) {
    const rule = `a valid label key ${nameRule}`;
    return [
      `${regexMessage(rule, qualifiedName, "MyName", "my.name", "123-abc")} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
    ];
  }
  if (name === "") errors.push("name part must be non-empty");
  else if (longerThan(name, 63)) errors.push(`name part ${maxLengthMessage(63)}`);
  if (!qualifiedNameRegExp.test(name)) {
    const rule = `name part ${nameRule}`;
    errors.push(regexMessage(rule, qualifiedName, "MyName", "my.name", "123-abc"));
  }
  return errors;
}

/** Value of a label: empty, or at most 63 characters of a restricted alphabet. */
export function validateLabelValue(value: string): string[] {
  const errors = longerThan(value, 63) ? [maxLengthMessage(63)] : [];
  if (labelValueRegExp.test(value)) return errors;
  const rule =
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
  return [...errors, regexMessage(rule, labelValue, "MyValue", "my_value", "12345")];
}

/** Name of an environment variable, strict form. */
export function validateEnvVarName(value: string): string[] {
  const rule =
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit";
  const errors = envVarNameRegExp.test(value)
    ? []
    : [regexMessage(rule, envVarName, "my.env-name", "MY_ENV.NAME", "MyEnvName1")];
  return [...errors, ...parentDirectoryPrefix(value)];
}

/** Name of an environment variable, as the API accepts it since 1.34 (KEP-4369): printable ASCII but `=`. */
export function validateRelaxedEnvVarName(value: string): string[] {
  const errors = value === "" ? ["environment variable name must be non-empty"] : [];
  if (/^[\x20-\x3c\x3e-\x7e]*$/.test(value)) return errors;
  return [
    ...errors,
    "a valid environment variable name must consist only of printable ASCII characters other than '='",
  ];
}

/** Key of a ConfigMap or Secret. */
export function validateConfigMapKey(value: string): string[] {
  const errors = longerThan(value, 253) ? [maxLengthMessage(253)] : [];
  if (!configMapKeyRegExp.test(value)) {
    const rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
    errors.push(regexMessage(rule, configMapKey, "key.name", "KEY_NAME", "key-name"));
  }
  return [...errors, ...parentDirectoryPrefix(value)];
}

/** Name of a port (IANA_SVC_NAME): at most 15 characters, at least one letter. */
export function validatePortName(value: string): string[] {
  const errors = longerThan(value, 15) ? [maxLengthMessage(15)] : [];
  if (!/^[-a-z0-9]+$/.test(value)) {
    errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
  }
  if (!/[a-z]/.test(value)) errors.push("must contain at least one letter (a-z)");
  if (value.includes("--")) errors.push("must not contain consecutive hyphens");
  if (value.startsWith("-") || value.endsWith("-")) {
    errors.push("must not begin or end with a hyphen");
  }
  return errors;
}

/** Port number, 1 to 65535. */
export function validatePortNumber(value: number): string[] {
  return Number.isInteger(value) && value >= 1 && value <= 65_535
    ? []
    : ["must be between 1 and 65535, inclusive"];
}

/** Name that becomes one path segment: may hold neither `/` nor `%`, nor be `.` or `..`. */
export function validatePathSegmentName(value: string): string[] {
  if (value === "." || value === "..") return [`may not be '${value}'`];
  return ["/", "%"]
    .filter((part) => value.includes(part))
    .map((part) => `may not contain '${part}'`);
}

function parentDirectoryPrefix(value: string): string[] {
  if (value === ".") return ["must not be '.'"];
  if (value === "..") return ["must not be '..'"];
  return value.startsWith("..") ? ["must not start with '..'"] : [];
}
