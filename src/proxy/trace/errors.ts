import { RemoraError } from "../../lib/errors.ts";

/** A rule says something that is not understood here, so nothing can be said about packets that meet it. */
export class UnknownRuleError extends RemoraError {
  readonly code = "REMORA_TRACE_RULE";
  /** The words that are not understood. */
  readonly words: string;
  readonly rule: string;

  constructor(words: string, rule: string) {
    super(`rule is not understood at "${words}": ${rule}`);
    this.words = words;
    this.rule = rule;
  }
}

/** A rule asks for something about the machine that is not known here. */
export class UnknownFactError extends RemoraError {
  readonly code = "REMORA_TRACE_FACT";

  constructor(what: string) {
    super(`a rule asks for ${what}, which is not known`);
  }
}

/** The kernel would refuse a transaction: it adds what is there with another value, or removes what is not. */
export class RefusedTextError extends RemoraError {
  readonly code = "REMORA_TRACE_TEXT";
}
