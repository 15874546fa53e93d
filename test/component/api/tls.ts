import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

export interface TestPki {
  readonly ca: string;
  readonly server: KeyPair;
  /** A client certificate with this common name. */
  client(commonName: string): KeyPair;
  readonly directory: string;
  dispose(): void;
}

/** A certificate authority of its own, in a folder of its own, made by openssl. */
export function makePki(): TestPki {
  const directory = mkdtempSync(join(tmpdir(), "remora-pki-"));
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { cwd: directory, stdio: "ignore" });
  };
  const read = (file: string): string => readFileSync(join(directory, file), "utf8");
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const issue = (name: string, subject: string, san: string): KeyPair => {
    openssl(
      "req",
      "-new",
      ...newKey,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.csr`,
      "-subj",
      subject,
      "-addext",
      `subjectAltName=${san}`,
    );
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.crt",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-days",
      "2",
      "-copy_extensions",
      "copy",
      "-out",
      `${name}.crt`,
    );
    return { cert: read(`${name}.crt`), key: read(`${name}.key`) };
  };
  openssl(
    "req",
    "-x509",
    ...newKey,
    "-keyout",
    "ca.key",
    "-out",
    "ca.crt",
    "-subj",
    "/CN=test-ca",
    "-days",
    "2",
  );
  return {
    ca: read("ca.crt"),
    server: issue("server", "/CN=server", "IP:127.0.0.1,DNS:kubernetes"),
    client: (commonName) => issue(`client-${commonName}`, `/CN=${commonName}`, "DNS:client"),
    directory,
    dispose: () => rmSync(directory, { recursive: true, force: true }),
  };
}
