import type { Container } from "../../api/types.gen.ts";
import { ParseError } from "../../lib/errors.ts";

/**
 * The number of a port that a probe or hook names.
 *
 * @throws {ParseError} when the container has no port of that name.
 */
export function resolvePort(container: Container, port: string | number): number {
  const number = typeof port === "number" ? port : Number(port);
  if (Number.isInteger(number) && number > 0 && number < 65_536) return number;
  const named = (container.ports ?? []).find(({ name }) => name === port);
  if (named === undefined) throw new ParseError("port", `a port of the container, not "${port}"`);
  return named.containerPort;
}
