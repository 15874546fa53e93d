import { RemoraError } from "../lib/errors.ts";
import { validateLabelValue, validateQualifiedName } from "./names.ts";
import { matchesRequirement } from "./selectors.ts";
import type { LabelSelector } from "./types.gen.ts";

/** A label or field selector could not be read; the message is the API's own. */
export class SelectorError extends RemoraError {
  readonly code = "REMORA_SELECTOR";
}

/** One condition of a label selector. All conditions of a selector must hold. */
export interface Requirement {
  readonly key: string;
  readonly operator: "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt";
  /** Sorted, without duplicates; empty for Exists and DoesNotExist. */
  readonly values: readonly string[];
}

type Labels = Readonly<Record<string, string>>;

interface Token {
  readonly kind: "word" | "symbol" | "end";
  readonly text: string;
}

const symbols = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  let rest = text.trimStart();
  while (rest !== "") {
    const symbol = symbols.find((candidate) => rest.startsWith(candidate));
    const word = symbol ?? /^[^\s=!(),><]+/.exec(rest)?.[0] ?? rest;
    tokens.push({ kind: symbol === undefined ? "word" : "symbol", text: word });
    rest = rest.slice(word.length).trimStart();
  }
  return [...tokens, { kind: "end", text: "" }];
}

/** Recursive descent over the grammar of labels.Parse; one instance per text. */
class SelectorParser {
  readonly #tokens: readonly Token[];
  #position = 0;

  constructor(text: string) {
    this.#tokens = tokenize(text);
  }

  parse(): Requirement[] {
    const requirements: Requirement[] = [];
    while (this.#peek().kind !== "end") {
      const next = this.#peek();
      if (next.kind !== "word" && next.text !== "!") {
        throw new SelectorError(
          `found '${next.text}', expected: !, identifier, or 'end of string'`,
        );
      }
      requirements.push(this.#requirement());
      const separator = this.#take();
      if (separator.kind === "end") break;
      if (separator.text !== ",") {
        throw new SelectorError(`found '${separator.text}', expected: ',' or 'end of string'`);
      }
      const following = this.#peek();
      if (following.kind !== "word" && following.text !== "!") {
        throw new SelectorError(`found '${following.text}', expected: identifier after ','`);
      }
    }
    return requirements.toSorted((a, b) => (a.key < b.key ? -1 : Number(a.key > b.key)));
  }

  #peek(): Token {
    return this.#tokens[this.#position] ?? { kind: "end", text: "" };
  }

