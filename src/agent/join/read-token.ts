import { readFile } from "node:fs/promises";

import { type BootstrapToken, parseBootstrapToken } from "../../api/bootstrap-token.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";

/** Environment variable that holds a token. */
export const tokenVariable = "REMORA_TOKEN";

/** Where a token may come from, in the order in which they count. */
export interface TokenSources {
  readonly token?: string;
  readonly tokenFile?: string;
  /** Value of {@link tokenVariable}. */
  readonly environment: string | undefined;
}

/** @throws {SetupError} never repeating the text: it may be half a secret. */
function parse(text: string, where: string): BootstrapToken {
  const token = parseBootstrapToken(text.trim());
  if (token !== undefined) return token;
  throw new SetupError(
    `${where} is not a bootstrap token: it must be six characters, a dot and sixteen characters, of a-z and 0-9`,
  );
}

/**
 * Reads the token of whoever joins; undefined when none is given.
 *
 * @throws {SetupError} when it is malformed or the file cannot be read.
 */
export async function readToken(sources: TokenSources): Promise<BootstrapToken | undefined> {
  const { token, tokenFile, environment } = sources;
  if (token !== undefined && tokenFile !== undefined) {
    throw new SetupError("--token and --token-file are both given; keep one of them");
  }
  if (token !== undefined) return parse(token, "--token");
  if (tokenFile !== undefined) {
    let text: string;
    try {
      text = await readFile(tokenFile, "utf8");
    } catch (error) {
      throw new SetupError(
        `--token-file ${tokenFile} cannot be read (${errorMessage(error)}); write ID.SECRET into it`,
        { cause: error },
      );
    }
    return parse(text, `the text in --token-file ${tokenFile}`);
  }
  return environment === undefined || environment === ""
    ? undefined
    : parse(environment, `the value of ${tokenVariable}`);
}