  #take(): Token {
    const token = this.#peek();
    if (token.kind !== "end") this.#position += 1;
    return token;
  }

  #requirement(): Requirement {
    try {
      return this.#condition();
    } catch (error) {
      if (!(error instanceof SelectorError)) throw error;
      throw new SelectorError(`unable to parse requirement: ${error.message}`);
    }
  }

  #condition(): Requirement {
    const negated = this.#peek().text === "!";
    if (negated) this.#take();
    const key = this.#take();
    if (key.kind !== "word") throw new SelectorError(`found '${key.text}', expected: identifier`);
    checkKey(key.text);
    const next = this.#peek();
    if (negated && (next.kind === "end" || next.text === ",")) {
      return { key: key.text, operator: "DoesNotExist", values: [] };
    }
    if (next.kind === "end" || next.text === ",") {
      return { key: key.text, operator: "Exists", values: [] };
    }
    return this.#comparison(key.text);
  }

  #comparison(key: string): Requirement {
    const operator = this.#take().text;
    switch (operator) {
      case "in":
        return requirement(key, "In", this.#set());
      case "notin":
        return requirement(key, "NotIn", this.#set());
      case "=":
      case "==":
        return requirement(key, "In", [this.#value()]);
      case "!=":
        return requirement(key, "NotIn", [this.#value()]);
      case ">":
        return requirement(key, "Gt", [this.#value()]);
      case "<":
        return requirement(key, "Lt", [this.#value()]);
      default:
        throw new SelectorError(`found '${operator}', expected: in, notin, =, ==, !=, gt, lt`);
    }
  }

  #value(): string {
    const next = this.#peek();
    if (next.kind === "end" || next.text === ",") return "";
    const value = this.#take();
    if (value.kind !== "word")
      throw new SelectorError(`found '${value.text}', expected: identifier`);
    return value.text;
  }

  /** `(a,b)`; an empty place between commas is the empty value. */
  #set(): string[] {
    const open = this.#take();
    if (open.text !== "(") throw new SelectorError(`found '${open.text}' expected: '('`);
    const values: string[] = [];
    let current = "";
    for (;;) {
      const token = this.#take();
      if (token.kind === "word") {
        if (current !== "") throw new SelectorError(`found '${token.text}', expected: ',' or ')'`);
        current = token.text;
      } else if (token.text === "," || token.text === ")") {
        values.push(current);
        current = "";
        if (token.text === ")") return values;
      } else {
        throw new SelectorError(`found '${token.text}', expected: ',', ')' or identifier`);
      }
    }
  }
}

function checkKey(key: string): void {
  const errors = validateQualifiedName(key);
  if (errors.length > 0) {
    throw new SelectorError(`<nil>: Invalid value: ${JSON.stringify(key)}: ${errors.join("; ")}`);
  }
}

function requirement(
  key: string,
  operator: Requirement["operator"],
  values: readonly string[],
): Requirement {
  checkKey(key);
  for (const [index, value] of values.entries()) {
    if ((operator === "Gt" || operator === "Lt") && !/^[+-]?\d+$/.test(value)) {
      throw new SelectorError(
        `values[${index}]: Invalid value: ${JSON.stringify(value)}: for 'Gt', 'Lt' operators, the value must be an integer`,
      );
    }
    const errors = validateLabelValue(value);
    if (errors.length > 0) {
      throw new SelectorError(
        `values[${index}][${key}]: Invalid value: ${JSON.stringify(value)}: ${errors.join("; ")}`,
      );
    }
  }
  return { key, operator, values: [...new Set(values)].toSorted() };
}

/**
 * Reads the text form of a label selector: `a=b,c!=d,e in (f,g),h notin (i),j,!k`. Empty text selects everything.
 *
 * @throws {SelectorError}
 */
export function parseLabelSelector(text: string): readonly Requirement[] {
  return new SelectorParser(text).parse();
}

/**
 * The requirements of a LabelSelector object (meta/v1). An empty object selects everything; the caller decides what
 * an absent one means, because the API is not uniform there.
 *
 * @throws {SelectorError} for an unknown operator, or values that do not fit it.
 */
export function labelSelectorRequirements(selector: LabelSelector): readonly Requirement[] {
  const fromLabels = Object.entries(selector.matchLabels ?? {}).map(([key, value]) =>
    requirement(key, "In", [value]),
  );
  const fromExpressions = (selector.matchExpressions ?? []).map(
    ({ key, operator, values = [] }) => {
      switch (operator) {
        case "In":
        case "NotIn":
          if (values.length === 0) {
            throw new SelectorError(
              "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            );
          }
          return requirement(key, operator, values);
        case "Exists":
        case "DoesNotExist":
          if (values.length > 0) {
            throw new SelectorError(
              "values: Invalid value: values set must be empty for exists and does not exist",
            );
          }
          return requirement(key, operator, []);
        default:
          throw new SelectorError(
            `${JSON.stringify(operator)} is not a valid label selector operator`,
          );
      }
    },
  );
  return [...fromLabels, ...fromExpressions];
}

/** Whether all requirements hold for the labels of an object. */
export function matchesLabels(
  requirements: readonly Requirement[],
  labels: Labels | undefined,
): boolean {
  return requirements.every((one) => matchesRequirement(one, labels));
}

/** Text form of requirements, as the API prints selectors. */
export function formatRequirements(requirements: readonly Requirement[]): string {
  return requirements.map(formatRequirement).join(",");
}

function formatRequirement({ key, operator, values }: Requirement): string {
  switch (operator) {
    case "Exists":
      return key;
    case "DoesNotExist":
      return `!${key}`;
    case "Gt":
      return `${key}>${values[0] ?? ""}`;
    case "Lt":
      return `${key}<${values[0] ?? ""}`;
    case "In":
      return values.length === 1 ? `${key}=${values[0]}` : `${key} in (${values.join(",")})`;
    case "NotIn":
      return values.length === 1 ? `${key}!=${values[0]}` : `${key} notin (${values.join(",")})`;
  }
}

/** Text form of plain labels as a selector: `a=b,c=d`, sorted by key. */
export function formatLabels(labels: Labels): string {
  return Object.keys(labels)
    .toSorted()
    .map((key) => `${key}=${labels[key]}`)
    .join(",");
}

/** One condition of a field selector. */
export interface FieldRequirement {
  /** Path such as `spec.nodeName`. */
  readonly field: string;
  readonly operator: "=" | "!=";
  readonly value: string;
}

/**
 * Reads a field selector: `spec.nodeName=n1,status.phase!=Failed`. Inside a value, `\` escapes `\`, `,` and `=`.
 * Which fields exist is the server's business.
 *
 * @throws {SelectorError}
 */
export function parseFieldSelector(text: string): readonly FieldRequirement[] {
  const terms = text.match(/(?:\\.|[^,\\]|\\$)+/gs) ?? [];
  return terms.toSorted().map((term) => {
    const match = /^(.*?)(!=|==|=)(.*)$/s.exec(term);
    if (match === null) {
      throw new SelectorError(`invalid selector: '${text}'; can't understand '${term}'`);
    }
    const [, field = "", operator, raw = ""] = match;
    return { field, operator: operator === "!=" ? "!=" : "=", value: unescapeFieldValue(raw) };
  });
}

function unescapeFieldValue(raw: string): string {
  return raw.replaceAll(/\\(.?)|=/gs, (found: string, escaped?: string) => {
    if (escaped === undefined) {
      throw new SelectorError("invalid field selector: unescaped character in value: =");
    }
    if (!["\\", ",", "="].includes(escaped)) {
      throw new SelectorError(`invalid field selector: invalid escape sequence: ${found}`);
    }
    return escaped;
  });
}

/** A value made safe for use inside a field selector. */
export function escapeFieldValue(value: string): string {
  return value.replaceAll(/[\\,=]/g, String.raw`\$&`);
}

/** Whether all requirements hold; `valueOf` gives a field's value, empty when absent. */
export function matchesFields(
  requirements: readonly FieldRequirement[],
  valueOf: (field: string) => string,
): boolean {
  return requirements.every(
    ({ field, operator, value }) => (valueOf(field) === value) === (operator === "="),
  );
}
